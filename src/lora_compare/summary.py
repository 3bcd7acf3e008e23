"""The comparison as the terminal shows it at the end of the pipeline."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lora_compare import formats
from lora_compare.comparison import NO_EVIDENCE, headline, read_comparison
from lora_compare.paths import Paths

NEXT_STEPS = (
    (
        "make ui",
        "browse runs and curves in MLflow: expand the pipeline run with +, tick two methods, "
        "press Compare",
    ),
    ("open reports/comparison.html", "read curves, mistakes and settings"),
    ("edit params.yaml, then make repro", "only what an edit touches runs again"),
)


def print_summary(paths: Paths, console: Console, with_next_steps: bool = True) -> None:
    """Print metrics/comparison.json: the table, the verdict, and what to type next.

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
    table = summary_table(comparison, console.width)
    # Times of minutes beside a long name: narrower gaps rather than a name broken in the middle.
    unlimited = console.options.update(width=1000)
    table.collapse_padding = console.measure(table, options=unlimited).maximum > console.width
    console.print(table)
    console.print()
    texts = [headline(comparison), caution(comparison), price_sentence(comparison["reference"])]
    for text in filter(None, texts):
        console.print(Padding(Text(text), (0, 0, 0, 1)))
    others = [p for p in comparison["pairs"] if p["sentence"] != headline(comparison)]
    if others:
        console.print()
        console.print(_pairs_table(others, console.width))
    if with_next_steps:
        console.print()
        console.print(_next_steps())


def summary_table(comparison: Mapping[str, Any], width: int) -> Table:
    """Return one row per method and baseline: accuracy with its interval, then the price.

    Args:
        comparison: The content of metrics/comparison.json.
        width: Columns of the terminal.
    """
    table = Table(box=None, pad_edge=True, padding=(0, 1), header_style="bold")
    longest = max(len(r["method"]) for r in comparison["methods"] + comparison["baselines"])
    table.add_column("\nmethod", overflow="fold", no_wrap=_stays_whole(longest, width))
    # It may wrap, between figure and interval, rather than a name be broken in the middle.
    table.add_column("test accuracy\n(95 % interval)", justify="right")
    for heading in (
        "trainable\nparameters",
        "of\nfull",
        "training\ntime",
        "peak\nmemory",
        "artifact\nsize",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    best = max(record["test_accuracy"] for record in comparison["methods"])
    for record in comparison["methods"]:
        table.add_row(*_cells(record), style="bold" if record["test_accuracy"] == best else "")
    for record in comparison["baselines"]:
        table.add_row(*_cells(record), style="dim")
    return table


def price_sentence(reference: Mapping[str, Any] | None) -> str:
    """Return in words what LoRA costs beside full fine-tuning; nothing without both."""
    if reference is None:
        return ""
    ratios = {
        "trainable parameters": reference["parameter_ratio"],
        "training time": reference["time_ratio"],
        "peak memory": reference["memory_ratio"],
        "artifact size": reference["artifact_ratio"],
    }
    shares = [f"{formats.share(ratio)} of the {name}" for name, ratio in ratios.items() if ratio]
    return f"{reference['lora']} needs, of {reference['full']}: {', '.join(shares)}."


def caution(comparison: Mapping[str, Any]) -> str:
    """Return what the headline's verdict does not say, or nothing where it claims more."""
    sentence = headline(comparison)
    pair = next((p for p in comparison["pairs"] if p["sentence"] == sentence), None)
    if pair is None or pair["verdict"] != NO_EVIDENCE:
        return ""
    low, high = pair["accuracy_difference_ci95"]
    if low == high == 0:
        return (
            "The same answers on these messages are no proof of the same accuracy on all messages."
        )
    return (
        f"That is no proof of equality: with {pair['n']} test messages, {pair['a']} may still be "
        f"up to {formats.points(max(-low, 0.0)).lstrip('+')} points worse or "
        f"{formats.points(max(high, 0.0)).lstrip('+')} points better than {pair['b']}."
    )


def _cells(record: Mapping[str, Any]) -> list[Text]:
    interval = (record["test_accuracy_low"], record["test_accuracy_high"])
    accuracy = formats.percent(record["test_accuracy"])
    price = [
        formats.count(record["trainable_parameters"]),
        formats.share(record.get("parameters_of_full")),
        formats.duration(record["train_seconds"] or None),
        formats.size(record["peak_memory_bytes"]),
        formats.size(record["artifact_bytes"] or None),
    ]
    cells = [record["method"], f"{accuracy} ({formats.percent_interval(interval)})"]
    # A name or number is text, never markup of the terminal.
    return [Text(c) for c in cells + ["" if p == formats.UNKNOWN else p for p in price]]


def _stays_whole(longest: int, width: int) -> bool:
    """Return whether names of that length fit beside the figures of either table.

    What may not wrap is cut off where it does not fit, and two long names look the same.
    """
    return longest <= width // 5


def _pairs_table(pairs: Sequence[Mapping[str, Any]], width: int) -> Table:
    table = Table(box=None, pad_edge=True, padding=(0, 1), header_style="bold")
    for side in ("a", "b"):
        longest = max(len(pair[side]) for pair in pairs)
        whole = _stays_whole(longest, width)
        table.add_column(side.upper(), overflow="fold", no_wrap=whole)
    table.add_column("A \N{MINUS SIGN} B, points", justify="right", no_wrap=True)
    table.add_column("Holm p", justify="right", no_wrap=True)
    table.add_column("verdict")
    for pair in pairs:
        low, high = (formats.points(end) for end in pair["accuracy_difference_ci95"])
        difference = f"{formats.points(pair['accuracy_difference'])} ({low} to {high})"
        cells = (pair["a"], pair["b"], difference, formats.p_value(pair["holm_p"]), pair["verdict"])
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _next_steps() -> Table:
    table = Table(box=None, show_header=False, pad_edge=True, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for command, purpose in NEXT_STEPS:
        table.add_row(command, purpose)
    return table
