"""How many of those that are taken for the positive class are, and how many of it are found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lora_compare.comparison.formats import percent
from lora_compare.report.charts.drawing import INK, WIDE, Tip, colour, drawing, printable

MOST_POINTS = 200
"""Points of a curve that are drawn; a chart is no wider in pixels on paper."""

Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Operating:
    """A method's curves and where on them it works.

    Attributes:
        curves: Recall and precision at every score, of each seed.
        recall: Mean recall of its answers, in 0..1.
        precision: Mean precision of them.
    """

    curves: Sequence[Curve]
    recall: float
    precision: float


def precision_recall(methods: Mapping[str, Operating], baseline: Operating | None) -> str:
    """Return each method's precision by recall, a line a seed, and a dot where it works.

    Args:
        methods: By name, in the order of params.yaml.
        baseline: That of TF-IDF, drawn dashed.
    """
    with drawing("precision", (WIDE, 270)) as chart:
        axes = chart.figure.subplots()
        named = [(name, own, index) for index, (name, own) in enumerate(methods.items())]
        others = [] if baseline is None else [("TF-IDF", baseline, None)]
        for name, own, index in [*others, *named]:
            paint = INK if index is None else colour(index)
            style = "--" if index is None else "-"
            for recall, precision in own.curves:
                places = np.unique(np.linspace(0, len(recall) - 1, MOST_POINTS).astype(int))
                lines = axes.plot(
                    100 * recall[places],
                    100 * precision[places],
                    color=paint,
                    linestyle=style,
                    linewidth=1.2,
                    alpha=0.9 if len(own.curves) == 1 else 0.55,
                )
                chart.mark(lines, index)
            place = (100 * own.recall, 100 * own.precision)
            dot = axes.scatter(
                *place, s=52, color=paint, linewidths=0, zorder=3, clip_on=False,
                marker="s" if index is None else "o",
            )  # fmt: skip
            chart.mark([dot], index)
            reached = f"finds {percent(own.recall)}, and {percent(own.precision)} of what it takes"
            chart.tip(Tip(axes, *place, f"{printable(name)}: {reached} are", index))
        lowest = min(float(curve[1].min()) for _, own, _ in named for curve in own.curves)
        axes.set_xlim(-2, 102)
        axes.set_ylim(100 * min(0.5, lowest) - 2, 102)
        axes.set_title("Precision by recall on test")
        axes.set_xlabel("recall, per cent")
        axes.set_ylabel("precision, per cent")
        return chart.svg()
