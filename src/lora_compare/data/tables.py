"""Labelled text out of .tsv, .csv, .jsonl and .parquet files: every row accounted for."""

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from lora_compare.errors import DataError

SHOWN = 5
"""Broken rows that a message names; the others are counted."""

MAX_BYTES = 2**29
"""Largest source file, unpacked: a corpus is held in memory several times over."""


@dataclass(frozen=True)
class Columns:
    """The names of the two columns that are read, as data.text_column and data.label_column."""

    text: str
    label: str


@dataclass
class Table:
    """The rows of a file as they stand there, not yet checked.

    Attributes:
        name: The file, for messages.
        unit: What `places` counts: lines, or rows where a file has no lines.
        labels: One value a row; None where the file has none.
        texts: One value a row; None where the file has none.
        places: Number of the line or row, from 1.
        normalized: What was left out or unified on the way, by kind.
    """

    name: str
    unit: str = "line"
    labels: list[Any] = field(default_factory=list)
    texts: list[Any] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    normalized: dict[str, int] = field(default_factory=dict)

    def add(self, place: int, label: Any, text: Any) -> None:
        """Append one row."""
        self.places.append(place)
        self.labels.append(label)
        self.texts.append(text)

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
    return PARSERS[suffix](content, Table(name), columns)


def decode(content: bytes, table: Table) -> str:
    """Return UTF-8 `content` as text, without the byte order mark, which is noted in `table`.

    Raises:
        DataError: It is not UTF-8; the message names the byte and suggests an encoding.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        _refuse_encoding(table.name, "a UTF-16 byte order mark at byte 0", "UTF-16")
    marked = content.startswith(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With a mark, the offset counts from behind its three bytes.
        at = error.start + (len(codecs.BOM_UTF8) if marked else 0)
        line = content.count(b"\n", 0, at) + 1
        actual = f"byte 0x{content[at]:02x} at offset {at}, line {line}"
        _refuse_encoding(table.name, actual, _likely_encoding(content))
    if text.count("\0") > len(text) // 4:
        actual = "a NUL character beside nearly every letter, from byte {} on"
        _refuse_encoding(table.name, actual.format(content.index(0)), _likely_encoding(content))
    table.normalized["byte_order_marks"] = int(marked)
    table.normalized["blank_lines"] = 0
    return text


def _likely_encoding(content: bytes) -> str:
    if content.count(b"\0") > len(content) // 4:
        # The zero half of a Latin letter comes first where the large half of a number does.
        return "UTF-16BE" if content[::2].count(0) > content[1::2].count(0) else "UTF-16LE"
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        return "LATIN1"
    return "CP1252"


def _refuse_encoding(name: str, actual: str, encoding: str) -> NoReturn:
    raise DataError(
        f"{name} is not UTF-8.",
        where=name,
        expected="UTF-8",
        actual=f"{actual}; the file looks like {encoding}",
        next=f"iconv -f {encoding} -t UTF-8 OLD > NEW, and set data.source to NEW",
    )


def _parse_tsv(content: bytes, table: Table, columns: Columns) -> Table:
    """Every line is a row, every tab ends a field; quotes are data."""
    lines = _lines(content, table)
    header = lines[0].split("\t") if lines else []
    named = columns.label in header and columns.text in header
    if named:
        label, text, width = *_find(header, table.name, columns), len(header)
    else:
        _refuse_unknown_header(header, table.name, columns)
        label, text, width = 0, 1, 2
    problems = []
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        if not line:
            table.normalized["blank_lines"] += 1
        elif "\r" in line:
            problems.append((number, "a carriage return inside the line"))
        elif len(fields) != width:
            tabs = len(fields) - 1
            problems.append((number, f"{tabs or 'no'} tab{'s' * (tabs > 1)}: {line[:40]!r}"))
        elif number > 1 or not named:
            table.add(number, fields[label], fields[text])
    table.refuse(
        problems,
        f"{width - 1} tab{'s' * (width > 2)} in every line"
        + ("" if named else ": label, tab, text (without a header line)"),
        "correct these lines; a text with tabs or line breaks needs .csv, .jsonl or .parquet",
    )
    return table


def _parse_csv(content: bytes, table: Table, columns: Columns) -> Table:
    """Commas and quotes as in RFC 4180; a quoted field may hold line breaks."""
    text = decode(content, table)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    longest = csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    start, problems, header = 1, [], None
    try:
        for row in reader:
            if not row:
                table.normalized["blank_lines"] += 1
            elif header is None:
                header, (label_at, text_at) = row, _find(row, table.name, columns)
            elif len(row) != len(header):
                problems.append((start, f"{len(row)} fields"))
            else:
                table.add(start, row[label_at], row[text_at])
            start = reader.line_num + 1
    except csv.Error as error:
        reason = "a quote is never closed" if "end of data" in str(error) else str(error)
        problems.append((start, f"{reason} (nothing was read from here on)"))
    finally:
        csv.field_size_limit(longest)
    expected = f"{len(header or [])} fields in every row, quoted as RFC 4180 has it"
    table.refuse(problems, expected, "correct these lines")
    return table


def _parse_jsonl(content: bytes, table: Table, columns: Columns) -> Table:
    """Every line is a JSON object."""
    problems = []
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
        elif missing := [name for name in (columns.text, columns.label) if name not in record]:
            keys = ", ".join(map(repr, record))
            problems.append((number, f"no key {missing[0]!r}, but {keys[:80] or 'none'}"))
        else:
            table.add(number, record[columns.label], record[columns.text])
    expected = f"an object with {columns.text!r} and {columns.label!r} in every line"
    table.refuse(problems, expected, "correct these lines, or data.text_column, data.label_column")
    return table


def _parse_parquet(content: bytes, table: Table, columns: Columns) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(content))
        _find(list(file.schema_arrow.names), table.name, columns)
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        require_size(table.name, sum(group.total_byte_size for group in groups))
        frame = file.read(columns=[columns.label, columns.text])
        # What a file says of itself can be wrong: texts that are not UTF-8, indices beyond the end.
        frame.validate(full=True)
        table.labels = frame.column(columns.label).to_pylist()
        table.texts = frame.column(columns.text).to_pylist()
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
    text = decode(content, table)
    table.normalized["crlf_line_ends"] = text.count("\r\n")
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _find(header: list[str], name: str, columns: Columns) -> tuple[int, int]:
    """Return the positions of the label and the text column."""
    counts = Counter(header)
    wrong = [column for column in (columns.label, columns.text) if counts[column] != 1]
    if wrong or columns.label == columns.text:
        raise DataError(
            f"{name} has no column {wrong[0]!r}."
            if wrong and not counts[wrong[0]]
            else f"{name}: the text and the label need one column each.",
            where="params.yaml: data.text_column, data.label_column",
            expected=f"two of the file's columns: {', '.join(map(repr, header))[:1000]}",
            actual=f"{columns.text!r}, {columns.label!r}",
            next=_advice(header),
        )
    return header.index(columns.label), header.index(columns.text)


def _advice(header: list[str]) -> str:
    if len(header) == 1 and ";" in header[0]:
        return "separate the columns with commas: this file seems to use semicolons"
    return "name the file's columns in params.yaml"


def _refuse_unknown_header(header: list[str], name: str, columns: Columns) -> None:
    """Refuse a first line that is nearly a header, which would become a message."""
    folded = {column.strip().casefold() for column in header}
    if {columns.label.strip().casefold(), columns.text.strip().casefold()} <= folded:
        _find(header, name, columns)


PARSERS: dict[str, Callable[[bytes, Table, Columns], Table]] = {
    ".tsv": _parse_tsv,
    ".csv": _parse_csv,
    ".jsonl": _parse_jsonl,
    ".parquet": _parse_parquet,
}
"""How each kind of file is read, by its suffix."""
