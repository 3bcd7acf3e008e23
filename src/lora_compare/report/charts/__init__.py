"""The report's charts as SVG text: vector only, readable in light and dark, byte-repeatable."""

from lora_compare.report.charts.calibration import calibration
from lora_compare.report.charts.confusion import MOST_CLASSES, SHORT, confusion, most_confused
from lora_compare.report.charts.drawing import ALONE, COLOURS, INK, STYLE, colour
from lora_compare.report.charts.learning import curves
from lora_compare.report.charts.precision import Operating, precision_recall
from lora_compare.report.charts.size import accuracy_by_parameters
from lora_compare.report.charts.tuning import tuning, written

__all__ = [
    "ALONE",
    "COLOURS",
    "INK",
    "MOST_CLASSES",
    "SHORT",
    "STYLE",
    "Operating",
    "accuracy_by_parameters",
    "calibration",
    "colour",
    "confusion",
    "curves",
    "most_confused",
    "precision_recall",
    "tuning",
    "written",
]
