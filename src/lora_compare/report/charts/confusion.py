"""Which classes a method takes for which."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lora_compare.comparison.formats import count, percent
from lora_compare.report.charts.drawing import NARROW, Tip, colour, drawing, printable

MOST_CLASSES = 12
"""Classes in a confusion matrix; of more, those with the most mistakes are drawn."""

UPRIGHT_CLASSES = 4
"""Columns of a confusion matrix whose names fit beside one another."""


def confusion(
    name: str, matrix: Sequence[Sequence[int]], classes: Sequence[str], index: int
) -> str:
    """Return one method's confusion matrix: counts, shaded by their share of the true class.

    Args:
        name: The method, for the title.
        matrix: Test messages of class i taken for class j.
        classes: Names in the order of the rows.
        index: The method's place, which decides its colour.
    """
    counts = np.asarray(matrix)
    kept = _most_confused(counts)
    shown = [printable(classes[i], 14) for i in kept]
    # Of all messages of the class, those too that were taken for a class that is not drawn.
    totals = np.maximum(counts.sum(axis=1), 1)[kept]
    counts = counts[np.ix_(kept, kept)]
    height = 60 + NARROW * min(1.0, 0.3 + len(shown) / 8)
    with drawing(f"confusion_{name}", (NARROW, height)) as chart:
        axes = chart.figure.subplots()
        axes.grid(False)
        for (row, column), n in np.ndenumerate(counts):
            share = float(n / totals[row])
            _cell(axes, (row, column), int(n), share, colour(index))
            text = f"{count(n)} of {count(totals[row])} {shown[row]} taken for {shown[column]}"
            chart.tip(Tip(axes, column, row, f"{text} ({percent(share)})", index, cell=True))
        axes.set_xlim(-0.5, len(shown) - 0.5)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xticks(range(len(shown)), shown)
        axes.set_yticks(range(len(shown)), shown)
        if len(shown) > UPRIGHT_CLASSES:
            axes.tick_params(axis="x", rotation=90)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("classified as")
        axes.set_ylabel("is")
        axes.set_title(printable(name))
        return chart.svg()


def _most_confused(matrix: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Return the indices of at most MOST_CLASSES classes, those with the most mistakes."""
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    return np.sort(np.argsort(-wrong, kind="stable")[:MOST_CLASSES])


def _cell(axes: Axes, place: tuple[int, ...], n: int, share: float, paint: str) -> None:
    row, column = place
    corner = (column - 0.48, row - 0.48)
    # At most half opaque, so that the ink stays legible on a light and on a dark page.
    opacity = 0.06 + 0.44 * share
    axes.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=paint, alpha=opacity, linewidth=0))
    axes.text(column, row, count(n), ha="center", va="center")
