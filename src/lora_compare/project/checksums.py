"""Checksums that a stage leaves beside what it wrote, checked before any of it is used.

A file X has `X.sha256` beside it, a folder has `SHA256SUMS` in it, both in the format of
sha256sum, which checks them too: `sha256sum -c SHA256SUMS`. DVC keeps them as outputs of the same
stage, and believes of a file whose time and size are what they were that it has not changed.
"""

import hashlib
import re
from pathlib import Path

from lora_compare.errors import IntegrityError
from lora_compare.project.files import sha256, write_text
from lora_compare.project.paths import require

SUFFIX = ".sha256"
"""What is appended to a file's name for the name of its checksum."""

FOLDER_SUMS = "SHA256SUMS"
"""The file with the checksums of all others in its folder."""


def seal(*outputs: Path) -> None:
    """Write the checksums of files and folders that a stage has just finished.

    Args:
        outputs: Files, and folders without folders in them.
    """
    for output in outputs:
        if output.is_dir():
            # A hidden file is what an earlier, killed write left behind.
            names = sorted(p.name for p in output.iterdir() if not p.name.startswith("."))
            files = [output / name for name in names if name != FOLDER_SUMS]
            target = output / FOLDER_SUMS
        else:
            files, target = [output], _sidecar(output)
        write_text(target, "".join(f"{sha256(file)}  {file.name}\n" for file in files))


def verified(path: Path, stage: str) -> Path:
    """Return `path` if its bytes are those that the stage wrote.

    Args:
        path: A file that a stage sealed, by itself or with its folder.
        stage: The DVC stage that wrote it, for the message.

    Raises:
        MissingArtifactError: It is not there.
        IntegrityError: It has no checksum, or another one.
    """
    _compare(require(path, stage), stage, sha256(path))
    return path


def read_verified(path: Path, stage: str) -> bytes:
    """Return the bytes of a file, the very ones that were checked; else as `verified`."""
    content = require(path, stage).read_bytes()
    _compare(path, stage, hashlib.sha256(content).hexdigest())
    return content


def digest(output: Path, stage: str) -> str:
    """Return the SHA-256 that stands for what a stage sealed; a folder's is that of its list.

    Raises:
        MissingArtifactError: It is not there.
        IntegrityError: It has no checksum.
    """
    if output.is_dir():
        return sha256(require(output / FOLDER_SUMS, stage))
    return _recorded(require(output, stage), stage)


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def _compare(path: Path, stage: str, actual: str) -> None:
    if (expected := _recorded(path, stage)) != actual:
        raise IntegrityError(
            f"{path.name} is not what the stage {stage} wrote.",
            where=str(path),
            expected=f"sha256 {expected}",
            actual=f"sha256 {actual}",
            next="lora-compare repair\ndvc repro",
        )


def _recorded(path: Path, stage: str) -> str:
    """Return the checksum that the stage left of a file."""
    own, shared = _sidecar(path), path.with_name(FOLDER_SUMS)
    sums = own if own.exists() or not shared.exists() else shared
    text = sums.read_text(encoding="utf-8", errors="replace") if sums.exists() else ""
    for line in text.splitlines():
        if match := re.fullmatch(r"([0-9a-f]{64})  (.*)", line):
            found, name = match.groups()
            if name == path.name:
                return str(found)
    raise IntegrityError(
        f"There is no checksum of {path.name}.",
        where=str(sums),
        expected="the line that the stage wrote with the file",
        actual="another line" if text else "nothing",
        next=f"lora-compare repair\nor, if an earlier version wrote it: dvc repro --force {stage}",
    )
