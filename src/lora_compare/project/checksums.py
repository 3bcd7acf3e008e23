"""Checksums that a stage leaves with what it wrote, checked before any of it is used.

Every folder has its `SHA256SUMS`, in the format of sha256sum, which checks it too:
`sha256sum -c SHA256SUMS`. DVC keeps it as a part of the same output, and believes of a file whose
time and size are what they were that it has not changed.
"""

import hashlib
import re
from pathlib import Path

from lora_compare.errors import IntegrityError
from lora_compare.project.files import sha256, write_text
from lora_compare.project.paths import require

SUMS = "SHA256SUMS"
"""The file with the checksums of all others in its folder, and in those within."""


def seal(*folders: Path) -> None:
    """Write the checksums of all that is in folders which a stage has just finished."""
    for folder in folders:
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        # A hidden file is what an earlier, killed write left behind.
        kept = [name for name in sorted(files) if not files[name].name.startswith(".")]
        lines = [f"{sha256(files[name])}  {name}\n" for name in kept if name != SUMS]
        write_text(folder / SUMS, "".join(lines))


def verified(path: Path, stage: str) -> Path:
    """Return `path` if its bytes are those that the stage wrote.

    Args:
        path: A file in a folder that a stage sealed.
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
        return sha256(require(output / SUMS, stage))
    return _recorded(require(output, stage), stage)


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
    sums = path.with_name(SUMS)
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
