"""Texts to classify: the lines of a file, or a column of a table."""

import codecs
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lora_compare.data.archives import SUFFIXES, file_suffix, take_out
from lora_compare.data.encodings import require_kind
from lora_compare.data.headers import Columns
from lora_compare.data.messages import make_texts
from lora_compare.data.tables import read_table, require_size
from lora_compare.errors import DataError
from lora_compare.project.progress import Progress


def is_table(source: Path | None) -> bool:
    """Return whether a file is read as the pipeline reads a source, and not line by line."""
    return source is not None and file_suffix(source.name) in SUFFIXES


def read_column(source: Path, column: str, progress: Progress) -> list[str]:
    """Return the texts in one column of a table, one of every row.

    Args:
        source: A file of which `is_table` is true.
        column: The column's name.
        progress: Where what is odd about the file is reported.

    Raises:
        DataError: The file cannot be read, has no such column, or has a row without a text.
    """
    try:
        require_size(str(source), source.stat().st_size)
        content = source.read_bytes()
    except OSError as error:
        raise _unreadable(source, error) from None
    file = take_out(content, file_suffix(source.name), str(source))
    table = read_table(file.content, file.suffix, file.name, Columns(column))
    for warning in table.warnings:
        progress.say(f"warning: {warning}")
    return make_texts(table)


def read_lines(source: Path | None) -> Iterator[str]:
    """Yield the lines of a file that hold a text, as they are read.

    Args:
        source: The file; None or `-`: standard input.

    Raises:
        DataError: The file cannot be read, or a line is not UTF-8; the message has the command
            that converts it.
    """
    if source is None or source == Path("-"):
        yield from _decoded(sys.stdin.buffer, "standard input")
        return
    try:
        with source.open("rb") as file:
            yield from _decoded(file, str(source))
    except OSError as error:
        raise _unreadable(source, error) from None


def _unreadable(source: Path, error: OSError) -> DataError:
    return DataError(
        "The file cannot be read.",
        where=str(source),
        actual=str(error.strerror),
        next="name another with --file",
    )


def _decoded(file: BinaryIO, name: str) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            if "\0" in text:  # UTF-16 without a mark passes for UTF-8
                raise ValueError
        except ValueError:
            if number == 1:
                require_kind(line, Path(name).suffix, name)
            file_name = "FILE" if file is sys.stdin.buffer else shlex.quote(name)
            raise DataError(
                "A line is not UTF-8.",
                where=f"{name}:{number}",
                next=f"iconv -f {_likely_encoding(line, number)} -t UTF-8 {file_name} | "
                "lora-compare classify --file -",
            ) from None
        if text.strip():
            yield text


def _likely_encoding(line: bytes, number: int) -> str:
    is_marked = number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if is_marked:
        return "UTF-16"
    if number == 1 and line.startswith(b"\0"):
        return "UTF-16BE"
    return "UTF-16LE" if b"\0" in line else "WINDOWS-1252"
