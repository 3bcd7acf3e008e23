"""The comparison as markdown: for reports/comparison.md and for a README."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_compare import formats
from lora_compare.comparison import differing_settings, headline, shown_settings
from lora_compare.errors import DataError
from lora_compare.evidence import Evidence
from lora_compare.files import write_text
from lora_compare.params import Params
from lora_compare.summary import caution, price_sentence

PRICE_HEADER = (
    "method",
    "test accuracy (95 % interval)",
    "trainable parameters",
    "of full",
    "training time",
    "peak memory",
    "artifact size",
)
PAIR_HEADER = ("A", "B", "A - B in points (95 % interval)", "McNemar p", "Holm p", "verdict")
CHART_TITLES = {
    "parameters": "Test accuracy by trained parameters",
    "loss": "Loss by epoch",
    "accuracy": "Accuracy by epoch",
}


def render_results(comparison: Mapping[str, Any]) -> str:
    """Return the verdict and the table of accuracy and price.

    Args:
        comparison: The content of metrics/comparison.json.
    """
    records = [*comparison["methods"], *comparison["baselines"]]
    price, warning = price_sentence(comparison["reference"]), caution(comparison)
    parts = [
        f"**{_plain(headline(comparison))}**",
        *(_plain(text) for text in (warning, price) if text),
        _markdown_table(PRICE_HEADER, [_price_row(record) for record in records]),
    ]
    return "\n\n".join(parts)


def write_results(path: Path, comparison: Mapping[str, Any]) -> None:
    """Put the results into the file at `path`, between its two marks.

    Args:
        path: A markdown file with the lines `<!-- results -->` and `<!-- /results -->`.
        comparison: The content of metrics/comparison.json.

    Raises:
        DataError: The file does not have the marks.
    """
    found = re.fullmatch(
        r"(.*<!-- results -->\n).*(<!-- /results -->.*)", path.read_text("utf-8"), re.DOTALL
    )
    if found is None:
        raise DataError(
            "The file has no place for results.",
            where=str(path),
            expected="the lines <!-- results --> and <!-- /results -->",
        )
    write_text(path, f"{found[1]}{render_results(comparison)}\n{found[2]}")


def render_markdown(params: Params, evidence: Evidence, comparison: Mapping[str, Any]) -> str:
    """Return the verdict, the tables, the leak counts and the differing settings.

    Args:
        params: The experiment, for the settings.
        evidence: What the methods and baselines did.
        comparison: The content of metrics/comparison.json.
    """
    names = [method.name for method in evidence.methods]
    twins = evidence.split["test_rows_with_twin_in_train"]
    differing = shown_settings(differing_settings(params, names))
    parts = [
        "# Comparison of fine-tuning methods",
        render_results(comparison),
        "## Every pair",
        _markdown_table(
            PAIR_HEADER,
            [_pair_row(pair) for pair in comparison["pairs"]],
        ),
        "## Charts",
        *(f"![{title}](plots/{file}.svg)" for file, title in CHART_TITLES.items()),
        "## Test messages that also stand in the training split",
        _markdown_table(tuple(twins), [[formats.count(value) for value in twins.values()]]),
        "## Settings in which the methods differ",
        _markdown_table(
            ("setting", *names), [[key, *values.values()] for key, values in differing.items()]
        ),
        "The mistakes, the disagreements and all settings are in comparison.html.",
    ]
    return "\n\n".join(parts) + "\n"


def _price_row(record: Mapping[str, Any]) -> list[str]:
    interval = (record["test_accuracy_low"], record["test_accuracy_high"])
    return [
        record["method"],
        f"{formats.percent(record['test_accuracy'])} ({formats.percent_interval(interval)})",
        formats.count(record["trainable_parameters"]),
        formats.share(record.get("parameters_of_full")),
        formats.duration(record["train_seconds"] or None),
        formats.size(record["peak_memory_bytes"]),
        formats.size(record["artifact_bytes"] or None),
    ]


def _pair_row(pair: Mapping[str, Any]) -> list[str]:
    low, high = (formats.points(end) for end in pair["accuracy_difference_ci95"])
    return [
        pair["a"],
        pair["b"],
        f"{formats.points(pair['accuracy_difference'])} ({low} to {high})",
        formats.p_value(pair["mcnemar_p"]),
        formats.p_value(pair["holm_p"]),
        pair["verdict"],
    ]


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(header), ["---"] * len(header)]
    body = [[_plain(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines + body)


def _plain(text: str) -> str:
    """Return text in which what could be a tag, a link or a table becomes an entity."""
    one_line = " ".join(str(text).split())
    return re.sub(r"[\\`*\[\]<>|&]", lambda match: f"&#{ord(match[0])};", one_line)
