"""How the pipeline grows, as charts and as Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from benchmarks.charts import as_svg, figure_of, logarithmic
from benchmarks.growth import laws, totals
from lora_compare.comparison.formats import count, duration, size
from lora_compare.project.files import write_text
from lora_compare.report.charts import colour

TITLES = {
    "messages": "messages",
    "methods": "methods",
    "seeds": "seeds of each method",
    "workers": "trainings at a time",
}

FIGURES = {
    "cpu_seconds": ("CPU seconds", 1.0),
    "peak_memory_bytes": ("peak memory, GB", 1e9),
    "disk_bytes": ("disk, MB", 1e6),
}
"""Titles of panels and the units of their figures."""

STAGES = ("split", "base_model", "baseline")
"""Stages that are drawn beside the whole: those that look at every message."""


def growth_section(results: Mapping[str, Any], images: Path | None, name: str, machine: str) -> str:
    """Return the growth of the pipeline as Markdown.

    Args:
        results: The content of a results file of `pipeline`.
        images: The folder for its charts; None: they are not written.
        name: Of the results file.
        machine: A line that describes where it was measured.
    """
    parts = [f"### The whole pipeline: {results['settings']['device']}", machine]
    for along in dict.fromkeys(point["along"] for point in results["points"]):
        if images is not None:
            write_text(images / f"{name}-{along}.svg", growth_chart(results, along, name))
        title = f"The pipeline's time, memory and disk by {TITLES[along]}"
        parts.append(f"![{title}](images/{name}-{along}.svg)")
        if found := _laws_line(results, along):
            parts.append(found)
    numbers = ["<details><summary>The numbers</summary>", growth_table(results), "</details>"]
    return "\n\n".join(parts + numbers)


def _laws_line(results: Mapping[str, Any], along: str) -> str:
    """Return the fitted exponents in a sentence."""
    by_figure: dict[str, list[str]] = {}
    for stage, figure, exponent in laws(results["points"], along):
        if stage in ("all", *STAGES):
            own = "the whole" if stage == "all" else f"`{stage}`"
            by_figure.setdefault(figure, []).append(f"{own} {exponent:.2f}")
    return "; ".join(
        f"exponent of {FIGURES[figure][0].split(',')[0]}: {', '.join(values)}"
        for figure, values in by_figure.items()
    )


def growth_chart(results: Mapping[str, Any], along: str, name: str) -> str:
    """Return the figures along a sweep as SVG, both axes logarithmic; arguments as above."""
    points = [point for point in results["points"] if point["along"] == along]
    with figure_of(f"{name}-{along}", 250) as figure:
        if along == "workers":
            _draw_workers(figure.subplots(), points, results["simulated"])
        else:
            panels = figure.subplots(1, len(FIGURES))
            for panel, key in zip(panels, FIGURES, strict=True):
                _draw(panel, points, along, key)
            handles, labels = panels[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
        return as_svg(figure)


def _draw(panel: Axes, points: Sequence[Mapping[str, Any]], along: str, key: str) -> None:
    title, unit = FIGURES[key]
    sizes = [point[along] for point in points]
    lines = {"the whole": [totals(point)[key] for point in points]}
    if key != "disk_bytes":
        lines |= {s: [point["stages"][s][key] for point in points] for s in STAGES}
    for place, (label, values) in enumerate(lines.items()):
        scaled = [value / unit for value in values]
        panel.plot(sizes, scaled, color=colour(place), marker="o", markersize=4, label=label)
    panel.set_title(title)
    panel.set_xlabel(TITLES[along])
    _mark(panel, sizes)
    logarithmic(panel)


def _draw_workers(
    panel: Axes, points: Sequence[Mapping[str, Any]], simulated: Sequence[Mapping[str, float]]
) -> None:
    measured = [(point["workers"], totals(point)["seconds"]) for point in points]
    worked_out = [(point["workers"], point["seconds"]) for point in simulated]
    for place, (label, line) in enumerate({"measured": measured, "simulated": worked_out}.items()):
        panel.plot(*zip(*line, strict=True), color=colour(place), marker="o", label=label)
    panel.set_title("seconds by the clock")
    panel.set_xlabel(TITLES["workers"])
    panel.legend(frameon=False)
    _mark(panel, [point["workers"] for point in simulated])
    logarithmic(panel)


def _mark(panel: Axes, sizes: Sequence[float]) -> None:
    panel.set_xscale("log")
    panel.set_xticks(list(sizes), [_short(value) for value in sizes], fontsize=8)
    panel.xaxis.set_minor_locator(NullLocator())


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def growth_table(results: Mapping[str, Any]) -> str:
    """Return every run as a row, and the seconds of its stages that look at every message."""
    header = ("messages", "methods", "seeds", "at a time", "by the clock", "CPU", "peak memory")
    rows = []
    for point in {_key(point): point for point in results["points"]}.values():
        whole = totals(point)
        stages = (duration(point["stages"][stage]["cpu_seconds"]) for stage in STAGES)
        numbers = [count(point[key]) for key in ("messages", "methods", "seeds", "workers")]
        times = [duration(whole["seconds"]), duration(whole["cpu_seconds"])]
        memory, disk = size(int(whole["peak_memory_bytes"])), size(int(whole["disk_bytes"]))
        rows.append([*numbers, *times, memory, disk, *stages])
    titles = [*header, "disk", *(f"{stage}, CPU" for stage in STAGES)]
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _key(point: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(point[key] for key in TITLES)
