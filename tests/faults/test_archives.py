"""Archives that would write where they should not, or more than there is room for."""

import io
import pickle
import stat
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.commands import refusal, write_project

ROWS = b"ham\thello\nspam\twin\n"
BOMB = 600 * 2**20
"""Bytes: more than any member may have, packed to a thousandth of it."""


def zipped(
    *members: tuple[str | zipfile.ZipInfo, bytes], packing: int = zipfile.ZIP_DEFLATED
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members of one name
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def linked(name: str, target: bytes) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, target


def encrypted() -> bytes:
    content = bytearray(zipped(("a.tsv", ROWS)))
    # Bit 0 of the flags, in the local header (offset 6) and in the directory (offset 8).
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A zip whose member unpacks to BOMB bytes."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.tsv", "w") as member,
    ):
        for _ in range(BOMB // 2**20):
            member.write(b"ham\t" + b"x" * (2**20 - 5) + b"\n")
    return buffer.getvalue()


def refused(folder: Path, content: bytes) -> str:
    write_project(folder, "m.zip", content)
    return refusal(folder, "download")


@pytest.mark.parametrize(
    "name",
    [
        "../a.tsv",
        "a/../../b.tsv",
        "/etc/a.tsv",
        "x\\..\\..\\a.tsv",
        "C:/a.tsv",
        "C:\\a.tsv",
        "\\\\h\\a",
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_row_24_a_path_out_of_an_archive_is_refused(tmp_path: Path, name: str, alone: bool) -> None:
    members = [(name, ROWS)] if alone else [("good.tsv", ROWS), (name, ROWS)]
    message = refused(tmp_path, zipped(*members))
    assert "a member leads out of the folder" in message
    assert f"inputs/text/m.zip!{name}" in message
    assert "nothing was unpacked" in message


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../../secret", b"good.tsv"])
@pytest.mark.parametrize("name", ["a.tsv", "folder"])
def test_row_24_a_link_in_an_archive_is_refused(tmp_path: Path, name: str, target: bytes) -> None:
    message = refused(tmp_path, zipped(("good.tsv", ROWS), linked(name, target)))
    assert f"m.zip!{name}" in message
    assert "a member is a symbolic link" in message


@pytest.mark.parametrize("declared", [BOMB, 19, 0])
def test_row_24_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, bomb: bytes, declared: int
) -> None:
    content = bytearray(bomb)
    # The unpacked size in the directory (offset 24), which may be a lie.
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, declared)
    write_project(tmp_path, "m.zip", bytes(content))
    refusal(tmp_path, "check")
    tracemalloc.start()
    message = refusal(tmp_path, "download")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**26 < BOMB / 8
    if declared == BOMB:
        assert "m.zip!a.tsv is too large" in message
        assert f"at most {2**29} bytes, unpacked" in message
        assert f"{BOMB} bytes" in message
    else:
        assert "no readable zip file" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encrypted(), "a member is encrypted"),
        (zipped(("a.tsv", ROWS), packing=zipfile.ZIP_BZIP2), "is packed by a rare method"),
        (zipped(("a.tsv", ROWS), packing=zipfile.ZIP_LZMA), "is packed by a rare method"),
        (zipped(("inner.zip", zipped(("a.tsv", ROWS)))), "holds no data files"),
        (zipped(("a.tsv", ROWS), ("b.csv", ROWS)), "holds 2 data files"),
        (zipped(("a.tsv", ROWS), ("a.tsv", ROWS)), "holds 2 data files"),
        (zipped(("a/SMSSpamCollection", ROWS), ("SMSSpamCollection", ROWS)), "holds 2 data files"),
        (zipped(("readme", b"x")), "holds no data files"),
        (zipped(), "an empty archive"),
        (b"", "no readable zip"),
        (b"<html>not found</html>", "no readable zip"),
        (zipped(("a.tsv", ROWS * 100))[:-30], "no readable zip"),
        (zipped(("a.tsv", ROWS * 100)).replace(b"PK\x03\x04", b"PK\x03\x05"), "no readable zip"),
        (b"\x80\x04" + pickle.dumps(ROWS), "no readable zip"),
        (zipped(("a.tsv", ROWS))[1:], "no readable zip"),
        (zipped(("\xe9.tsv", ROWS)).replace(b"\xc3\xa9", b"\xff\xff"), "no readable zip"),
        (zipped(("a.tsv", ROWS)).replace(b"a.tsv", b"\0.tsv"), "a member has no name"),
    ],
)
def test_row_24_an_archive_without_one_plain_data_file_is_refused(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    assert expected in refused(tmp_path, content)


@pytest.mark.parametrize("spoil", [lambda b: b ^ 0xFF, lambda b: b ^ 1])
def test_row_24_a_flipped_byte_in_a_member_is_noticed(
    tmp_path: Path, spoil: Callable[[int], int]
) -> None:
    content = bytearray(zipped(("a.tsv", ROWS * 100)))
    at = content.index(b"a.tsv") + 20
    content[at] = spoil(content[at])
    assert "no readable zip" in refused(tmp_path, bytes(content))
