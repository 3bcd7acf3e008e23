"""The results as Markdown, and docs/performance.md with them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_compare.comparison.formats import size
from lora_compare.project.files import write_text
from lora_compare.report.markdown import around

OURS = ("lora-compare, recorded", "lora-compare")


def write_page(path: Path, results: Mapping[str, Any]) -> None:
    """Put the tables between the page's marks.

    Args:
        path: The page.
        results: What was measured.

    Raises:
        DataError: The page does not have the marks.
    """
    before, after = around(path, "gpu")
    write_text(path, f"{before}\n{tables(results)}\n\n{after}")


def tables(results: Mapping[str, Any]) -> str:
    """Return machine, tests, trainings and steps as Markdown.

    Args:
        results: What was measured.
    """
    machine, versions, parts = (results[key] for key in ("machine", "versions", "parts"))
    named = ", ".join(f"{k} {v}" for k, v in versions.items() if k not in ("commit", "edited"))
    place = machine["gpu"] or machine["cpu"]
    return "\n\n".join(
        [
            f"{place}, {machine['cores']} CPU cores. {named}.",
            *_tests(parts),
            _table(TRAINING, _trainings(parts)),
            _table(STEPS, _steps(parts)),
            *_failures(parts),
        ]
    )


TRAINING = ("training", "method", "steps", "epochs", "seconds", "a step", "memory")

STEPS = (
    "model",
    "method",
    "implementation",
    "a step (lowest to highest)",
    "memory",
    "times as fast as others",
)


def _tests(parts: Mapping[str, Any]) -> Iterator[str]:
    for name, found in parts.items():
        if name == "tests" and "passed" in found:
            yield (
                f"Tests on it: {found['passed']} passed, {len(found['failed'])} failed, "
                f"{found['skipped']} skipped."
            )


def _of(kinds: Sequence[str], parts: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, found in parts.items():
        kind, _, rest = name.partition(" ")
        if kind in kinds and "rows" in found:
            yield rest, found


def _trainings(parts: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for name, found in _of(("training",), parts):
        for row in (row for row in found["rows"] if "failed" not in row):
            yield (
                f"{name.split(' ')[0]}, {row['implementation']}",
                row["method"],
                str(row["steps"]),
                str(row["epochs"]),
                f"{row['seconds']:.1f}",
                f"{row['step_seconds'] * 1000:.1f} ms",
                size(row["memory_bytes"]),
            )


def _steps(parts: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for model, found in _of(("steps", "llama"), parts):
        rows = [row for row in found["rows"] if "failed" not in row]
        for row in rows:
            low, high = row["lowest"] * 1000, row["highest"] * 1000
            yield (
                model,
                row["method"],
                row["implementation"],
                f"{row['step_seconds'] * 1000:.1f} ms ({low:.1f} to {high:.1f})",
                size(row["memory_bytes"]),
                ", ".join(_ratios(row, rows)),
            )


def _ratios(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield how many times as fast as the others a row of this project is, and at what memory."""
    if row["implementation"] not in OURS:
        return
    for other in rows:
        if other["method"] == row["method"] and other["implementation"] not in OURS:
            times = other["step_seconds"] / row["step_seconds"]
            memory = row["memory_bytes"] / other["memory_bytes"]
            yield f"{times:.1f} ({other['implementation']}, {memory:.2f} of its memory)"


def _failures(parts: Mapping[str, Any]) -> Iterator[str]:
    for name, found in parts.items():
        if isinstance(found.get("failed"), str):
            yield f"Not measured: {name}, {found['failed']}."
        for row in found.get("rows", ()):
            if "failed" in row:
                yield f"Failed: {name}, {row['method']}, {row['implementation']}: {row['failed']}."


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell or ' ' for cell in line)} |" for line in lines)
