"""Checksums beside files and in folders: written as sha256sum does, checked before reading."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_compare.errors import IntegrityError, MissingArtifactError
from lora_compare.project.checksums import digest, read_verified, seal, verified

ABC = hashlib.sha256(b"abc").hexdigest()
READERS = [verified, read_verified]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.csv"
    path.write_bytes(b"abc")
    seal(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.mkdir()
    for name in ("b b", "a", ".a.1234.tmp"):
        (path / name).write_bytes(b"abc")
    seal(path)
    return path


def test_checksums_stand_as_sha256sum_writes_them(file: Path, folder: Path) -> None:
    assert (file.parent / "train.csv.sha256").read_text() == f"{ABC}  train.csv\n"
    assert (folder / "SHA256SUMS").read_text() == f"{ABC}  a\n{ABC}  b b\n"
    seal(folder)
    assert (folder / "SHA256SUMS").read_text() == f"{ABC}  a\n{ABC}  b b\n"


def test_what_is_unchanged_is_read(file: Path, folder: Path) -> None:
    for path in (file, folder / "a", folder / "b b"):
        assert read_verified(path, "split") == b"abc"
        assert verified(path, "split") == path
    assert digest(file, "split") == ABC
    assert digest(folder, "split") == hashlib.sha256(f"{ABC}  a\n{ABC}  b b\n".encode()).hexdigest()


@pytest.mark.parametrize("read", READERS)
def test_a_changed_file_is_refused_with_both_checksums(
    file: Path, folder: Path, read: Callable[[Path, str], object]
) -> None:
    for path in (file, folder / "a"):
        path.write_bytes(b"abd")
        with pytest.raises(IntegrityError) as caught:
            read(path, "split")
        assert caught.value.where == str(path)
        assert caught.value.expected == f"sha256 {ABC}"
        assert caught.value.actual == f"sha256 {hashlib.sha256(b'abd').hexdigest()}"
        assert caught.value.next == "lora-compare repair\ndvc repro"


@pytest.mark.parametrize("read", [*READERS, digest])
@pytest.mark.parametrize("content", [None, b"", b"\xff\0", ABC.encode(), f"{ABC}  c\n".encode()])
def test_a_file_whose_checksum_is_not_there_is_refused(
    file: Path, folder: Path, read: Callable[[Path, str], object], content: bytes | None
) -> None:
    for path, sums in (
        (file, file.with_name("train.csv.sha256")),
        (folder / "a", folder / "SHA256SUMS"),
    ):
        sums.unlink() if content is None else sums.write_bytes(content)
        with pytest.raises(IntegrityError, match="dvc repro --force split") as caught:
            read(path, "split")
        assert path.name in caught.value.what


def test_a_missing_file_names_its_stage(file: Path) -> None:
    file.unlink()
    for read in (*READERS, digest):
        with pytest.raises(MissingArtifactError, match="dvc repro split"):
            read(file, "split")
