"""Checksums that a stage leaves with what it wrote, checked before any of it is used.

Every folder has its `SHA256SUMS`, in the format of sha256sum, which checks it too:
`sha256sum -c SHA256SUMS`. DVC keeps it as a part of the same output, and believes of a file whose
time and size are what they were that it has not changed.
"""

import hashlib
import os
import re
from pathlib import Path

from lora_compare.errors import IntegrityError
from lora_compare.project.files import sha256, write_text
from lora_compare.project.paths import require

SUMS = "SHA256SUMS"
"""The file with the checksums of all others in its folder, and in those within."""


def seal(*folders: Path, beside: Path | None = None) -> None:
    """Write the checksums of all that is in folders which a stage has just finished.

    Args:
        folders: Where the stage wrote.
        beside: A file of the stage in metrics/, which git keeps; its checksum goes to the others.
    """
    for folder in folders:
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        # A hidden file is what an earlier, killed write left behind.
        kept = [name for name in sorted(files) if not files[name].name.startswith(".")]
        lines = [f"{sha256(files[name])}  {name}\n" for name in kept if name != SUMS]
        if beside is not None:
            lines.append(f"{sha256(beside)}  {_name(beside, folder)}\n")
        write_text(folder / SUMS, "".join(lines))


def _name(path: Path, folder: Path) -> str:
    """Return a file's path from a folder, as sha256sum takes it there."""
    return Path(os.path.relpath(path, folder)).as_posix()


def verified(path: Path, stage: str) -> Path:
    """Return `path` if its bytes are those that the stage wrote.

    Args:
        path: A file in a folder that a stage sealed.
        stage: The DVC stage that wrote it, for the message.

    Raises:
        MissingArtifactError: It is not there.
        IntegrityError: It has no checksum, or another one.
    """
    _compare(require(path, stage), stage, sha256(path), path.parent)
    return path


def verified_part(part: Path, folder: Path, stage: str) -> Path:
    """Return `part` if all that a stage wrote there is as it was.

    Args:
        part: A folder in one that a stage sealed.
        folder: The sealed folder.
        stage: The DVC stage that wrote it, for the message.

    Raises:
        MissingArtifactError: The folder or a file in it is not there.
        IntegrityError: A file has another checksum.
    """
    sums = require(folder / SUMS, stage).read_text(encoding="utf-8", errors="replace")
    names = (match[1] for match in re.finditer(r"^[0-9a-f]{64}  (.*)$", sums, re.MULTILINE))
    for path in (folder / name for name in names):
        if path.is_relative_to(part):
            _compare(require(path, stage), stage, sha256(path), folder)
    return require(part, stage)


def read_verified(path: Path, stage: str, folder: Path | None = None) -> bytes:
    """Return the bytes of a file, the very ones that were checked; else as `verified`.

    Args:
        path: The file.
        stage: The DVC stage that wrote it, for the message.
        folder: The folder sealed with the file `beside` it; None: the file's own.
    """
    content = require(path, stage).read_bytes()
    _compare(path, stage, hashlib.sha256(content).hexdigest(), folder or path.parent)
    return content


def digest(output: Path, stage: str) -> str:
    """Return the SHA-256 that stands for what a stage sealed; a folder's is that of its list.

    Raises:
        MissingArtifactError: It is not there.
        IntegrityError: It has no checksum.
    """
    if output.is_dir():
        return sha256(require(output / SUMS, stage))
    return _recorded(require(output, stage), stage, output.parent)


def _compare(path: Path, stage: str, actual: str, folder: Path) -> None:
    if (expected := _recorded(path, stage, folder)) != actual:
        raise IntegrityError(
            f"{path.name} is not what the stage {stage} wrote.",
            where=str(path),
            expected=f"sha256 {expected}",
            actual=f"sha256 {actual}",
            next="lora-compare repair\ndvc repro",
        )


def _recorded(path: Path, stage: str, folder: Path) -> str:
    """Return the checksum that the stage left of a file in `folder`."""
    sums = folder / SUMS
    text = sums.read_text(encoding="utf-8", errors="replace") if sums.exists() else ""
    for line in text.splitlines():
        if match := re.fullmatch(r"([0-9a-f]{64})  (.*)", line):
            found, name = match.groups()
            if name == _name(path, folder):
                return str(found)
    raise IntegrityError(
        f"There is no checksum of {path.name}.",
        where=str(sums),
        expected="the line that the stage wrote with the file",
        actual="another line" if text else "nothing",
        next=f"lora-compare repair\nor, if an earlier version wrote it: dvc repro --force {stage}",
    )
