"""What stages have to tell MLflow, as letters on disk: written at once, delivered when it can be.

A letter is a folder, named so that letters sort by time. Its stage holds a lock in it as long as it
lives, adds rows of a history as they come, and writes `end.json` last, beside copies of all files
that it names. Whoever delivers a letter deletes it.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lora_compare.project.files import read_json, write_json
from lora_compare.tracking.runs import RunRecord

HEADING, START, ROWS, END = "letter.json", "start.json", "rows.jsonl", "end.json"
WRITER, RETURNED, ANSWER = "writer", "returned", "answer.json"


def hold(file: Path) -> int | None:
    """Return a descriptor that holds `file` locked until it is closed; None if another one does.

    A library's lock would make the folder anew that somebody has just deleted.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_held(file: Path) -> bool:
    """Return whether a process holds `file` locked."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared: two that look at once must not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@dataclass(frozen=True)
class Letter:
    """What a stage has to tell, as whoever delivers it reads it.

    Attributes:
        folder: Where it lies.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Its name, which no other letter has."""
        return self.folder.name

    @property
    def label(self) -> str:
        """Its stage, with the method."""
        return self.name.split("-", 1)[1].rpartition("-")[0]

    @cached_property
    def heading(self) -> Mapping[str, Any]:
        """What was known when its stage started; empty once the letter is gone."""
        try:
            heading: dict[str, Any] = read_json(self.folder / HEADING)
        except FileNotFoundError:
            return {}
        return heading

    @property
    def is_open(self) -> bool:
        """Whether more may come: its stage works."""
        return self.is_written and not (self.folder / END).is_file()

    @property
    def is_written(self) -> bool:
        """Whether the process of its stage lives."""
        return is_held(self.folder / WRITER)

    @property
    def is_returned(self) -> bool:
        """Whether its store did not take it, so that another one may have it."""
        return (self.folder / RETURNED).exists()

    def give_back(self) -> None:
        """Note that its store did not take it."""
        with suppress(FileNotFoundError):  # somebody else has just delivered it
            (self.folder / RETURNED).touch()

    def end(self) -> Mapping[str, Any] | None:
        """Return how it ends: its `records`, or a `status`; None while it is open."""
        # In this order: what a dead process has written, it had written before.
        lives = self.is_written
        if (self.folder / END).is_file():
            end: dict[str, Any] = read_json(self.folder / END)
            return end
        return None if lives or not self.folder.is_dir() else {"status": "KILLED"}

    def records(self) -> list[RunRecord]:
        """Return the runs that it tells of; none before it has ended well."""
        found = enumerate((self.end() or {}).get("records", ()))
        return [RunRecord.from_dict(value, self.folder / str(n)) for n, value in found]

    def start(self) -> list[RunRecord]:
        """Return the runs as they were known when a training started: pipeline, method, seeds."""
        file = self.folder / START
        values = read_json(file) if file.is_file() else ()
        return [RunRecord.from_dict(value, self.folder) for value in values]

    def rows(self, offset: int = 0) -> tuple[list[Mapping[str, Any]], int]:
        """Return rows of the history with their times, and where the next ones begin.

        Args:
            offset: Bytes that were read before.
        """
        try:
            with (self.folder / ROWS).open("rb") as file:
                file.seek(offset)
                whole = file.read().rpartition(b"\n")[0]
        except FileNotFoundError:
            return [], offset
        rows = [json.loads(line) for line in whole.splitlines()]
        return rows, offset + len(whole) + bool(whole)

    def answer(self) -> list[str] | None:
        """Return what became of it, for its stage to print; None before it is delivered."""
        file = self.folder / ANSWER
        lines: list[str] | None = read_json(file) if file.is_file() else None
        return lines

    def settle(self, lines: Sequence[str]) -> None:
        """Delete it, as it is delivered; leave `lines` where its stage waits for them."""
        if self.heading.get("awaited") and self.is_written:
            write_json(self.folder / ANSWER, list(lines))
        else:
            self.remove()

    def remove(self) -> None:
        """Delete it."""
        # What is half deleted must be no letter: it would be one of a stage that was killed.
        with suppress(FileNotFoundError):
            hidden = self.folder.rename(self.folder.with_name(f".{self.folder.name}"))
            shutil.rmtree(hidden)


class Draft:
    """A letter as its stage writes it.

    Args:
        mailbox: The folder of letters; made when it is missing.
        stage: The stage, with its method.
        heading: What stands on it: `stage`, `folder`, `experiment`, `store`, `awaited`.

    Attributes:
        letter: What others read of it.
        is_started: Whether it says as what its training is to be shown.
    """

    def __init__(self, mailbox: Path, stage: str, heading: Mapping[str, Any]) -> None:
        name = f"{time.time_ns():020d}-{stage}-{os.getpid()}"
        hidden = mailbox / f".{name}"
        hidden.mkdir(parents=True)
        self._writer = hold(hidden / WRITER)
        write_json(hidden / HEADING, {**heading, "started": now()})
        self.letter = Letter(hidden.rename(mailbox / name))
        self.is_started = False

    def start(self, records: Sequence[RunRecord]) -> None:
        """Say as what a training is to be shown while it runs."""
        values = [record.to_dict() for record in records]
        write_json(self.letter.folder / START, values)
        self.is_started = True

    def log(self, row: Mapping[str, Any]) -> None:
        """Add a row of the history."""
        with (self.letter.folder / ROWS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"at": now(), "row": row}) + "\n")

    def finish(self, records: Sequence[RunRecord]) -> None:
        """Say what the stage wrote; files are copied, as the next run writes over them."""
        folder = self.letter.folder
        for number, record in enumerate(records):
            (folder / str(number)).mkdir()
            for place, file in enumerate(record.artifacts):
                shutil.copyfile(file.source, folder / str(number) / str(place))
        write_json(folder / END, {"records": [record.to_dict() for record in records]})

    def fail(self, status: str) -> None:
        """Say that the stage did not end well; where it had nothing to show, nothing is left."""
        if (self.letter.folder / ROWS).is_file():
            write_json(self.letter.folder / END, {"status": status})
        else:
            self.letter.remove()

    def close(self) -> None:
        """Let go of it: the stage ends."""
        if self._writer is not None:
            os.close(self._writer)
        self._writer = None


class Mailbox:
    """The letters of a project, and what its postmen leave word of.

    Args:
        state: The folder for both, `.tracking`.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        self.folder = state / "mailbox"

    def letters(self) -> list[Letter]:
        """Return all letters that are not answered yet, the oldest first; clear dead ones away."""
        return list(self._letters())

    def _letters(self) -> Iterator[Letter]:
        for folder in sorted(self.folder.glob("*/")):
            letter = Letter(folder)
            is_done = folder.name.startswith(".") or (folder / ANSWER).is_file()
            if not is_done:
                yield letter
            elif not letter.is_written and _age(folder) > 60:
                # Its stage, or whoever deleted it, was killed in the middle.
                shutil.rmtree(folder, ignore_errors=True)

    def lock(self, store: str) -> Path:
        """Return the file that the postman of a store holds."""
        return self.state / f"postman-{store}.lock"

    def trouble(self, store: str) -> dict[str, Any] | None:
        """Return what is known of the failure of a store: `why`, `remedy`, `told`."""
        try:
            known: dict[str, Any] = read_json(self._trouble(store))
        except FileNotFoundError:
            return None
        return known

    def note(self, store: str, why: str, remedy: str = "", told: bool = False) -> None:
        """Leave word that a store fails.

        Args:
            store: The store's mark.
            why: What it said, in a line.
            remedy: What may help; empty where it is not known.
            told: Whether the user knows.
        """
        known = {"why": why, "remedy": remedy, "told": told}
        if self.folder.is_dir() and self.trouble(store) != known:
            write_json(self._trouble(store), known)

    def forget(self, store: str) -> None:
        """Forget the failure of a store: it works."""
        self._trouble(store).unlink(missing_ok=True)

    def _trouble(self, store: str) -> Path:
        return self.state / f"trouble-{store}.json"


def now() -> int:
    """Return the time in ms since 1970."""
    return round(1000 * time.time())


def _age(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
