"""Charts of the results as SVG, in the style of the report's."""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from lora_compare.report.charts import ALONE, INK, STYLE, colour

WIDTH = 740
"""In SVG units: about as wide as a README shows a picture."""

METHODS = ("full", "lora")
"""In the order of their colours, the one of params.yaml."""

LINES = ("-", (0, (4, 2)), (0, (1, 1.5)))
"""Line styles of the implementations, in their order."""

TITLES = {
    "rank": "rank of the adapters",
    "length": "tokens a message",
    "batch_size": "messages a step",
    "model": "parameters of the model",
}


def steps_chart(results: Mapping[str, Any], name: str) -> str:
    """Return the seconds of a step by implementation, one panel a method.

    Args:
        results: The content of a results file of `steps`.
        name: Makes the ids in the SVG its own.
    """
    methods = results["settings"]["methods"]
    rows = len(results["settings"]["implementations"])
    with figure_of(name, 54 + 24 * rows) as figure:
        panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
        for panel, method in zip(panels, methods, strict=True):
            records = [r for r in results["training"] if r["method"] == method]
            _bars(panel, records, method)
        return as_svg(figure)


def _bars(panel: Axes, records: list[dict[str, Any]], method: str) -> None:
    names = [record["implementation"] for record in records]
    seconds = [record["step_seconds"] for record in records]
    bars = panel.barh(names, seconds, color=colour(METHODS.index(method)), alpha=0.85, height=0.68)
    panel.bar_label(bars, labels=[f"{s:.3g}" for s in seconds], padding=4)
    for place, record in enumerate(records):
        floor = record["floor_seconds"]
        panel.plot([floor, floor], [place - 0.42, place + 0.42], color=INK, linewidth=1.5)
    panel.set_title(f"{method}: seconds a step")
    panel.set_xlim(0, 1.16 * max(seconds))
    panel.set_xlabel("mark: lower bound of the arithmetic")
    panel.grid(axis="y", visible=False)
    panel.tick_params(axis="y", length=0)
    if not panel.yaxis_inverted():
        panel.invert_yaxis()


def sweep_chart(results: Mapping[str, Any], along: str, name: str) -> str:
    """Return seconds and peak memory along one sweep, both axes logarithmic.

    Args:
        results: The content of a results file of `scale`.
        along: The field that changes.
        name: Makes the ids in the SVG its own.
    """
    points = [point for point in results["points"] if point["along"] == along]
    with figure_of(f"{name}-{along}", 270) as figure:
        panels = figure.subplots(1, 2)
        values = {"seconds a step": "step_seconds", "peak memory, GB": "peak_memory_bytes"}
        for panel, (title, field) in zip(panels, values.items(), strict=True):
            _lines(panel, points, along, field)
            panel.set_title(title)
            panel.set_xlabel(TITLES[along])
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
        return as_svg(figure)


def _lines(panel: Axes, points: list[dict[str, Any]], along: str, field: str) -> None:
    implementations = list(dict.fromkeys(point["implementation"] for point in points))
    unit = 1e9 if field == "peak_memory_bytes" else 1.0
    places = sorted({_place(point, along): str(point[along]) for point in points}.items())
    for method in METHODS:
        for style, implementation in zip(LINES, implementations, strict=False):
            line = [
                (_place(point, along), point[field] / unit)
                for point in points
                if (point["method"], point["implementation"]) == (method, implementation)
            ]
            if line:
                panel.plot(
                    *zip(*line, strict=True),
                    color=colour(METHODS.index(method)),
                    linestyle=style,
                    marker="o",
                    markersize=4,
                    label=f"{method}, {implementation}",
                )
    panel.set_xscale("log")
    panel.set_xticks(
        [place for place, _ in places], [text.removeprefix("gpt2-") for _, text in places]
    )
    panel.xaxis.set_minor_locator(NullLocator())
    logarithmic(panel)


def _place(point: Mapping[str, Any], along: str) -> float:
    from benchmarks.scale import parameters

    return float(parameters(point["model"]) if along == "model" else point[along])


def logarithmic(panel: Axes) -> None:
    """Give the vertical axis a logarithmic scale with ticks at plain numbers, three a decade."""
    from matplotlib.ticker import LogLocator

    panel.set_yscale("log")
    low, high = panel.get_ylim()
    # A narrow range shows no ratio; zoomed in, noise would look like a trend.
    if high < 4 * low:
        middle = (low * high) ** 0.5
        panel.set_ylim(middle / 2, middle * 2)
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_minor_formatter(NullFormatter())


@contextmanager
def figure_of(name: str, height: float) -> Iterator[Figure]:
    """Yield an empty figure of this height, in the report's style; `name` makes its ids its own."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
        figure.patch.set_alpha(0.0)
        FigureCanvasSVG(figure)
        yield figure


def as_svg(figure: Figure) -> str:
    """Return a figure as SVG, legible on white and on black."""
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # No page surrounds the picture, so the ink is the one that is legible on white and on black.
    return text[text.index("<svg") :].replace(INK, ALONE)
