"""One writer for the outputs of a stage, which ends when the `dvc repro` that started it has."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import psutil
from filelock import FileLock, Timeout

from lora_compare.errors import BusyError
from lora_compare.project.progress import Progress

LOOK_EVERY = 1.0
"""Seconds between two looks at whether DVC still runs."""


@contextmanager
def only_writer(lock: Path, stage: str) -> Iterator[None]:
    """Hold `lock` in the block; a process that dies in whatever way lets go of it.

    Args:
        lock: The stage's file; who holds it stands beside it.
        stage: The stage's name, with its method.

    Raises:
        BusyError: Another process runs the same stage here.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    holder = lock.with_suffix(".pid")
    try:
        with FileLock(lock, timeout=0):
            holder.write_text(str(os.getpid()), encoding="utf-8")
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)
    except Timeout:
        pid = holder.read_text(encoding="utf-8") if holder.exists() else ""
        raise BusyError(
            f"The stage {stage} is already running here.",
            where=str(lock),
            actual=f"process {pid or 'unknown'} writes its outputs",
            kept="nothing was changed",
            next=f"wait until it has ended{f', or kill {pid}' if pid else ''}; then dvc repro",
        ) from None


def writers(folder: Path) -> dict[str, int]:
    """Return every stage whose process holds its lock in a folder, with the process.

    The number alone is no proof: it may have been copied with the folder, or be another's by now.
    """
    found = {}
    for holder in sorted(folder.glob("*.pid")):
        try:
            with FileLock(holder.with_suffix(".lock"), timeout=0):
                continue
        except Timeout:
            with suppress(OSError, ValueError):  # it has ended meanwhile
                found[holder.stem] = int(holder.read_text(encoding="utf-8"))
    return found


def end_with_dvc(progress: Progress) -> None:
    """Send this process SIGTERM as soon as the `dvc` that started it is gone, if one did.

    `kill -9` of DVC leaves its stage alone with nobody to record its outputs.

    Args:
        progress: Where to say so.
    """
    dvc = _dvc() if "DVC_STAGE" in os.environ else None
    if dvc is not None:
        Thread(target=_watch, args=(dvc, progress), daemon=True).start()


def _dvc() -> psutil.Process | None:
    """Return the nearest ancestor that runs DVC."""
    for process in psutil.Process().parents():
        try:
            command = [Path(word).name for word in process.cmdline()[:3]]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if "dvc" in command:
            return process
    return None


def _watch(dvc: psutil.Process, progress: Progress) -> None:
    while _runs(dvc):
        time.sleep(LOOK_EVERY)
    progress.say("dvc, which started this stage, has ended; so does the stage")
    os.kill(os.getpid(), signal.SIGTERM)


def _runs(process: psutil.Process) -> bool:
    try:
        # A process that nobody has asked how it ended is still listed.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
