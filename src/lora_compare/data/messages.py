"""Rows of a file into the corpus: every label and every text checked."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from lora_compare.data.classes import likely_cause
from lora_compare.data.tables import Table
from lora_compare.errors import DataError
from lora_compare.params import MAX_CLASSES
from lora_compare.project.corpus import Messages, class_order, every_label

LONGEST_LABEL = 100
"""Characters of a class's name, which stands in tables, column names and plots."""

TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Bidirectional classes of the characters that turn the text after them around."""

FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and signs that Unicode does not call spaces, and that look like one."""


def make_messages(*tables: Table, separator: str | None = None) -> Messages:
    """Return the labels and texts of the rows of `tables`, and all else they say, in their order.

    Whole numbers and booleans become labels as JSON writes them: 0, 1, true. Where a message may
    have several, its labels are a tuple in the order of the classes; what has none is warned of.

    Args:
        tables: The rows.
        separator: What stands between the labels of a message; None: only a list is several.

    Raises:
        DataError: Labels or texts are missing, empty, of another type or hold characters that
            cannot be kept; or there are not 2 to 1,000 classes, or two of them differ in
            capitals, spaces or what is invisible only; or no message has two labels, though it
            may.
    """
    name = ", ".join(table.name for table in tables)
    several = separator is not None or any(
        isinstance(value, list) for table in tables for value in table.labels
    )
    columns = [_read(table, separator, several) for table in tables]
    messages = {name: [v for one in columns for v in one[name]] for name in columns[0]}
    counts = Counter(every_label(messages["label"]))
    _require_one_spelling(name, counts)
    _require_classes(name, counts)
    if several:
        _require_several(name, messages["label"], separator)
        place = {label: number for number, label in enumerate(class_order(counts))}
        messages["label"] = [tuple(sorted(own, key=place.__getitem__)) for own in messages["label"]]
    return messages


def _read(table: Table, separator: str | None, several: bool) -> Messages:
    as_label, describe = (_as_labels, _describe_labels) if several else (_as_label, _describe_label)
    labels = [as_label(_parted(value, separator)) for value in table.labels]
    problems = []
    for place, label, text in zip(table.places, labels, table.texts, strict=True):
        problem = describe(label) or _describe_text(text)
        if problem:
            problems.append((place, problem))
    table.refuse(
        problems,
        "a label and a text in every row",
        "correct these rows, or data.text_column and data.label_column in params.yaml",
    )
    if several and (without := labels.count(())):
        table.warnings.append(
            f"{without:,} of {len(labels):,} rows of {table.name} have no label, and none is right "
            "for them"
        )
    return {"label": labels, "text": table.texts, **table.carried}


def _parted(value: Any, separator: str | None) -> Any:
    """Return the labels that a cell holds as a list; what is no text stays as it is."""
    if separator is None or not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(separator)] if value.strip() else []


def _as_labels(value: Any) -> Any:
    """Return the labels of a message as a tuple; of nothing an empty one."""
    if value is None or value == "":
        return ()
    return tuple(map(_as_label, value)) if isinstance(value, list) else value


def _describe_labels(labels: Any) -> str:
    """Return what is wrong with the labels of a message; empty if nothing is."""
    if not isinstance(labels, tuple):
        return f"no list of labels, as other rows have: {str(labels)[:40]!r}"
    if twice := [label for label in labels if labels.count(label) > 1]:
        return f"the label {twice[0]!r} stands twice"
    return next(filter(None, map(_describe_label, labels)), "")


def _require_several(name: str, labels: list[Any], separator: str | None) -> None:
    """Refuse labels of which no message has two: there is one class a message then, or a mistake.

    Raises:
        DataError: There is no such message.
    """
    most = max(map(len, labels))
    if most > 1:
        return
    given = (
        "the lists hold" if separator is None else f"{separator!r} stands in no cell, which hold"
    )
    raise DataError(
        f"No message of {name} has several labels.",
        where=f"{name}; params.yaml: data.label_column"
        + (", data.labels_separator" if separator is not None else ""),
        expected="messages with two labels or more among those with one or none",
        actual=f"{given} one label at most in each of {len(labels):,} rows",
        next="set data.labels_separator to what stands between the labels, or to null where each "
        "message has one class"
        if separator is not None
        else "write the class of each message as a text, not as a list of one",
    )


def make_texts(table: Table) -> list[str]:
    """Return the texts of the rows of `table`, in their order.

    Raises:
        DataError: A text is missing, empty, or of another type, or holds what cannot be kept.
    """
    described = zip(table.places, map(_describe_text, table.texts), strict=True)
    problems = [(place, problem) for place, problem in described if problem]
    table.refuse(problems, "a text in every row", "correct these rows, or name another column")
    return table.texts


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
    return _describe_characters(label)


def _describe_characters(label: str) -> str:
    """Return which character has no place in a label; empty if all have.

    Inside a label, what is invisible can be its spelling: Persian has a non-joiner, French a
    no-break space, an emoji may be several that are joined. At its ends nobody means it, but for
    the tags that end a flag. What moves the cursor or turns the text around it has no place.
    """
    for character in label:
        if _is_unfit(character):
            return f"a label with control characters ({_name(character)}): {label!r}"
    for character, end in ((label[0], "begins"), (label[-1], "ends")):
        if _is_invisible(character) and not (end == "ends" and character >= "\U000e0020"):
            return f"a label that {end} with {_name(character)}, which is invisible: {label!r}"
    return ""


def _is_unfit(character: str) -> bool:
    code = ord(character)
    return (
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in TURNING
        or code & 0xFFFE == 0xFFFE  # no character, and never to be one
        or 0xFDD0 <= code <= 0xFDEF
    )


def _is_invisible(character: str) -> bool:
    # A plain space is kept, as a file with ", " between its cells has it in every row.
    is_blank = unicodedata.category(character) in ("Zs", "Cf") and character != " "
    return is_blank or character in FILLERS


def _name(character: str) -> str:
    return unicodedata.name(character, f"U+{ord(character):04X}")


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
        spellings[_visible(label)].append(label)
    variants = [group for group in spellings.values() if len(group) > 1]
    if variants:
        raise DataError(
            f"Labels of {name} differ in capitals, spaces or invisible characters only.",
            where=name,
            expected="one spelling of each class",
            actual="\n".join(_list_counts(group, counts) for group in variants[:20]),
            next="write each class in one way",
        )


def _visible(label: str) -> str:
    """Return what tells two labels apart for a reader: no case, no width, nothing invisible."""
    folded = unicodedata.normalize("NFKC", label).casefold()
    selectors = range(0xFE00, 0xFE10)  # an emoji in colour or in black and white
    seen = (c for c in folded if unicodedata.category(c) != "Cf" and ord(c) not in selectors)
    return " ".join("".join(seen).split())


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
        next=likely_cause(counts) or "check data.label_column in params.yaml, and the file",
    )


def _list_counts(labels: Iterable[str], counts: Counter[str]) -> str:
    return ", ".join(f"{label!r} {counts[label]} times" for label in labels)
