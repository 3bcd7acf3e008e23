"""Progress of long work: a bar on a terminal, plain lines when piped, or nothing."""

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column

from lora_compare.errors import without_credentials

PLAIN_INTERVAL = 10.0
"""Seconds between two lines of one task where there is no terminal."""

Advance = Callable[..., None]
"""`advance(amount=1, note="")`: report work done and, shown beside it, a short note."""


class Progress:
    """Where long work reports how far it is; all output goes to standard error.

    Args:
        quiet: Print nothing at all; `LORA_COMPARE_QUIET=1` has the same effect.
        console: Where to print; standard error if not given.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self.quiet = quiet or os.environ.get("LORA_COMPARE_QUIET") == "1"
        self.console = console or Console(stderr=True)

    def say(self, text: str) -> None:
        """Print one line of `text` as it is, but for passwords in addresses."""
        if not self.quiet:
            self.console.print(
                without_credentials(text), markup=False, highlight=False, soft_wrap=True
            )

    @contextmanager
    def work(self, name: str) -> Iterator[None]:
        """Note the time of what a stage is there for, as benchmarks/overhead.py asks it to.

        With `LORA_COMPARE_SPANS` a JSON line with the name, the start and the end (seconds
        since 1970) goes to the end of the file that it names.

        Args:
            name: What is being done, in a few words.
        """
        start = time.time()
        try:
            yield
        finally:
            if file := os.environ.get("LORA_COMPARE_SPANS"):
                span = {"name": name, "start": start, "end": time.time()}
                with Path(file).open("a", encoding="utf-8") as spans:
                    spans.write(json.dumps(span) + "\n")

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Advance]:
        """Yield the function that a long piece of work calls to report its advance.

        Args:
            description: What is being done, in a few words.
            total: The amount of work, in the unit of the calls' `amount`.
        """
        if self.quiet:
            yield lambda amount=1, note="": None
        elif self.console.is_interactive:  # a terminal whose lines can be written anew
            with self._bar(total) as bar:
                task = bar.add_task(description, total=total, note="")
                yield lambda amount=1, note="": bar.update(task, advance=amount, note=note)
        else:
            yield self._lines(description, total)

    def _bar(self, total: float) -> RichProgress:
        # Where a line is too short the bar gives way, then the words; a figure stays whole.
        seconds, count = len("0:00:00"), len(f"{total:.0f}/{total:.0f}")
        return RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(table_column=_whole(count)),
            TimeElapsedColumn(table_column=_whole(seconds)),
            TimeRemainingColumn(table_column=_whole(seconds)),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )

    def _lines(self, description: str, total: float) -> Advance:
        start = last = time.monotonic()
        done = 0.0

        def advance(amount: float = 1, note: str = "") -> None:
            nonlocal done, last
            done += amount
            now = time.monotonic()
            if done >= total or now - last >= PLAIN_INTERVAL:
                last = now
                self.say(
                    f"{description}: {done:g}/{total:g} in {now - start:.0f} s {note}".rstrip()
                )

        return advance


def _whole(width: int) -> Column:
    return Column(no_wrap=True, min_width=width)


SILENT = Progress(quiet=True)
"""The progress of callers that want none."""


@contextmanager
def without_warnings(logger: str) -> Iterator[None]:
    """Keep back warnings, and what a library says through `logger` below an error.

    Args:
        logger: The library's name in Python's logging.
    """
    found = logging.getLogger(logger)
    level = found.level
    found.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        found.setLevel(level)
