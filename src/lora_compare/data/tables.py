"""Labelled text out of .tsv, .csv, .jsonl and .parquet files: every row accounted for."""

import codecs
import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lora_compare.data.encodings import decode, require_kind
from lora_compare.data.headers import Columns, Places, find, refuse_likely_header, separator
from lora_compare.errors import DataError

SHOWN = 5
"""Broken rows that a message names; the others are counted."""

UNNAMED = Places(text=1, label=0)
"""Where label and text stand in a .tsv without a header."""

MAX_BYTES = 2**29
"""Largest source file, unpacked: a corpus is held in memory several times over."""


@dataclass
class Table:
    """The rows of a file as they stand there, not yet checked.

    Attributes:
        name: The file, for messages.
        unit: What `places` counts: lines, or rows where a file has no lines.
        columns: Names of all columns; empty where the file names none.
        labels: One value a row; None where the file has none.
        texts: One value a row; None where the file has none.
        carried: One value a row of what else is read, by what that is, as in `Columns`.
        places: Number of the line or row, from 1.
        normalized: What was left out or unified on the way, by kind.
        warnings: What a user should know of how it was read.
    """

    name: str
    unit: str = "line"
    columns: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    texts: list[Any] = field(default_factory=list)
    carried: dict[str, list[Any]] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    normalized: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, place: int, row: list[str], columns: Places) -> None:
        """Append one row of cells."""
        self.places.append(place)
        self.labels.append(None if columns.label is None else row[columns.label])
        self.texts.append(row[columns.text])
        for key, column in columns.carried.items():
            self.carried[key].append(row[column])

    def refuse(self, problems: list[tuple[int, str]], expected: str, next_step: str) -> None:
        """Raise one DataError that names the first of `problems` and counts all, if any."""
        if problems:
            separator = ":" if self.unit == "line" else f": {self.unit} "
            shown = [f"{self.name}{separator}{place}: {what}" for place, what in problems[:SHOWN]]
            more = len(problems) - len(shown)
            plural = "s" if len(problems) > 1 else ""
            raise DataError(
                f"{len(problems)} {self.unit}{plural} of {self.name} cannot be used.",
                where="\n".join(shown + ([f"... and {more} more"] if more else [])),
                expected=expected,
                next=next_step,
            )


def require_size(name: str, size: int) -> None:
    """Refuse a file of more than MAX_BYTES bytes, unpacked.

    Raises:
        DataError: It is larger.
    """
    if size > MAX_BYTES:
        raise DataError(
            f"{name} is too large.",
            where=name,
            expected=f"at most {MAX_BYTES} bytes, unpacked",
            actual=f"{size} bytes",
            next="make a smaller file of it, such as a part of its messages",
        )


def read_table(content: bytes, suffix: str, name: str, columns: Columns) -> Table:
    """Return the rows of a file.

    Args:
        content: The whole file.
        suffix: `.tsv`, `.csv`, `.jsonl` or `.parquet`.
        name: The file, for messages.
        columns: Which columns to read. A .tsv whose first line does not name both is taken
            for one without a header: label, tab, text.

    Raises:
        DataError: The file cannot be read whole; the first five broken lines are named.
    """
    require_kind(content, suffix, name)
    table = Table(name, carried={key: [] for key in columns.carried})
    return PARSERS[suffix](content, table, columns)


def _decode(content: bytes, table: Table) -> str:
    text = decode(content, table.name)
    table.normalized["byte_order_marks"] = int(content.startswith(codecs.BOM_UTF8))
    table.normalized["blank_lines"] = 0
    return text


def _parse_tsv(content: bytes, table: Table, columns: Columns) -> Table:
    """Every line is a row, every tab ends a field; quotes are data."""
    lines = [line.split("\t") for line in _lines(content, table)]
    header = lines[0] if lines else []
    named = set(columns.main) <= set(header)
    found, width = (find(header, table.name, columns), len(header)) if named else (UNNAMED, 2)
    table.columns = header if named else []
    if lines and not named:
        refuse_likely_header(lines, table.name, columns)
    problems: list[tuple[int, str]] = []
    long: dict[int, str] = {}
    for number, fields in enumerate(lines, start=1):
        what = _describe_fields(fields)
        if fields == [""]:
            table.normalized["blank_lines"] += 1
        elif "\r" in "".join(fields):
            problems.append((number, "a carriage return inside the line"))
        elif len(fields) < width or (len(fields) > width and not named):
            problems.append((number, what))
        elif number > 1 or not named:
            table.add(number, fields, found)
            if len(fields) > width:
                long[number] = what
    table.refuse(
        sorted(problems + _misread(table, long)),
        f"{width - 1} tab{'s' * (width > 2)} in every line"
        + ("" if named else ": label, tab, text (without a header line)"),
        "correct these lines; a text with tabs or line breaks needs .csv, .jsonl or .parquet",
    )
    _count_long(table, long)
    return table


def _describe_fields(fields: list[str]) -> str:
    tabs = len(fields) - 1
    line = "\t".join(fields)
    return f"{tabs or 'no'} tab{'s' * (tabs > 1)}: {line[:40]!r}"


def _parse_csv(content: bytes, table: Table, columns: Columns) -> Table:
    """Commas or semicolons, quotes as in RFC 4180; a quoted field may hold line breaks."""
    text = _decode(content, table)
    longest = csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    start, problems, header = 1, [], None
    long: dict[int, str] = {}
    try:
        delimiter = separator(text, columns)
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
        for row in reader:
            if not row:
                table.normalized["blank_lines"] += 1
            elif header is None:
                header, found = row, find(row, table.name, columns)
            elif len(row) < len(header):
                problems.append((start, f"{len(row)} fields"))
            else:
                table.add(start, row, found)
                if len(row) > len(header):
                    long[start] = f"{len(row)} fields"
            start = reader.line_num + 1
    except csv.Error as error:
        reason = "a quote is never closed" if "end of data" in str(error) else str(error)
        problems.append((start, f"{reason} (nothing was read from here on)"))
    finally:
        csv.field_size_limit(longest)
    expected = f"{len(header or [])} fields in every row, quoted as RFC 4180 has it"
    table.refuse(sorted(problems + _misread(table, long)), expected, "correct these lines")
    _count_long(table, long)
    table.columns = header or []
    if delimiter != ",":
        table.warnings.append(f"{table.name}: read with {delimiter} between its cells")
    return table


def _misread(table: Table, long: dict[int, str]) -> list[tuple[int, str]]:
    """Return those rows with more cells than the header that have another label than the others.

    There a separator inside a cell, not quoted, has moved the cells behind it.
    """
    rows = list(zip(table.places, table.labels, strict=True))
    known = {label for place, label in rows if place not in long}
    return [(place, long[place]) for place, label in rows if place in long and label not in known]


def _count_long(table: Table, long: dict[int, str]) -> None:
    if long:
        table.normalized["rows_with_more_cells"] = len(long)
        table.warnings.append(
            f"{len(long)} of {len(table.places)} rows of {table.name} have more cells than the "
            f"header, which were left out (the first: {table.name}:{min(long)}); a text with the "
            "separator in it needs quotes"
        )


def _parse_jsonl(content: bytes, table: Table, columns: Columns) -> Table:
    """Every line is a JSON object."""
    problems, places = [], find(columns.names, table.name, columns)
    wanted = [*columns.main[::-1], *columns.carried.values()]
    for number, line in enumerate(_lines(content, table), start=1):
        if not line.strip():
            table.normalized["blank_lines"] += 1
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append((number, f"no JSON: {error}"))
            continue
        if not isinstance(record, dict):
            problems.append((number, f"no object but {line[:40]}"))
        elif missing := [name for name in wanted if name not in record]:
            keys = ", ".join(map(repr, record))
            problems.append((number, f"no key {missing[0]!r}, but {keys[:80] or 'none'}"))
        else:
            table.add(number, [record[name] for name in columns.names], places)
            table.columns = table.columns or list(record)
    expected = f"an object with {' and '.join(map(repr, wanted))} in every line"
    table.refuse(problems, expected, f"correct these lines, or {', '.join(columns.settings)}")
    return table


def _parse_parquet(content: bytes, table: Table, columns: Columns) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        table.columns = list(file.schema_arrow.names)
        find(table.columns, table.name, columns)
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        require_size(table.name, sum(group.total_byte_size for group in groups))
        frame = file.read(columns=columns.names)
        # What a file says of itself can be wrong: texts that are not UTF-8, indices beyond the end.
        frame.validate(full=True)
        table.texts = frame.column(columns.text).to_pylist()
        is_labelled = columns.label is not None
        table.labels = (
            frame.column(columns.label).to_pylist() if is_labelled else [None] * len(frame)
        )
        for key, column in columns.carried.items():
            table.carried[key] = frame.column(column).to_pylist()
    # Names that are not UTF-8, and times that Python does not have, are errors of Python's own.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(
            f"{table.name} is no readable Parquet file.",
            where=table.name,
            actual=str(error),
            next="write the file again, or set data.source to another one",
        ) from None
    table.unit = "row"
    table.places = list(range(1, frame.num_rows + 1))
    return table


def _lines(content: bytes, table: Table) -> list[str]:
    """Return the lines, ended by LF or CRLF; other breaks are characters of the text."""
    text = _decode(content, table)
    table.normalized["crlf_line_ends"] = text.count("\r\n")
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


PARSERS: dict[str, Callable[[bytes, Table, Columns], Table]] = {
    ".tsv": _parse_tsv,
    ".csv": _parse_csv,
    ".jsonl": _parse_jsonl,
    ".parquet": _parse_parquet,
}
"""How each kind of file is read, by its suffix."""
