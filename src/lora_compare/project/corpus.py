"""The labelled text between the stages: the canonical corpus and the files of the splits.

A corpus is a frame with the columns `label` and `text`, both strings, and what else its source says
of a message: `group`, empty where it has none, `time`, an ISO 8601 date in UTC that sorts as text,
and `split`. A split has the columns `Label`, the class as an index into the class names in
`class_order`, and `Text`, and where there are groups `Group`, and where there are folds `Fold`: in
memory as lists.

Where a message may have several labels, `label` is a tuple of names, and `Label` a tuple with 1 for
each name that the message has and 0 for each other; their files call these columns `labels`, a list
in JSON, and `Labels`, the digits.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lora_compare.errors import DataError
from lora_compare.project import files
from lora_compare.project.checksums import read_verified

if TYPE_CHECKING:  # to fetch messages or read a split needs no pandas, which takes 0.4 s
    import pandas as pd

Messages = dict[str, list[Any]]
"""A corpus as plain lists, by the names of its columns."""

MAIN, CARRIED = ("label", "text"), ("group", "time", "split")
"""Columns of messages.tsv: those that it always has, and those that a source may add."""

GROUP, FOLD = "Group", "Fold"
"""Further columns of a split: the group that the data gives a message; and the fold, from 1, for
which it is here. A message is in the test split once, in train with most folds."""

SEVERAL = {"label": "labels", "Label": "Labels"}
"""What files call the column of the classes where a message may have several."""

NO_LABEL = "(none)"
"""How it is shown that a message has none of the labels."""

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ORIGINALS = {escape: original for original, escape in _ESCAPES.items()}


def make_corpus(labels: list[Any], texts: list[str], **carried: list[str]) -> "pd.DataFrame":
    """Return the corpus of these messages, one label, one text and one of all else each."""
    import pandas as pd

    assert {*carried} <= {*CARRIED}
    assert {len(texts), *map(len, carried.values())} == {len(labels)}
    corpus = pd.DataFrame({"text": texts, **carried}, dtype="str")
    kind = "object" if are_several(labels) else "str"
    corpus.insert(0, "label", pd.Series(labels, dtype=kind))
    return corpus


def make_split(
    labels: list[Any], texts: list[str], groups: list[str] | None = None
) -> "pd.DataFrame":
    """Return the split of these messages: a class index, a text and perhaps a group each."""
    import pandas as pd

    assert len(labels) == len(texts)
    kind = "object" if are_several(labels) else "int64"
    columns = {"Label": pd.Series(labels, dtype=kind), "Text": pd.Series(texts, dtype="str")}
    return pd.DataFrame(
        columns if groups is None else columns | {GROUP: pd.Series(groups, dtype="str")}
    )


def are_several(labels: "Sequence[Any] | pd.Series[Any]") -> bool:
    """Return whether labels are those of messages that may have several, or none."""
    return len(labels) > 0 and isinstance(next(iter(labels)), tuple)


def every_label(labels: Iterable[Any]) -> Iterable[str]:
    """Yield the labels of all messages, one after the other, however many each has."""
    for label in labels:
        yield from label if isinstance(label, tuple) else (label,)


def count_classes(corpus: "pd.DataFrame") -> dict[str, int]:
    """Return the number of messages of each class, classes in `class_order`."""
    labels = corpus["label"]
    counts = Counter(every_label(labels)) if are_several(labels) else labels.value_counts()
    names = counts if isinstance(counts, Counter) else map(str, counts.index)
    return {name: int(counts[name]) for name in class_order(names)}


def label_text(names: Iterable[str]) -> str:
    """Return the labels of a message as a text that `labels_of` understands."""
    return json.dumps(list(names), ensure_ascii=False)


def labels_of(text: str) -> tuple[str, ...]:
    """Return the labels that a text of `label_text` stands for.

    Raises:
        ValueError: It is none.
    """
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"no list of labels: {text[:40]}")
    return tuple(names)


def class_order(names: Iterable[str]) -> list[str]:
    """Return the names of classes in their order: numbers by their size, others by their signs.

    It is the order of a head's rows. Other programs number classes 0 to 11 by their size, so an
    order of signs, with 10 before 2, would give the rows of an adapter from there other classes.
    """
    known = list(names)
    if all(map(_NUMBER.fullmatch, known)):
        return sorted(known, key=lambda name: (Decimal(name), name))
    return sorted(known)


def shown_labels(text: str) -> str:
    """Return the labels that a text of `label_text` stands for in words."""
    return ", ".join(labels_of(text)) or NO_LABEL


def write_messages(path: Path, corpus: "Messages | pd.DataFrame") -> None:
    """Write the canonical corpus: a header, then a line a message: label or labels, text, all else.

    UTF-8, LF, no quoting. A backslash escapes a tab, a line break and itself inside a text,
    so that any text comes back as it was.
    Checked by tests/unit/project/test_corpus.py::test_messages_come_back_as_they_were.
    """
    header = [*MAIN, *(name for name in CARRIED if name in corpus)]
    columns: list[Iterable[str]] = [corpus[name] for name in header]
    if are_several(corpus["label"]):
        header[0], columns[0] = SEVERAL["label"], map(label_text, corpus["label"])
    rows = zip(*columns, strict=True)
    lines = ["\t".join(header), *("\t".join(map(_escape, row)) for row in rows)]
    files.write_text(path, "\n".join(lines) + "\n")


def read_messages(path: Path) -> "pd.DataFrame":
    """Return the canonical corpus that `path` holds; row i is message i.

    Raises:
        MissingArtifactError: The stage download has not run.
        IntegrityError: The file has changed since.
        DataError: The file is not what the stage download writes.
    """
    try:
        lines = read_verified(path, "download").decode().split("\n")
    except UnicodeDecodeError as error:
        raise _damaged(path, f"not UTF-8 at byte {error.start}", "download") from None
    header = lines[0].split("\t")
    several = header[0] == SEVERAL["label"]
    known = [header[0] if several else MAIN[0], "text", *(n for n in CARRIED if n in header)]
    if header != known or lines[-1] != "":
        raise _damaged(path, "its first or last line is missing", "download")
    rows = [line.split("\t") for line in lines[1:-1]]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            actual = f"line {number} has {len(row) - 1} tabs instead of {len(header) - 1}"
            raise _damaged(path, actual, "download")
    columns: list[list[Any]]
    columns = [[_unescape(row[place]) for row in rows] for place in range(len(header))]
    if several:
        try:
            columns[0] = [labels_of(cell) for cell in columns[0]]
        except ValueError as error:
            raise _damaged(path, str(error), "download") from None
    return make_corpus(*columns[:2], **dict(zip(header[2:], columns[2:], strict=True)))


def _escape(text: str) -> str:
    return re.sub(r"[\\\t\n\r]", lambda match: _ESCAPES[match.group()], text)


def _unescape(text: str) -> str:
    # An unknown escape is kept as it stands: only another program can have written it.
    return re.sub(r"\\.", lambda match: _ORIGINALS.get(match.group(), match.group()), text)


def write_split(path: Path, split: "Mapping[str, Iterable[Any]] | pd.DataFrame") -> None:
    """Write a split as CSV: Label,Text[,Group][,Fold], in the bytes of pandas' `to_csv`.

    Checked by tests/unit/project/test_corpus.py::test_split_files_are_those_of_pandas.
    """
    columns = {name: split[name] for name in _columns(split)}
    if are_several(labels := list(split["Label"])):
        del columns["Label"]
        columns = {SEVERAL["Label"]: ["".join(map(str, row)) for row in labels]} | columns
    files.write_csv(path, columns)


def _columns(known: Container[str]) -> list[str]:
    """Return the columns of a split, in order, of which the last two are not always there."""
    return ["Label", "Text", *(name for name in (GROUP, FOLD) if name in known)]


def read_split(path: Path, fold: int | None = None) -> dict[str, list[Any]]:
    """Return the columns of a split's file: Label, Text and perhaps Group, and Fold.

    Args:
        path: The file.
        fold: The fold whose messages are wanted; None: all that there are.

    Raises:
        MissingArtifactError: The stage split has not run.
        IntegrityError: The file has changed since.
        DataError: The file is not what the stage split writes.
    """
    try:
        text = read_verified(path, "split").decode()
        # A message may be longer than the module's limit on a field, which is the process's own.
        csv.field_size_limit(max(csv.field_size_limit(), len(text)))
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        if header[1:] != _columns(header)[1:] or header[0] not in LABEL_COLUMNS:
            raise ValueError(f"its columns are {', '.join(header)}")
        if any(len(row) != len(header) for row in rows):
            raise ValueError(f"a row has other columns than {', '.join(header)}")
        columns = zip(*rows, strict=True) if rows else [()] * len(header)
        split: dict[str, list[Any]] = dict(zip(header, map(list, columns), strict=True))
        split = {"Label": LABEL_COLUMNS[header[0]](split.pop(header[0]))} | split
        if FOLD in split:
            split |= {FOLD: [int(n) for n in split[FOLD]]}
    except (ValueError, csv.Error) as error:  # of UTF-8, of the number of columns or of a label
        raise _damaged(path, str(error), "split") from None
    if fold is None:
        return split
    own = [number == fold for number in split[FOLD]]
    return {name: list(compress(values, own)) for name, values in split.items()}


def _indicators(cells: Sequence[str]) -> list[tuple[int, ...]]:
    """Return 1 for each label that a message has and 0 for the others, from cells of digits."""
    if len({*map(len, cells)}) > 1 or not {*"".join(cells)} <= {*"01"}:
        raise ValueError("its labels are no digits 0 and 1 of equal number")
    return [tuple(map(int, cell)) for cell in cells]


LABEL_COLUMNS: dict[str, Callable[[Sequence[str]], list[Any]]] = {
    "Label": lambda cells: [int(cell) for cell in cells],
    SEVERAL["Label"]: _indicators,
}
"""How the first column of a split's file is read, by its name."""


def read_classes(path: Path) -> list[str]:
    """Return the class names that the labels of the splits are indices into.

    Raises:
        MissingArtifactError: The stage split has not run.
        IntegrityError: The file has changed since.
        DataError: The file is not what the stage split writes.
    """
    try:
        classes: Any = json.loads(read_verified(path, "split"))
    except ValueError as error:
        raise _damaged(path, str(error), "split") from None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise _damaged(path, "it is no list of names", "split")
    return cast("list[str]", classes)


def _damaged(path: Path, actual: str, stage: str) -> DataError:
    return DataError(
        f"{path.name} is damaged.",
        where=str(path),
        expected=f"the file that the stage {stage} wrote",
        actual=actual,
        next=f"dvc repro --force {stage}",
    )
