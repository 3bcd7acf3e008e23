"""Accuracy against the number of trained parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from lora_compare.comparison.formats import count
from lora_compare.comparison.prices import accuracy
from lora_compare.report.charts.drawing import (
    GUIDE,
    INK,
    WIDE,
    Drawing,
    Tip,
    colour,
    drawing,
    printable,
)
from lora_compare.report.charts.labels import Mark, label_spots

UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
"""What a tick's number is divided by, and what is written behind it."""


def accuracy_by_parameters(
    methods: Sequence[Mapping[str, Any]], tfidf: Mapping[str, Any] | None
) -> str:
    """Return test accuracy with its interval against the number of trained parameters.

    Args:
        methods: Flat records of metrics/comparison.json.
        tfidf: The record of the linear baseline, drawn as a line across too.
    """
    with drawing("parameters", (WIDE, 270), (54, 12, 24, 38)) as chart:
        axes = chart.figure.subplots()
        axes.set_xscale("log")
        axes.set_title("Test accuracy by trained parameters")
        axes.set_xlabel("trained parameters, log scale")
        axes.set_ylabel("per cent, with 95 % interval")
        spots = [_interval(chart, axes, record, index) for index, record in enumerate(methods)]
        if tfidf is not None:
            axes.axhline(100 * tfidf["test_accuracy"], **GUIDE)
            spots.append(_interval(chart, axes, tfidf, None))
        axes.margins(x=0.16, y=0.16)
        axes.xaxis.set_major_formatter(FuncFormatter(_plain_count))
        axes.xaxis.set_minor_formatter(NullFormatter())
        for index, label in enumerate(label_spots(axes, spots)):
            chart.mark([label], index if index < len(methods) else None)
        return chart.svg()


def _interval(chart: Drawing, axes: Axes, record: Mapping[str, Any], index: int | None) -> Mark:
    name, paint = printable(record["method"]), INK if index is None else colour(index)
    x, y = float(record["trainable_parameters"]), 100 * record["test_accuracy"]
    low, high = 100 * record["test_accuracy_low"], 100 * record["test_accuracy_high"]
    bars = axes.errorbar(
        [x],
        [y],
        yerr=[[y - low], [high - y]],
        fmt="s" if index is None else "o",
        color=paint,
        markersize=6,
        capsize=3,
    )
    chart.mark(bars.get_children(), index)
    parameters = count(record["trainable_parameters"])
    text = f"{name}: {accuracy(record)}, {parameters} trained parameters"
    chart.tip(Tip(axes, x, y, text, index))
    return Mark(name, paint, x, y, low, high)


def _plain_count(value: float, _: int | None) -> str:
    size, letter = next((unit for unit in UNITS if value >= unit[0]), UNITS[-1])
    return f"{value / size:g}{letter}"
