"""How often a method is right at each confidence."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_compare.comparison.formats import count, percent
from lora_compare.report.charts.drawing import GUIDE, NARROW, Tip, colour, drawing, printable


def calibration(name: str, bins: Sequence[Mapping[str, Any]], index: int) -> str:
    """Return one method's accuracy at each confidence; dots grow with their messages.

    Args:
        name: The method, for the title.
        bins: Of the test split, from `evaluation.calibration.calibration_bins`.
        index: The method's place, which decides its colour.
    """
    filled = [b for b in bins if b["n"]]
    total = sum(b["n"] for b in filled)
    lowest = 100 * min([0.5, *(b["low"] for b in filled)])
    with drawing(f"calibration_{name}", (NARROW, 230)) as chart:
        axes = chart.figure.subplots()
        axes.plot([lowest, 100], [lowest, 100], **GUIDE)
        axes.scatter(
            [100 * b["confidence"] for b in filled],
            [100 * b["accuracy"] for b in filled],
            s=[16 + 200 * b["n"] / total for b in filled],
            color=colour(index),
            alpha=0.9,
            linewidths=0,
            clip_on=False,
            zorder=3,
        )
        for b in filled:
            text = f"{count(b['n'])} answers of confidence {percent(b['confidence'])} on average"
            place = (100 * b["confidence"], 100 * b["accuracy"])
            chart.tip(Tip(axes, *place, f"{text}: {percent(b['accuracy'])} right", index))
        axes.set_xlim(lowest - 2, 102)
        axes.set_ylim(-4, 104)
        axes.set_title(printable(name))
        axes.set_xlabel("confidence, per cent")
        axes.set_ylabel("right answers, per cent")
        return chart.svg()
