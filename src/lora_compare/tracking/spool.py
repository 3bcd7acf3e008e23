"""What waits on this machine while a tracking server is away."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from lora_compare.project.files import read_json, write_json, write_with
from lora_compare.tracking.runs import RunRecord

AWAY_SECONDS = 600.0
"""How long later stages believe that a server is still away, without asking it again."""


class Spool:
    """Records with copies of their files, and the memory of an outage.

    Args:
        folder: Where to keep them; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "spool"
        self._outage = folder / "outage.json"

    def is_away(self, server: str) -> bool:
        """Return whether `server` was found to be away not long ago."""
        if not self._outage.is_file():
            return False
        outage = read_json(self._outage)
        age = time.time() - float(outage["since"])
        return bool(outage["server"] == server and 0 <= age < AWAY_SECONDS)

    def mark_away(self, server: str) -> None:
        """Remember that `server` does not answer."""
        write_json(self._outage, {"server": server, "since": time.time()})

    def mark_back(self) -> None:
        """Forget the outage."""
        self._outage.unlink(missing_ok=True)

    def completed(self, record: RunRecord) -> RunRecord:
        """Return `record` with what only its stage knew, if it waits: its time and its origin.

        A later stage makes the record anew from files, perhaps in another experiment.
        """
        file = self._folder / record.key / "record.json"
        if not file.is_file():
            return record
        known = read_json(file)
        seconds = record.seconds or known["seconds"]
        return replace(record, seconds=seconds, origin=known.get("origin", {}))

    def keep(self, record: RunRecord) -> None:
        """Store `record` with its files, in place of an earlier record of the same run."""
        folder = self._folder / record.key
        if record.provisional and folder.is_dir():
            return
        self.drop(record.key)
        for number, file in enumerate(record.artifacts):
            write_with(folder / str(number), _copy_of(file.source))
        # Last: a folder without it is not yet, or no longer, a record.
        write_json(folder / "record.json", record.to_dict())

    def drop(self, key: str) -> None:
        """Delete the record of that run, if there is one."""
        folder = self._folder / key
        (folder / "record.json").unlink(missing_ok=True)
        if folder.is_dir():
            shutil.rmtree(folder)

    def __iter__(self) -> Iterator[RunRecord]:
        """Yield the records."""
        for file in sorted(self._folder.glob("*/record.json")):
            yield RunRecord.from_dict(read_json(file), file.parent)


def _copy_of(source: Path) -> Callable[[Path], None]:
    def write(temporary: Path) -> None:
        shutil.copyfile(source, temporary)

    return write
