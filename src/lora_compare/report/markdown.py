"""The comparison as Markdown: the results for a README, and reports/comparison/comparison.md."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_compare.comparison import formats
from lora_compare.comparison.prices import cells, footnote, price_sentence
from lora_compare.comparison.sentences import (
    called,
    headline,
    level,
    measured,
    settled,
    unit,
)
from lora_compare.errors import DataError
from lora_compare.evaluation.noise import INSTALL, ONE_CLASS_ALONE
from lora_compare.project.files import write_text
from lora_compare.report.decisions import BEFORE_AND_AFTER, decisions
from lora_compare.report.scaling import larger_models

# The results alone are shown without what the whole report takes to compute.
if TYPE_CHECKING:
    from lora_compare.comparison.disagreements import Answer
    from lora_compare.report.contents import Contents

PAIR_HEADER = ("method", "beside", "difference in {} (interval)", "level", "p", "verdict")
LEAK_HEADER = ("method", "all", "without a twin in train", "with a twin in train")
MOST_CASES = 20
"""Messages on which methods disagree that the markdown shows; the page shows more."""

LONGEST_MESSAGE = 200
"""Characters of a message that the markdown shows."""

CHART_TITLES = {
    "parameters": "Test accuracy by trained parameters",
    "loss": "Loss by epoch",
    "accuracy": "Accuracy by epoch",
}


def render_results(comparison: Mapping[str, Any], verdict_first: bool = False) -> str:
    """Return what makes the comparison weak, the verdict, and the table of figures and price.

    Args:
        comparison: The content of metrics/comparison.json.
        verdict_first: Whether the verdict stands before that, where a reader sees one line.
    """
    records = [*comparison["methods"], *comparison["baselines"]]
    price = price_sentence(comparison)
    items = "\n".join(f"- {plain(caution['sentence'])}" for caution in comparison["cautions"])
    before = [f"Before the verdict:\n\n{items}"] if items else []
    verdict = [f"**{plain(headline(comparison))}**"]
    rows = [_result(comparison, record) for record in records]
    parts = [
        *(verdict + before if verdict_first else before + verdict),
        *([plain(price)] if price else []),
        table(list(rows[0]), [list(row.values()) for row in rows]),
    ]
    larger = larger_models(comparison)
    notes = [footnote(comparison), *([larger.caption] if larger else [])]
    parts.append(plain(" ".join(filter(None, notes))))
    parts += [table(larger.header, larger.rows)] if larger else []
    return "\n\n".join(filter(None, parts))


def write_results(path: Path, comparison: Mapping[str, Any]) -> None:
    """Put the results into the file at `path`, between its two marks.

    Args:
        path: As for `around`.
        comparison: The content of metrics/comparison.json.

    Raises:
        DataError: As `around`.
    """
    before, after = around(path, "results")
    write_text(path, f"{before}{render_results(comparison)}\n{after}")


def around(path: Path, mark: str) -> tuple[str, str]:
    """Return what stands before and after the place in a file that is written by a program.

    Args:
        path: A markdown file with the lines `<!-- MARK -->` and `<!-- /MARK -->`.
        mark: What is written there, such as `results`.

    Returns:
        The text up to the first mark, and that from the second one on, both with it.

    Raises:
        DataError: The file is not there or does not have the marks.
    """
    first, second = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    text = path.read_text("utf-8") if path.exists() else ""
    found = re.fullmatch(rf"(.*{first}\n).*({second}.*)", text, re.DOTALL)
    if found is None:
        raise DataError(
            f"The file has no place for {mark}.",
            where=str(path),
            expected=f"the lines {first} and {second}",
        )
    return found[1], found[2]


def _result(comparison: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, str]:
    reached = {f"test {name}": text for name, text in measured(comparison, record).items()}
    return {"method": record["method"]} | reached | cells(record)


def render_markdown(contents: "Contents") -> str:
    """Return the verdict, tables, disagreements, leaks, differing settings and versions."""
    names = contents.evidence.names
    settings = [[key, *values.values()] for key, values in contents.differing.items()]
    parts = [
        "# Comparison of fine-tuning methods",
        render_results(contents.comparison),
        "## The verdict in numbers",
        table(
            [title.format(unit(contents.comparison)) for title in PAIR_HEADER],
            [_pair_row(pair) for pair in contents.comparison["pairs"]],
        ),
        *_decisions(contents),
        "## Charts",
        *(f"![{title}](plots/{file}.svg)" for file, title in CHART_TITLES.items()),
        *_disagreements(contents),
        "## Test messages that also stand in the training split",
        *_leaks(contents),
        *_suspects(contents),
        "## Settings in which the methods differ",
        table(("setting", *names), settings),
        "## Versions",
        *_versions(contents),
        "More messages, all mistakes and all settings are in comparison.html.",
    ]
    return "\n\n".join(parts) + "\n"


def _decisions(contents: "Contents") -> list[str]:
    """Return the section on temperature, prior and threshold; nothing where there are none."""
    rows = decisions(contents.evidence, contents.comparison)
    if not rows:
        return []
    shown = [[called(row.name), row.chosen, *map(str, row.figures.values())] for row in rows]
    return [
        "## What was chosen on validation",
        f"Figures of the test split: {BEFORE_AND_AFTER}.",
        table(("method", "chosen", *rows[0].figures), shown),
    ]


def _disagreements(contents: "Contents") -> list[str]:
    """Return the section on the messages that methods dispute; nothing of one method."""
    names, cases = contents.evidence.names, contents.cases
    if len(names) == 1:
        return []
    disputed = [case for case in cases.shown if case.kind == "disputed"][:MOST_CASES]
    told = (
        f"{cases.disputed:,} of {len(contents.evidence.texts):,} test messages got different "
        f"answers; {cases.shared:,} more were wrong in the same way by all. "
        + (f"{cases.unsteady:,} were wrong with some seeds only. " if cases.unsteady else "")
        + "Wrong answers are in bold."
    )
    rows = [
        [
            formats.shorten(case.text, LONGEST_MESSAGE),
            case.label,
            *map(_answer, case.answers),
        ]
        for case in disputed
    ]
    bold = [[not given.right for given in case.answers] for case in disputed]
    shown = table(("message", "is", *names), rows, bold)
    return ["## Where the methods disagree", told, *([shown] if rows else [])]


def _answer(given: "Answer") -> str:
    """Return what most seeds of a method said of a message, and how many were wrong."""
    told = f", wrong in {given.wrong} of {given.seeds}" if given.unsteady else ""
    return f"{given.predicted} {formats.percent(given.confidence, 0)}{told}"


def _leaks(contents: "Contents") -> list[str]:
    counts = contents.evidence.split["test_rows_with_twin_in_train"]
    rows = [
        [str(record["method"]), *(_accuracy(record[part]) for part in ("all", "clean", "leaked"))]
        for record in contents.leaks
    ]
    from lora_compare.data.splits.describing import describe_split  # which imports pandas

    rules = describe_split(contents.evidence.split, contents.params.split)
    return [
        f"Splits: {rules}.",
        f"Tokens a character ({contents.params.model.name}): {_tokens(contents.evidence.tokens)}.",
        table(tuple(counts), [[formats.count(value) for value in counts.values()]]),
        *([table(LEAK_HEADER, rows)] if contents.twins else []),
    ]


def _tokens(tokens: Mapping[str, Any]) -> str:
    """Return the tokens a character of all messages, and of the classes at both ends."""
    ends = sorted(tokens["classes"].items(), key=lambda one: (one[1], one[0]))
    least, most = (f"{formats.decimal(value, 2)} of {name}" for name, value in (ends[0], ends[-1]))
    return f"{formats.decimal(tokens['tokens_per_character'], 2)}, from {least} to {most}"


def _suspects(contents: "Contents") -> list[str]:
    """Return the section on labels that may be wrong: the test messages, or how to get it."""
    if contents.evidence.several:
        return [ONE_CLASS_ALONE]
    if contents.suspects is None:
        return [f"Labels that may be wrong are listed where cleanlab is installed: {INSTALL}."]
    tested = [suspect for suspect in contents.suspects if suspect.split == "test"][:MOST_CASES]
    rows = [
        [
            formats.shorten(suspect.text, LONGEST_MESSAGE),
            suspect.label,
            f"{suspect.likely} {formats.percent(suspect.chance, 0)}",
        ]
        for suspect in tested
    ]
    told = (
        f"{len(contents.suspects):,} labels of the splits train and test may be wrong by "
        "confident learning over TF-IDF; none was removed."
    )
    shown = [table(("test message", "is", "TF-IDF says"), rows)] if rows else []
    return ["## Labels that may be wrong", told, *shown]


def _accuracy(found: tuple[float, tuple[float, float], int] | None) -> str:
    if found is None:
        return formats.UNKNOWN
    share, interval, n = found
    return f"{formats.percent(share)} ({formats.percent_interval(interval)}) of {n:,}"


def _versions(contents: "Contents") -> list[str]:
    names = contents.evidence.names
    return [
        table((kind, *names), [[name, *row.values()] for name, row in rows.items()])
        for kind, rows in contents.environments.items()
        if rows
    ]


def _pair_row(pair: Mapping[str, Any]) -> list[str]:
    low, high = formats.points(pair["low"]), formats.points(pair["high"])
    return [
        called(pair["a"]),
        called(pair["b"]),
        f"{formats.points(pair['difference'])} ({low} to {high})",
        level(pair),
        formats.p_value(pair["p"]),
        settled(pair),
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
