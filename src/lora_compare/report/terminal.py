"""The comparison as the terminal shows it at the end of the pipeline."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lora_compare.comparison import formats
from lora_compare.comparison.prices import OF_FULL, cells, footnote, price_sentence
from lora_compare.comparison.sentences import (
    METRICS,
    beside,
    called,
    headline,
    level,
    measured,
    settled,
    unit,
)
from lora_compare.comparison.verdict import read_comparison
from lora_compare.project.paths import Paths

NEXT_STEPS = (
    (
        "make ui",
        "browse runs and curves in MLflow: expand the pipeline run with +, tick two methods, "
        "press Compare",
    ),
    ("open reports/comparison/comparison.html", "read curves, mistakes and settings"),
    ("edit params.yaml, then make repro", "only what an edit touches runs again"),
)


SPARED = (OF_FULL, "artifact size", "step time", "training state")
"""Headings of prices that a narrow terminal does without, the first one first."""

WIDE = 80
"""Columns in which every figure has its place beside a name of some length."""


def print_summary(paths: Paths, console: Console, with_next_steps: bool = True) -> None:
    """Print metrics/comparison.json: the table, cautions, the verdict, and what to type next.

    Args:
        paths: The project.
        console: Where to print.
        with_next_steps: Whether to say what to type next.

    Raises:
        MissingArtifactError: The comparison has not been made.
        DataError: It is not what the stage compare writes.
    """
    comparison = read_comparison(paths.metrics("comparison"))
    console.print()
    table, left_out = _fitting_table(comparison, console)
    console.print(table)
    if left_out:
        named = ", ".join(left_out)
        console.print(Padding(Text(f"no room here for: {named}", style="dim"), (0, 0, 0, 1)))
    if comparison["cautions"]:
        console.print()
        console.print(Padding(Text("Before the verdict:", style="bold"), (0, 0, 0, 1)))
    for caution in comparison["cautions"]:
        console.print(_item(caution["sentence"]))
    console.print()
    console.print(Padding(Text(headline(comparison), style="bold"), (0, 0, 0, 1)))
    if price := price_sentence(comparison):
        console.print(Padding(Text(price), (0, 0, 0, 1)))
    if note := footnote(comparison):
        console.print(Padding(Text(note, style="dim"), (0, 0, 0, 1)))
    console.print()
    for pairs in _pairs(comparison, console.width):
        console.print(pairs)
    if with_next_steps:
        console.print()
        console.print(_next_steps(console.width))


def _item(text: str) -> RenderableType:
    """Return a text as an item of a list, whose lines begin below one another."""
    item = Table.grid(padding=(0, 1))
    item.add_row(Text(" -"), Text(text))
    return item


def _fitting_table(
    comparison: Mapping[str, Any], console: Console
) -> tuple[Table, tuple[str, ...]]:
    """Return the table as wide as `console` allows, and the headings that had to be left out.

    First the interval goes under its figure and the gaps get narrower, then columns are left out:
    a figure or name that is broken in the middle is misread.
    """
    unlimited = console.options.update(width=1000)
    # Of several labels the metrics beside the one that is compared by go first.
    extra = beside(comparison)[::-1] if comparison.get("several_labels") else []
    every = (*(METRICS[metric] for metric in extra), *SPARED)
    for spared in range(len(every) + 1):
        left_out = every[:spared]
        for breaks, narrow in ((False, False), (False, True), (True, False), (True, True)):
            table = summary_table(comparison, left_out, breaks)
            table.collapse_padding = narrow
            if console.measure(table, options=unlimited).maximum <= console.width:
                return table, left_out
        if spared == len(extra) and console.width >= WIDE:
            break  # so long a name may be folded, where there is room for all figures
    table.columns[0].no_wrap = False
    return table, left_out


def summary_table(
    comparison: Mapping[str, Any], without: Collection[str] = (), breaks: bool = False
) -> Table:
    """Return one row per method and baseline: what it reached, with its spread, then the price.

    Args:
        comparison: The content of metrics/comparison.json.
        without: Headings of columns that are left out.
        breaks: Whether spreads stand under their figures.
    """
    table = Table(box=None, pad_edge=True, padding=(0, 1), header_style="bold")
    records = [*comparison["methods"], *comparison["baselines"]]
    shown = [heading for heading in cells(records[0]) if heading not in without]
    metrics = [metric for metric in measured(comparison, records[0]) if metric not in without]
    reached = [f"test {metric}" for metric in metrics]
    headings = ["method", *(heading.replace(" ", "\n") for heading in (*reached, *shown))]
    deepest = max(heading.count("\n") for heading in headings)
    for heading in headings:
        above = "\n" * (deepest - heading.count("\n"))
        table.add_column(above + heading, justify="right", no_wrap=True)
    table.columns[0].justify, table.columns[0].overflow = "left", "fold"
    for record in records:
        used = record["method"] == comparison["recommendation"]["use"]
        style = "" if record in comparison["methods"] else "dim"
        prices, found = cells(record), measured(comparison, record)
        figures = [found[metric] for metric in metrics]
        known = [prices[title].replace(formats.UNKNOWN, "") for title in shown]
        if breaks:
            figures = [figure.replace(" ±", "\n±") for figure in figures]
            known = [price.replace(" (", "\n(") for price in known]
        # A name or number is text, never markup of the terminal.
        row = [Text(cell) for cell in (record["method"], *figures, *known)]
        table.add_row(*row, style="bold" if used else style)
    return table


def _stays_whole(longest: int, width: int) -> bool:
    """Return whether names of that length fit beside the figures of the pairs.

    What may not wrap is cut off where it does not fit, and two long names look the same.
    """
    return longest <= width // 5


def _pairs(comparison: Mapping[str, Any], width: int) -> list[RenderableType]:
    """Return a table of the pairs; where it has no room, the sentences that are not yet said."""
    pairs = comparison["pairs"]
    if width >= WIDE:
        return [_pairs_table(pairs, width)]
    said = headline(comparison)
    others = [pair["sentence"] for pair in pairs if pair["sentence"] not in said]
    return [Padding(Text(sentence), (0, 0, 0, 1)) for sentence in others]


def _pairs_table(pairs: Sequence[Mapping[str, Any]], width: int) -> Table:
    table = Table(box=None, pad_edge=True, padding=(0, 1), header_style="bold")
    for side, title in (("a", ""), ("b", "beside")):
        longest = max(len(called(pair[side])) for pair in pairs)
        whole = _stays_whole(longest, width)
        table.add_column(title, overflow="fold", no_wrap=whole)
    table.add_column(f"{unit(pairs[0])} (interval)", justify="right", no_wrap=True)
    table.add_column("level", justify="right", no_wrap=True)
    table.add_column("verdict")
    for pair in pairs:
        low, high = formats.points(pair["low"]), formats.points(pair["high"])
        difference = f"{formats.points(pair['difference'])} ({low} to {high})"
        cells = (called(pair["a"]), called(pair["b"]), difference, level(pair), settled(pair))
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _next_steps(width: int) -> RenderableType:
    if width < WIDE:
        steps = (Text.assemble((command, "bold"), f"\n{why}") for command, why in NEXT_STEPS)
        return Padding(Text("\n").join(steps), (0, 0, 0, 1))
    table = Table(box=None, show_header=False, pad_edge=True, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for command, purpose in NEXT_STEPS:
        table.add_row(command, purpose)
    return table
