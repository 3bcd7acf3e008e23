"""Texts to classify, one a line."""

import codecs
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lora_compare.errors import DataError


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
        raise DataError(
            "The file cannot be read.",
            where=str(source),
            actual=str(error.strerror),
            next="name another with --file",
        ) from None


def _decoded(file: BinaryIO, name: str) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            if "\0" in text:  # UTF-16 without a mark passes for UTF-8
                raise ValueError
        except ValueError:
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
