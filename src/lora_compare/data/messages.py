"""Rows of a file into the corpus: every label and every text checked."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from lora_compare.data.tables import Table
from lora_compare.errors import DataError
from lora_compare.params import MAX_CLASSES
from lora_compare.project.corpus import Messages

LONGEST_LABEL = 100
"""Characters of a class's name, which stands in tables, column names and plots."""


def make_messages(table: Table) -> Messages:
    """Return the labels and texts of the rows of `table`, in their order.

    Whole numbers and booleans become labels as JSON writes them: 0, 1, true.

    Raises:
        DataError: Labels or texts are missing, empty, of another type or hold characters that
            cannot be kept; or there are not 2 to 1,000 classes, or two of them differ in
            capitals or spaces only.
    """
    labels = [_as_label(value) for value in table.labels]
    problems = []
    for place, label, text in zip(table.places, labels, table.texts, strict=True):
        problem = _describe_label(label) or _describe_text(text)
        if problem:
            problems.append((place, problem))
    table.refuse(
        problems,
        "a label and a text in every row",
        "correct these rows, or data.text_column and data.label_column in params.yaml",
    )
    counts = Counter(labels)
    _require_one_spelling(table.name, counts)
    _require_classes(table.name, counts)
    return {"label": labels, "text": table.texts}


def _as_label(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


def _describe_label(label: Any) -> str:
    """Return what is wrong with a label; empty if nothing is."""
    if label is None or label == "":
        return "no label"
    if not isinstance(label, str):
        return f"the label is neither text nor a whole number: {str(label)[:40]!r}"
    if not label.strip():
        return "a label of spaces only"
    if len(label) > LONGEST_LABEL:
        return f"a label of {len(label)} characters: {label[:40]!r}..."
    return "" if label.isprintable() else f"a label with control characters: {label!r}"


def _describe_text(text: Any) -> str:
    """Return what is wrong with a text; empty if nothing is."""
    if text is None:
        return "no text"
    if not isinstance(text, str):
        return f"the text is no string: {str(text)[:40]!r}"
    if not text.strip():
        return "an empty text" if not text else "a text of white space only"
    if "\0" in text:
        return "a NUL character in the text"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"half a surrogate pair at character {error.start} of the text"
    return ""


def _require_one_spelling(name: str, counts: Counter[str]) -> None:
    spellings = defaultdict(list)
    for label in counts:
        key = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
        spellings[key].append(label)
    variants = [group for group in spellings.values() if len(group) > 1]
    if variants:
        raise DataError(
            f"Labels of {name} differ in capitals or spaces only.",
            where=name,
            expected="one spelling of each class",
            actual="\n".join(_list_counts(group, counts) for group in variants[:20]),
            next="write each class in one way",
        )


def _require_classes(name: str, counts: Counter[str]) -> None:
    if 2 <= len(counts) <= MAX_CLASSES:
        return
    shown = [label for label, _ in counts.most_common(5)]
    more = ", ..." if len(counts) > len(shown) else ""
    raise DataError(
        f"{name} has {len(counts)} class{'es' * (len(counts) != 1)}.",
        where=name,
        expected=f"2 to {MAX_CLASSES} classes",
        actual=_list_counts(shown, counts) + more if counts else "no messages",
        next="check data.label_column in params.yaml, and the file",
    )


def _list_counts(labels: Iterable[str], counts: Counter[str]) -> str:
    return ", ".join(f"{label!r} {counts[label]} times" for label in labels)
