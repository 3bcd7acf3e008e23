"""Which classes a method takes for which."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lora_compare.comparison.formats import count, percent
from lora_compare.report.charts.drawing import NARROW, Tip, colour, drawing, printable
from lora_compare.report.charts.labels import LINE, text_width

MOST_CLASSES = 12
"""Classes in a confusion matrix; of more, those with the most mistakes are drawn."""

UPRIGHT_CLASSES = 4
"""Columns of a confusion matrix whose names fit beside one another."""

SHORT = 14
"""Letters of a name that fits at both axes; where one is longer, columns have numbers."""

LONGEST = 84
"""Letters of a name that is written whole."""

LETTERS = 21
"""Letters of a line of a name that is folded."""

COLUMN = 24
"""Width in SVG units of a column that has a number."""


def most_confused(matrices: Sequence[Sequence[Sequence[int]]]) -> list[int]:
    """Return at most MOST_CLASSES classes by index, those with the most mistakes of all methods.

    Args:
        matrices: The confusion matrix of each method.
    """
    matrix = np.sum([np.asarray(matrix) for matrix in matrices], axis=0)
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    return sorted(np.argsort(-wrong, kind="stable")[:MOST_CLASSES].tolist())


def confusion(
    name: str,
    matrix: Sequence[Sequence[int]],
    classes: Sequence[str],
    index: int,
    kept: Sequence[int] | None = None,
    shares: bool = False,
) -> str:
    """Return one method's confusion matrix: counts, shaded by their share of the true class.

    Args:
        name: The method, for the title.
        matrix: Test messages of class i taken for class j, summed over the seeds.
        classes: Names in the order of the rows.
        index: The method's place, which decides its colour.
        kept: Indices of the classes to draw; None takes `most_confused` of this method alone.
        shares: Whether the shares are written too, where they have room: of several seeds the
            counts alone say little.
    """
    counts = np.asarray(matrix)
    drawn = np.asarray(most_confused([matrix]) if kept is None else kept)
    shown = [printable(classes[i], LONGEST) for i in drawn]
    # Of all messages of the class, those too that were taken for a class that is not drawn.
    totals = np.maximum(counts.sum(axis=1), 1)[drawn]
    counts = counts[np.ix_(drawn, drawn)]
    labels = _Labels.of(shown)
    with drawing(f"confusion_{name}", labels.size) as chart:
        axes = chart.figure.subplots()
        axes.grid(False)
        for (row, column), n in np.ndenumerate(counts):
            share = float(n / totals[row])
            if n or len(shown) <= UPRIGHT_CLASSES:
                told = f"\n{percent(share)}" if shares and len(shown) <= UPRIGHT_CLASSES else ""
                axes.text(column, row, count(int(n)) + told, ha="center", va="center")
            _shade(axes, (row, column), share, colour(index))
            text = f"{count(n)} of {count(totals[row])} {shown[row]} taken for {shown[column]}"
            chart.tip(Tip(axes, column, row, f"{text} ({percent(share)})", index, cell=True))
        axes.set_xlim(-0.5, len(shown) - 0.5)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xticks(range(len(shown)), labels.columns)
        axes.set_yticks(range(len(shown)), labels.rows)
        if len(shown) > UPRIGHT_CLASSES and not labels.numbered:
            axes.tick_params(axis="x", rotation=90)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("classified as, by number" if labels.numbered else "classified as")
        axes.set_ylabel("is")
        axes.set_title(printable(name))
        return chart.svg()


@dataclass(frozen=True)
class _Labels:
    """What is written at both axes, and the size of the chart that it needs."""

    rows: list[str]
    columns: list[str]
    size: tuple[float, float]
    numbered: bool = False

    @classmethod
    def of(cls, names: Sequence[str]) -> "_Labels":
        if max(map(len, names)) <= SHORT:
            height = 60 + NARROW * min(1.0, 0.3 + len(names) / 8)
            return cls([*names], [*names], (NARROW, height))
        numbers = [str(number) for number in range(1, len(names) + 1)]
        rows = [_folded(f"{n} {name}") for n, name in zip(numbers, names, strict=True)]
        lines = [row.split("\n") for row in rows]
        letters = max(len(line) for row in lines for line in row)
        width = max(NARROW, 60 + text_width("m" * letters) + COLUMN * len(names))
        height = 80 + len(names) * (LINE * max(map(len, lines)) + 4)
        return cls(rows, numbers, (width, height), numbered=True)


def _folded(name: str) -> str:
    """Return a name in lines, broken where a word or a part of it ends, if anywhere."""
    # Names of classes are often words joined by signs, at which no text breaks by itself.
    parts = re.sub(r"(?<=[_./:-])(?=\w)", "\0", name).split("\0")
    lines = [""]
    for part in parts:
        if len(lines[-1]) + len(part) > LETTERS and lines[-1]:
            lines.append("")
        lines[-1] += part
    return "\n".join(piece for line in lines for piece in textwrap.wrap(line, LETTERS))


def _shade(axes: Axes, place: tuple[int, ...], share: float, paint: str) -> None:
    row, column = place
    corner = (column - 0.48, row - 0.48)
    # At most half opaque, so that the ink stays legible on a light and on a dark page.
    opacity = 0.06 + 0.44 * share
    axes.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=paint, alpha=opacity, linewidth=0))
