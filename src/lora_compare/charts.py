"""The report's charts as SVG text: vector only, readable in light and dark, byte-repeatable.

Lines and letters are drawn in `currentColor`, so that a page which inlines a chart decides
their colour; alone, a chart is a mid-tone grey on nothing. Matplotlib's object interface is
used throughout, because pyplot keeps global state.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from lora_compare.formats import count
from lora_compare.labels import Mark, label_ends, label_spots, text_width

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, distinguishable with any colour vision (Wong 2011,
doi 10.1038/nmeth.1618), without its yellow and black, which vanish on white or on dark."""

LINES = ("-", "--", "-.", ":")
"""Line styles: the next one for every round through the palette."""

INK = "#010203"
"""Stands for the page's text colour until the SVG is finished."""

ALONE = "#6b7280"
"""The ink of a chart that no page surrounds: legible on white and on black."""

WIDE, NARROW = 370, 300
"""Widths of charts in SVG units, about as wide as a phone and a page of several show them."""

MOST_CLASSES = 12
"""Classes in a confusion matrix; of more, those with the most mistakes are drawn."""

UPRIGHT_CLASSES = 4
"""Columns of a confusion matrix whose names fit beside one another."""

LEAST_LOSS = 1e-5
"""Nats below which a loss is drawn at the edge: a logarithmic axis has no zero."""

DECADE = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0))
"""Places of the ticks in a decade of a logarithmic axis, from few to many."""

LEAST_TICKS = 4
"""Ticks without which a logarithmic axis cannot be read."""

GUIDE: dict[str, Any] = {"color": INK, "alpha": 0.5, "linewidth": 1, "linestyle": (0, (4, 3))}
"""A dashed line to compare with."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    # DejaVu comes with matplotlib: the layout is measured with it on every machine.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.16,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def colour(index: int) -> str:
    """Return the colour of the method at that place in params.yaml."""
    return COLOURS[index % len(COLOURS)]


def curves(histories: Mapping[str, pd.DataFrame], quantity: str, title: str) -> str:
    """Return the curves of every method by epoch: train above, validation below.

    A method with one row, which was trained elsewhere, is a level line.

    Args:
        histories: Each method's reports/history/M.csv.
        quantity: `loss` (nats, logarithmic axis) or `accuracy` (per cent).
        title: What the chart shows, in words.
    """
    right = 22 + max(text_width(_printable(name)) for name in histories)
    with _drawing(quantity, (WIDE, 400), (54, right, 24, 38)) as (figure, finish):
        panels = figure.subplots(2, 1, sharex=True, sharey=True, gridspec_kw={"hspace": 0.22})
        ends: dict[str, list[Mark]] = {"train": [], "validation": []}
        drawn = _with_level_lines(histories)
        for panel, split in zip(panels, ends, strict=True):
            for index, (name, history) in enumerate(drawn.items()):
                ends[split].append(_curve(panel, history, f"{split}_{quantity}", name, index))
            panel.set_title(f"{title}, {split}")
            panel.margins(x=0.02)
        if quantity == "loss":
            _logarithmic(panels[0])
        unit = "nats per message, log scale" if quantity == "loss" else "right answers, per cent"
        figure.supylabel(unit, x=0.005, fontsize=10)
        panels[-1].set_xlabel("epoch")
        for panel, marks in zip(panels, ends.values(), strict=True):
            label_ends(panel, marks)
        return finish()


def accuracy_by_parameters(
    methods: Sequence[Mapping[str, Any]], tfidf: Mapping[str, Any] | None
) -> str:
    """Return test accuracy with its interval against the number of trained parameters.

    Args:
        methods: Flat records of metrics/comparison.json.
        tfidf: The record of the linear baseline, drawn as a line across too.
    """
    with _drawing("parameters", (WIDE, 270), (54, 12, 24, 38)) as (figure, finish):
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_title("Test accuracy by trained parameters")
        axes.set_xlabel("trained parameters, log scale")
        axes.set_ylabel("per cent, with 95 % interval")
        spots = [_interval(axes, r, colour(index), "o") for index, r in enumerate(methods)]
        if tfidf is not None:
            axes.axhline(100 * tfidf["test_accuracy"], **GUIDE)
            spots.append(_interval(axes, tfidf, INK, "s"))
        axes.margins(x=0.16, y=0.16)
        _plain_counts(axes)
        label_spots(axes, spots)
        return finish()


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
    counts, shown = _most_confused(np.asarray(matrix), classes)
    height = 60 + NARROW * min(1.0, 0.3 + len(shown) / 8)
    with _drawing(f"confusion_{name}", (NARROW, height)) as (figure, finish):
        axes = figure.subplots()
        axes.grid(False)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        for (row, column), share in np.ndenumerate(shares):
            _cell(axes, (row, column), int(counts[row, column]), float(share), colour(index))
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
        axes.set_title(_printable(name))
        return finish()


def calibration(name: str, bins: Sequence[Mapping[str, Any]], index: int) -> str:
    """Return one method's accuracy at each confidence; dots grow with their messages.

    Args:
        name: The method, for the title.
        bins: Of the test split, from `metrics.calibration_bins`.
        index: The method's place, which decides its colour.
    """
    filled = [b for b in bins if b["n"]]
    total = sum(b["n"] for b in filled)
    lowest = 100 * min([0.5, *(b["low"] for b in filled)])
    with _drawing(f"calibration_{name}", (NARROW, 230)) as (figure, finish):
        axes = figure.subplots()
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
        axes.set_xlim(lowest - 2, 102)
        axes.set_ylim(-4, 104)
        axes.set_title(_printable(name))
        axes.set_xlabel("confidence, per cent")
        axes.set_ylabel("right answers, per cent")
        return finish()


@contextmanager
def _drawing(
    name: str,
    size: tuple[float, float],
    margins: tuple[float, float, float, float] | None = None,
) -> Iterator[tuple[Figure, Callable[[], str]]]:
    """Yield an empty figure and the function that turns it into SVG.

    Args:
        name: Prefix of every id in it.
        size: Width and height in SVG units.
        margins: Left, right, top and bottom in SVG units; None lets matplotlib find them.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # DejaVu only measures the letters; the reader's own fonts draw those it lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        width, height = size
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        if margins is None:
            figure.set_layout_engine("constrained")
        else:
            left, right, top, bottom = margins
            figure.subplots_adjust(
                left / width, bottom / height, 1 - right / width, 1 - top / height
            )
        figure.patch.set_alpha(0.0)
        FigureCanvasSVG(figure)
        yield figure, lambda: _svg(figure, name)


def _svg(figure: Figure, name: str) -> str:
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', rf'\1 color="{ALONE}"', text, count=1)
    # Several charts share a page, and an id must be unique on it.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    return text.replace(INK, "currentColor")


def _printable(name: str, length: int = 18) -> str:
    """Return a name without what no font draws, and short enough to stand in a chart."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return shown if len(shown) <= length else shown[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _with_level_lines(histories: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the histories, those of one row with that row at the last epoch of all too."""
    last = max(1.0, *(float(history["epoch"].iloc[-1]) for history in histories.values()))
    return {
        name: history if len(history) > 1 else pd.concat([history, history.assign(epoch=last)])
        for name, history in histories.items()
    }


def _curve(panel: Axes, history: pd.DataFrame, column: str, name: str, index: int) -> Mark:
    values = history[column].to_numpy(dtype=float)
    values = np.maximum(values, LEAST_LOSS) if column.endswith("loss") else 100 * values
    epochs = history["epoch"].to_numpy(dtype=float)
    style = LINES[index // len(COLOURS) % len(LINES)]
    panel.plot(epochs, values, color=colour(index), linestyle=style)
    return Mark(_printable(name), colour(index), float(epochs[-1]), float(values[-1]))


def _interval(axes: Axes, record: Mapping[str, Any], paint: str, marker: str) -> Mark:
    x, y = float(record["trainable_parameters"]), 100 * record["test_accuracy"]
    low, high = 100 * record["test_accuracy_low"], 100 * record["test_accuracy_high"]
    axes.errorbar(
        [x], [y], yerr=[[y - low], [high - y]], fmt=marker, color=paint, markersize=6, capsize=3
    )
    return Mark(_printable(record["method"]), paint, x, y, low, high)


def _most_confused(
    matrix: npt.NDArray[np.int64], classes: Sequence[str]
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the matrix of at most MOST_CLASSES classes, those with the most mistakes."""
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    kept = np.sort(np.argsort(-wrong, kind="stable")[:MOST_CLASSES])
    return matrix[np.ix_(kept, kept)], [_printable(classes[i], 14) for i in kept]


def _cell(axes: Axes, place: tuple[int, ...], n: int, share: float, paint: str) -> None:
    row, column = place
    corner = (column - 0.48, row - 0.48)
    # At most half opaque, so that the ink stays legible on a light and on a dark page.
    opacity = 0.06 + 0.44 * share
    axes.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=paint, alpha=opacity, linewidth=0))
    axes.text(column, row, count(n), ha="center", va="center")


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    locators = (LogLocator(subs=places, numticks=12) for places in DECADE)
    enough = (
        locator
        for locator in locators
        if sum(low <= tick <= high for tick in locator.tick_values(low, high)) >= LEAST_TICKS
    )
    # Losses that barely move can lie between all of these; even steps reach any of them.
    axes.yaxis.set_major_locator(next(enough, MaxNLocator(LEAST_TICKS)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _plain_counts(axes: Axes) -> None:
    units = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))

    def write(value: float, _: int | None) -> str:
        size, letter = next((unit for unit in units if value >= unit[0]), units[-1])
        return f"{value / size:g}{letter}"

    axes.xaxis.set_major_formatter(FuncFormatter(write))
    axes.xaxis.set_minor_formatter(NullFormatter())
