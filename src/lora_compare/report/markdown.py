"""The results as markdown, for a README too."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_compare.comparison import formats
from lora_compare.comparison.verdict import headline
from lora_compare.errors import DataError
from lora_compare.project.files import write_text
from lora_compare.report.terminal import caution, price_sentence

PRICE_HEADER = (
    "method",
    "test accuracy (95 % interval)",
    "trainable parameters",
    "of full",
    "training time",
    "peak memory",
    "artifact size",
)


def render_results(comparison: Mapping[str, Any]) -> str:
    """Return the verdict and the table of accuracy and price.

    Args:
        comparison: The content of metrics/comparison.json.
    """
    records = [*comparison["methods"], *comparison["baselines"]]
    price, warning = price_sentence(comparison["reference"]), caution(comparison)
    parts = [
        f"**{plain(headline(comparison))}**",
        *(plain(text) for text in (warning, price) if text),
        table(PRICE_HEADER, [_price_row(record) for record in records]),
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


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    bold: Sequence[Sequence[bool]] = (),
) -> str:
    """Return a table; of each row the last cells are bold where `bold` says so."""
    lines = [list(header), ["---"] * len(header)]
    body = [[plain(cell) for cell in row] for row in rows]
    for row, marks in zip(body, bold, strict=False):
        first = len(row) - len(marks)
        row[first:] = [f"**{c}**" if b else c for c, b in zip(row[first:], marks, strict=True)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines + body)


def plain(text: str) -> str:
    """Return text in which what could be a tag, a link or a table becomes an entity.

    What turns the direction of the text around it becomes a replacement character.
    """
    one_line = " ".join(str(text).split())
    upright = re.sub("[\u202a-\u202e\u2066-\u2069]", "\N{REPLACEMENT CHARACTER}", one_line)
    return re.sub(
        r"[\\`*\[\]<>|&@]|:(?=//)|(?<=www)\.", lambda match: f"&#{ord(match[0])};", upright
    )
