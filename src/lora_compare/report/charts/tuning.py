"""Validation loss of every trial against what was searched, and what was chosen."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from lora_compare.comparison import formats
from lora_compare.report.charts.drawing import (
    GUIDE,
    NARROW,
    Drawing,
    Tip,
    colour,
    drawing,
    printable,
)
from lora_compare.report.charts.learning import LEAST_LOSS, logarithmic

DIVERGED = "diverged"
"""Status of a trial without a finite loss; it is a cross at the top of its chart."""

PANEL = 200
"""Height of the chart of one setting in SVG units."""

MOST_VALUES = 6
"""Values whose numbers fit beside one another below a panel."""


def tuning(
    name: str,
    trials: pd.DataFrame,
    settings: Mapping[str, Any],
    by_logarithm: Collection[str],
    index: int,
) -> str:
    """Return one method's trials: a panel per searched setting, the validation loss upwards.

    A dot is a training, the line their means by value where one setting alone was searched, the
    dashed line the chosen value, and a cross at the top a training that diverged.

    Args:
        name: The method, for the title.
        trials: Its reports/tuning/M/trials.csv.
        settings: What was chosen, by dotted key.
        by_logarithm: The keys whose values were searched by their logarithm.
        index: The method's place, which decides its colour.
    """
    with drawing(f"tuning_{name}", (NARROW, 30 + PANEL * len(settings))) as chart:
        panels = chart.figure.subplots(len(settings), 1, sharey=True, squeeze=False)[:, 0]
        losses = trials["validation_loss"].where(trials["status"] != DIVERGED)
        losses = losses.clip(lower=LEAST_LOSS)
        places = [
            _across(panel, trials[key], key in by_logarithm)
            for panel, key in zip(panels, settings, strict=True)
        ]
        for panel, place, (key, chosen) in zip(panels, places, settings.items(), strict=True):
            taken = trials[key].map(written) == written(chosen)
            panel.axvline(float(place[taken.to_numpy()][0]), **GUIDE)
            panel.set_xlabel(f"{key}, chosen: {written(chosen)}")
            panel.scatter(place, losses, color=colour(index), s=30, linewidths=0, zorder=3)
            if len(settings) == 1:
                means = losses.groupby(place).mean()
                panel.plot(means.index, means, color=colour(index), alpha=0.6)
        if losses.notna().any():
            logarithmic(panels[0])
        for panel, place, key in zip(panels, places, settings, strict=True):
            _tell(chart, panel, place, trials, key, index)
        panels[0].set_title(printable(name))
        chart.figure.supylabel("validation loss, nats, log scale", fontsize=10)
        return chart.svg()


def written(value: Any) -> str:
    """Return a value as a table of trials and a choice both have it, such as `0.002`."""
    return f"{value:g}" if isinstance(value, int | float | np.number) else formats.setting(value)


def _tick(value: Any) -> str:
    """Return a value in as few digits as tell trials apart; a panel has room for no more."""
    return f"{value:.3g}" if isinstance(value, float) else written(value)


def _across(panel: Axes, values: "pd.Series[Any]", by_logarithm: bool) -> npt.NDArray[np.float64]:
    """Return where each trial lies across a panel, whose ticks are the values."""
    known = sorted(set(values), key=lambda v: (isinstance(v, str), v))
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    places = {value: float(value if numeric else at) for at, value in enumerate(known)}
    names = {place: _tick(value) for value, place in places.items()}
    if by_logarithm:
        panel.set_xscale("log")
    if not numeric or len(known) <= MOST_VALUES:
        panel.xaxis.set_major_locator(FixedLocator(list(names)))
    elif by_logarithm:
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(
        FuncFormatter(lambda place, _: names.get(place, f"{place:g}" if numeric else ""))
    )
    panel.xaxis.set_minor_locator(NullLocator())
    panel.margins(x=0.12)
    return np.array([places[value] for value in values])


def _tell(
    chart: Drawing,
    panel: Axes,
    places: npt.NDArray[np.float64],
    trials: pd.DataFrame,
    key: str,
    index: int,
) -> None:
    """Draw what diverged at the top, and tell a pointer of every trial."""
    top = float(panel.get_ylim()[1])
    for place, (_, row) in zip(places, trials.iterrows(), strict=True):
        gone = row["status"] == DIVERGED
        height = top if gone else max(float(row["validation_loss"]), LEAST_LOSS)
        if gone:
            panel.plot(
                place,
                0.97,
                "x",
                transform=panel.get_xaxis_transform(),
                color=colour(index),
                markersize=8,
            )
        found = DIVERGED if gone else f"validation loss {row['validation_loss']:.4g} nats"
        text = f"trial {row['trial']}, seed {row['seed']}: {key} {written(row[key])}, {found}"
        chart.tip(Tip(panel, float(place), height, text, index))
