"""The line that names the columns: which of them to read, and whether it is one at all."""

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from lora_compare.errors import DataError

SEPARATORS = ",;"
"""What may stand between the cells of a .csv; Excel writes the second where commas are decimal."""

LONGEST_HEADER = 2**16
"""Characters in which the separator is looked for."""


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are read, as data.text_column and data.label_column.

    Attributes:
        text: Of the texts.
        label: Of the labels; None where texts alone are wanted.
        carried: Of what else is said of a message, by what that is, as `DataParams.carried`.
    """

    text: str
    label: str | None = None
    carried: Mapping[str, str] = field(default_factory=dict)

    @property
    def main(self) -> list[str]:
        """The label's, where it is wanted, and the text's."""
        return [self.text] if self.label is None else [self.label, self.text]

    @property
    def names(self) -> list[str]:
        """All that are read."""
        return [*self.main, *self.carried.values()]

    @property
    def settings(self) -> list[str]:
        """The settings that name these, the text's first."""
        if self.label is None:
            return ["--text-column"]
        return [
            "data.text_column",
            "data.label_column",
            *(f"data.{k}_column" for k in self.carried),
        ]


@dataclass(frozen=True)
class Places:
    """Where the columns stand in a row.

    Attributes:
        text: Of the text.
        label: Of the label; None where texts alone are wanted.
        carried: Of the others, by what they say.
    """

    text: int
    label: int | None = None
    carried: Mapping[str, int] = field(default_factory=dict)


def find(header: list[str], name: str, columns: Columns) -> Places:
    """Return the positions of the columns.

    Args:
        header: Names of the file's columns.
        name: The file, for messages.
        columns: Which to look for.

    Raises:
        DataError: One of them is not there, or there twice.
    """
    counts = Counter(header)
    wrong = [column for column in columns.names if counts[column] != 1]
    if wrong or len(set(columns.names)) < len(columns.names):
        _refuse(header, name, columns, wrong[0] if wrong and not counts[wrong[0]] else None)
    return Places(
        header.index(columns.text),
        None if columns.label is None else header.index(columns.label),
        {key: header.index(column) for key, column in columns.carried.items()},
    )


def separator(text: str, columns: Columns) -> str:
    """Return what stands between the cells of a .csv: a comma, or a semicolon.

    That under which the first line names the columns, or else has most cells.
    """
    headers = {}
    for delimiter in SEPARATORS:
        rows = csv.reader(io.StringIO(text[:LONGEST_HEADER], newline=""), delimiter=delimiter)
        headers[delimiter] = next(filter(None, rows), [])
        if set(columns.names) <= set(headers[delimiter]):
            return delimiter
    return max(SEPARATORS, key=lambda delimiter: len(headers[delimiter]))


def refuse_likely_header(rows: list[list[str]], name: str, columns: Columns) -> None:
    """Refuse a first line of label, tab, text that looks like a header: it would become a message.

    A file without a header has no other columns either.

    Args:
        rows: The cells of all lines; the first does not name the columns.
        name: The file, for messages.
        columns: Which are looked for.

    Raises:
        DataError: It has one of the names, or nearly both; all lines have as many cells, more
            than two; or its label is the only one that stands there once.
    """
    header = rows[0]
    if len(header) == 1 and any(set(columns.main) <= set(header[0].split(s)) for s in SEPARATORS):
        find(header, name, columns)
    wanted = {column.strip().casefold() for column in columns.main}
    found = wanted & {cell.strip().casefold() for cell in header}
    if found == wanted:
        find(header, name, columns)
    if columns.carried:
        find(header, name, columns)
    if found or _has_more_columns(rows) or _labels_no_other(rows):
        raise DataError(
            f"The first line of {name} looks like a header.",
            where=f"{name}:1",
            expected=f"a header with {' and '.join(map(repr, columns.main))}, "
            "or none: label, tab, text in every line",
            actual=", ".join(map(repr, header))[:1000],
            next=f"{_setting(columns)}; if it is a message, put a line label, tab, text above it",
        )


def _has_more_columns(rows: list[list[str]]) -> bool:
    widths = {len(row) for row in rows if row != [""]}
    return len(rows) > 1 and len(widths) == 1 and len(rows[0]) > 2


def _labels_no_other(rows: list[list[str]]) -> bool:
    """Return whether the first label stands there once, and at least two others more often."""
    counts = Counter(row[0] for row in rows if len(row) == 2)
    first = counts.pop(rows[0][0], 0)
    return first == 1 and len(counts) > 1 and min(counts.values()) > 1


def _refuse(header: list[str], name: str, columns: Columns, missing: str | None) -> NoReturn:
    known, settings = ", ".join(map(repr, header))[:1000], ", ".join(columns.settings)
    need = ", ".join(["the text", "the label", *(f"the {key}" for key in columns.carried)])
    raise DataError(
        f"{name} has no column {missing!r}."
        if missing is not None
        else f"{name}: {' and '.join(need.rsplit(', ', 1))} need one column each.",
        where=settings if columns.label is None else f"params.yaml: {settings}",
        expected=f"{_number(columns)} of the file's columns: {known}",
        actual=", ".join(map(repr, [*columns.main[::-1], *columns.carried.values()])),
        next=_advice(header, columns),
    )


def _advice(header: list[str], columns: Columns) -> str:
    if len(header) == 1:
        for mark, used, advice in (
            ("\t", "tabs", "rename it so that it ends in .tsv"),
            ("|", "|", "separate the columns with commas"),
            (";", "semicolons", "rename it so that it ends in .csv"),
            (",", "commas", "rename it so that it ends in .csv"),
        ):
            if mark in header[0]:
                return f"{advice}: this file seems to use {used}"
    return f"{_setting(columns)}, or put a line of names above the file's messages"


def _setting(columns: Columns) -> str:
    """Return how to name the columns of a file."""
    if columns.label is None:
        return "name one of these with --text-column"
    return f"name {_number(columns)} of these in params.yaml ({', '.join(columns.settings)})"


def _number(columns: Columns) -> str:
    return ("none", "one", "two", "three", "four", "five")[len(columns.names)]
