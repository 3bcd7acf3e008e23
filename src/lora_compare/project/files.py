"""Files written whole or not at all, canonical JSON and CSV, and checksums."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_compare.errors import DataError, StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def storage_faults(path: Path | None = None, needed: int | None = None) -> Iterator[None]:
    """Turn the system's refusal to store something in the block into an error that says more.

    Args:
        path: What is written; None: what the system's own error names.
        needed: Its size in bytes, where that is known.

    Raises:
        StorageError: The disk or a quota is full, or a file or folder may not be written.
    """
    try:
        yield
    except OSError as error:
        place = path or Path(error.filename or Path.cwd())
        if error.errno in _FULL:
            raise _full(place, needed, error) from error
        if error.errno in _REFUSED:
            raise _refused(place, f"{error.strerror}: {error.filename}") from error
        raise


def require_writable(folders: Iterable[Path]) -> None:
    """Refuse folders that nothing can be written to, before the work that would be lost.

    Args:
        folders: Where files are to be written; one that is missing would be made.

    Raises:
        StorageError: One of them may not be written to, or could not be made.
    """
    with storage_faults():
        for folder in folders:
            if not is_writable(folder):
                there = existing(folder)
                raise _refused(there, stat.filemode(there.stat().st_mode))


def is_writable(folder: Path) -> bool:
    """Return whether files may be written to a folder, made where it is missing."""
    there = existing(folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def existing(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.parents) if place.exists())


def _full(path: Path, needed: int | None, error: OSError) -> StorageError:
    free = shutil.disk_usage(existing(path)).free
    return StorageError(
        f"The disk is full: {path.name} cannot be written.",
        where=str(path),
        expected=f"{needed:,} bytes free" if needed else "",
        actual=f"{free:,} bytes free ({error.strerror})",
        kept="what was there before; nothing half-written was left",
        next="make room on that disk, then run this again",
    )


def _refused(path: Path, actual: str) -> StorageError:
    return StorageError(
        f"{path.name} cannot be written.",
        where=str(path),
        expected="a file or folder that this user may write to",
        actual=actual,
        kept="what was there before",
        next="change its owner or mode (ls -ld, chown, chmod), then run this again",
    )


@contextmanager
def replacing(path: Path, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it if the block succeeds.

    The bytes are flushed to the disk before the rename, and the folder after it, so that
    a reader, or a run after a power cut, finds the old file or the new one, never a part.

    Args:
        path: The file to write; its folder is made where it is missing.
        needed: Its size in bytes, where that is known, for the message of a full disk.

    Raises:
        StorageError: The disk is full, or the folder may not be written to.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with storage_faults(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder` that takes its place if the block succeeds.

    Otherwise `folder` stays as it was, or missing.

    Args:
        folder: The folder to write; what it held is deleted at the end.

    Raises:
        StorageError: As `replacing`.
    """
    mark = f".{folder.name}.{secrets.token_hex(4)}"
    new, old = folder.with_name(f"{mark}.tmp"), folder.with_name(f"{mark}.old")
    with storage_faults(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        try:
            yield new
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
            _sync(folder.parent)
        finally:
            if old.exists() and not folder.exists():
                old.rename(folder)
            for remains in (new, old):
                shutil.rmtree(remains, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` atomically, as UTF-8 with the newlines it holds."""
    write_bytes(path, content.encode())


def write_with(path: Path, writer: Callable[[Path], None]) -> None:
    """Let a library write `path` atomically through `writer(temporary_path)`."""
    with replacing(path) as temporary:
        writer(temporary)


def canonical_json(value: Any) -> str:
    """Return `value` as JSON whose bytes depend on the value alone.

    Keys keep the order in which the code wrote them, floats their shortest exact form.

    Raises:
        ValueError: A number is NaN or infinite, which JSON cannot hold.
    """
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically as canonical JSON."""
    write_text(path, canonical_json(value))


def read_json(path: Path) -> Any:
    """Return the JSON value that `path` holds.

    Raises:
        DataError: It is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path.name} is damaged.",
            where=str(path),
            expected="JSON, as it was written",
            actual=str(error),
            next="lora-compare repair\ndvc repro",
        ) from None


def write_csv(path: Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """Write `columns` to `path` atomically as CSV with a header, in the bytes of pandas' `to_csv`.

    The bytes are made here because Python's csv module, which pandas calls, quotes a carriage
    return from 3.13 on and leaves it bare before: the same table would differ between
    versions, and be torn apart when it is read again. Floats have their shortest exact form.

    Args:
        path: The file.
        columns: Values by column name; all columns have the same length.

    Checked by tests/unit/project/test_files.py::test_csv_is_that_of_pandas.
    """
    rows = zip(*columns.values(), strict=True)
    lines = [columns.keys(), *rows]
    write_text(path, "".join(",".join(map(_csv_field, line)) + "\n" for line in lines))


def _csv_field(value: Any) -> str:
    text = str(value)
    if not re.search(r'[,"\r\n]', text):
        return text
    return '"' + text.replace('"', '""') + '"'


def is_file(path: Path) -> bool:
    """Return whether `path` is a file; a text that cannot be a path is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(value: Any) -> str:
    """Return the SHA-256 of a JSON value, regardless of the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
