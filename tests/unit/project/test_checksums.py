"""Checksums in folders: written as sha256sum does, checked before reading."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_compare.errors import IntegrityError, MissingArtifactError
from lora_compare.project.checksums import digest, read_verified, seal, verified

ABC = hashlib.sha256(b"abc").hexdigest()
SUMS = f"{ABC}  a\n{ABC}  b b\n{ABC}  plots/c\n"
READERS = [verified, read_verified]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    (path / "plots").mkdir(parents=True)
    for name in ("b b", "a", ".a.1234.tmp", "plots/c"):
        (path / name).write_bytes(b"abc")
    seal(path)
    return path


def test_checksums_stand_as_sha256sum_writes_them(folder: Path) -> None:
    assert (folder / "SHA256SUMS").read_text() == SUMS
    seal(folder)
    assert (folder / "SHA256SUMS").read_text() == SUMS


def test_what_is_unchanged_is_read(folder: Path) -> None:
    for path in (folder / "a", folder / "b b"):
        assert read_verified(path, "split") == b"abc"
        assert verified(path, "split") == path
        assert digest(path, "split") == ABC
    assert digest(folder, "split") == hashlib.sha256(SUMS.encode()).hexdigest()


@pytest.mark.parametrize("read", READERS)
def test_a_changed_file_is_refused_with_both_checksums(
    folder: Path, read: Callable[[Path, str], object]
) -> None:
    path = folder / "a"
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
    folder: Path, read: Callable[[Path, str], object], content: bytes | None
) -> None:
    sums = folder / "SHA256SUMS"
    sums.unlink() if content is None else sums.write_bytes(content)
    with pytest.raises(IntegrityError, match="no checksum of a") as caught:
        read(folder / "a", "split")
    assert "dvc repro --force split" in caught.value.next


@pytest.mark.parametrize("read", [*READERS, digest])
def test_a_missing_file_names_its_stage(folder: Path, read: Callable[[Path, str], object]) -> None:
    (folder / "a").unlink()
    with pytest.raises(MissingArtifactError, match="dvc repro split"):
        read(folder / "a", "split")
