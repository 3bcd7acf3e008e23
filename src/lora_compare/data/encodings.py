"""What the bytes of a file are: known by how they begin, or text and its encoding."""

import codecs
from dataclasses import dataclass
from typing import NoReturn

from lora_compare.errors import DataError

GZIP = b"\x1f\x8b"
"""How a gzip file begins."""

AS_CSV = "save the sheet as CSV (in Excel: CSV UTF-8), and name that file instead"


@dataclass(frozen=True)
class Kind:
    """A kind of file that text is taken for by mistake.

    Attributes:
        what: What to call one.
        begins: Its first bytes.
        next: What to do with one.
        suffix: The name's end under which it is read; empty where it is not.
        holds: Bytes that it also holds.
    """

    what: str
    begins: bytes
    next: str = "unpack it, and name what was in it instead"
    suffix: str = ""
    holds: bytes = b""


KINDS = (
    Kind("an Excel workbook", b"PK\x03\x04", AS_CSV, holds=b"xl/workbook"),
    Kind("a spreadsheet", b"PK\x03\x04", AS_CSV, holds=b"opendocument.spreadsheet"),
    Kind("a zip archive", b"PK\x03\x04", "rename it so that it ends in .zip", ".zip"),
    Kind("an Excel workbook", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", AS_CSV),
    Kind("a Parquet file", b"PAR1", "rename it so that it ends in .parquet", ".parquet", b"PAR1"),
    Kind("packed by gzip", GZIP),
    Kind("packed by bzip2", b"BZh91AY&SY"),
    Kind("packed by xz", b"\xfd7zXZ\0"),
    Kind("packed by zstd", b"\x28\xb5\x2f\xfd"),
    Kind("packed by 7-Zip", b"7z\xbc\xaf\x27\x1c"),
    Kind("packed by RAR", b"Rar!\x1a\x07"),
    Kind("an Arrow file", b"ARROW1\0\0", "write it as .parquet, and name that file instead"),
    Kind("an SQLite database", b"SQLite format 3\0", "write the table as .csv"),
    Kind("a PDF document", b"%PDF-", "get the data as .csv, .tsv, .jsonl or .parquet"),
)
"""Kinds of files with other bytes than text, the narrower ones first."""


def require_kind(content: bytes, suffix: str, name: str) -> None:
    """Refuse a file that is of another kind than its name says.

    Args:
        content: The file, its beginning at least.
        suffix: The end of its name.
        name: The file, for messages.

    Raises:
        DataError: Its first bytes are those of another kind; the message says which.
    """
    for kind in KINDS:
        if content.startswith(kind.begins) and content.find(kind.holds, len(kind.begins)) >= 0:
            if kind.suffix != suffix:
                raise DataError(
                    f"{name} is {kind.what}, whatever its name says.",
                    where=name,
                    expected=f"the bytes of a {suffix} file" if suffix else "text",
                    actual=f"it begins with the bytes {content[:8].hex(' ')}",
                    next=kind.next,
                )
            return


def decode(content: bytes, name: str) -> str:
    """Return UTF-8 `content` as text, without its byte order mark.

    Args:
        content: The whole file.
        name: The file, for messages.

    Raises:
        DataError: It is not UTF-8; the message names the byte and suggests an encoding.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        _refuse_encoding(name, "a UTF-16 byte order mark at byte 0", "UTF-16")
    marked = content.startswith(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With a mark, the offset counts from behind its three bytes.
        at = error.start + (len(codecs.BOM_UTF8) if marked else 0)
        line = content.count(b"\n", 0, at) + 1
        actual = f"byte 0x{content[at]:02x} at offset {at}, line {line}"
        _refuse_encoding(name, actual, _likely_encoding(content))
    if text.count("\0") > len(text) // 4:
        actual = "a NUL character beside nearly every letter, from byte {} on"
        _refuse_encoding(name, actual.format(content.index(0)), _likely_encoding(content))
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
        next=f"iconv -f {encoding} -t UTF-8 OLD > NEW, and name NEW instead of OLD",
    )
