"""Learning curves of every method beside one another."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from lora_compare.report.charts.drawing import (
    COLOURS,
    LINES,
    WIDE,
    Drawing,
    Tip,
    colour,
    drawing,
    printable,
)
from lora_compare.report.charts.labels import Mark, label_ends, text_width

LEAST_LOSS = 1e-5
"""Nats below which a loss is drawn at the edge: a logarithmic axis has no zero."""

DECADE = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0))
"""Places of the ticks in a decade of a logarithmic axis, from few to many."""

LEAST_TICKS = 4
"""Ticks without which a logarithmic axis cannot be read."""

BAND = 0.18
"""How opaque the band over all seeds is: lines in front of several stay legible."""

MOST_TIPS = 40
"""Points of a curve that tell their values; of a longer one, as many evenly spread."""


def curves(histories: Mapping[str, pd.DataFrame], quantity: str, title: str) -> str:
    """Return the curves of every method by epoch: train above, validation below.

    Behind a mean over seeds lies a band from the lowest to the highest of them. A method with one
    row, which was trained elsewhere, is a level line.

    Args:
        histories: Each method's `Outcome.mean_history`.
        quantity: `loss` (nats, logarithmic axis) or `accuracy` (per cent).
        title: What the chart shows, in words.
    """
    right = 22 + max(text_width(printable(name)) for name in histories)
    with drawing(quantity, (WIDE, 400), (54, right, 24, 38)) as chart:
        panels = chart.figure.subplots(2, 1, sharex=True, sharey=True, gridspec_kw={"hspace": 0.22})
        ends: dict[str, list[Mark]] = {"train": [], "validation": []}
        drawn = _with_level_lines(histories)
        for panel, split in zip(panels, ends, strict=True):
            for index, (name, history) in enumerate(drawn.items()):
                ends[split].append(
                    _curve(chart, panel, history, f"{split}_{quantity}", name, index)
                )
            panel.set_title(f"{title}, {split}")
            panel.margins(x=0.02)
        if quantity == "loss":
            logarithmic(panels[0])
        unit = "nats per message, log scale" if quantity == "loss" else "right answers, per cent"
        chart.figure.supylabel(unit, x=0.005, fontsize=10)
        panels[-1].set_xlabel("epoch")
        for panel, marks in zip(panels, ends.values(), strict=True):
            for index, label in enumerate(label_ends(panel, marks)):
                chart.mark(label, index)
        return chart.svg()


def _with_level_lines(histories: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the histories, those of one row with that row at the last epoch of all too."""
    last = max(1.0, *(float(history["epoch"].iloc[-1]) for history in histories.values()))
    return {
        name: history if len(history) > 1 else pd.concat([history, history.assign(epoch=last)])
        for name, history in histories.items()
    }


def _curve(
    chart: Drawing, panel: Axes, history: pd.DataFrame, column: str, name: str, index: int
) -> Mark:
    split, quantity = column.split("_")
    values = _drawn(history[column], quantity)
    lowest, highest = (
        _drawn(history.get(f"{column}_{end}", history[column]), quantity) for end in ("low", "high")
    )
    has_band = bool((highest > lowest).any())
    epochs = history["epoch"].to_numpy(dtype=float)
    style = LINES[index // len(COLOURS) % len(LINES)]
    if has_band:
        band = panel.fill_between(epochs, lowest, highest, color=colour(index), alpha=BAND, lw=0)
        chart.mark([band], index)
    chart.mark(panel.plot(epochs, values, color=colour(index), linestyle=style), index)
    written = "{:.4g} nats" if quantity == "loss" else "{:.1f} %"
    for row in _spread(len(history)):
        value, low, high = (written.format(line[row]) for line in (values, lowest, highest))
        text = f"{split} {quantity} {value}" + (f", seeds {low} to {high}" if has_band else "")
        place = (float(epochs[row]), float(values[row]))
        chart.tip(Tip(panel, *place, f"{printable(name)}, epoch {epochs[row]:.3g}: {text}", index))
    return Mark(printable(name), colour(index), float(epochs[-1]), float(values[-1]))


def _drawn(values: "pd.Series[float]", quantity: str) -> npt.NDArray[np.float64]:
    """Return what is drawn of losses in nats or of accuracies in 0..1."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.maximum(numbers, LEAST_LOSS) if quantity == "loss" else 100 * numbers


def _spread(n: int) -> list[int]:
    """Return at most MOST_TIPS of n indices, evenly spread, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, MOST_TIPS))})


def logarithmic(axes: Axes) -> None:
    """Give a panel of losses, once all is drawn, a logarithmic axis with enough ticks."""
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
