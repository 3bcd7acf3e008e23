"""Progress of long work: a bar on a terminal, plain lines when piped, or nothing."""

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column

from lora_compare.errors import without_credentials

PLAIN_INTERVAL = 10.0
"""Seconds between two lines of one task where there is no terminal."""

RELAY_INTERVAL = 0.1
"""Seconds between two messages of a `Relay` about how far a task is."""

Message = tuple[Any, ...]
"""What a `Relay` tells: its kind, `say`, `task` or `advance`, and what that method was given."""

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

    @contextmanager
    def board(self) -> Iterator[Callable[[int, Message], None]]:
        """Yield what shows pieces of work that go on side by side, each in a line of its own.

        It is called with the number of a piece and a message of its `Relay`. A piece that tells
        of another task has begun anew. What several say in the same words is printed once.
        """
        advances: dict[int, Advance] = {}
        said: set[str] = set()
        with ExitStack() as stack:

            def hear(number: int, message: Message) -> None:
                kind, *content = message
                if kind == "advance":
                    advances[number](*content)
                elif kind == "task":
                    advances[number] = add(number, *content)
                elif content[0] not in said:
                    said.add(content[0])
                    self.say(content[0])

            add = self._adder(stack)
            yield hear

    def _adder(self, stack: ExitStack) -> Callable[[int, str, float], Advance]:
        """Return what adds a task to those that are shown together until the stack is closed."""
        bars: list[RichProgress] = []
        tasks: dict[int, TaskID] = {}

        def add(number: int, description: str, total: float) -> Advance:
            if self.quiet or not self.console.is_interactive:
                return stack.enter_context(self.task(description, total))
            if not bars:
                bars.append(stack.enter_context(self._bar(total)))
            if number in tasks:
                bars[0].remove_task(tasks[number])
            task = tasks[number] = bars[0].add_task(description, total=total, note="")
            return lambda amount=1, note="": bars[0].update(task, advance=amount, note=note)

        return add

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


class Relay(Progress):
    """The progress of work in another process, or of one piece of several: it tells, in messages.

    Args:
        tell: Called with every message; `Progress.board` hears them.
    """

    def __init__(self, tell: Callable[[Message], None]) -> None:
        super().__init__()
        self._tell = tell

    def say(self, text: str) -> None:
        """Tell a line of text."""
        self._tell(("say", text))

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Advance]:
        """Tell of a task, as `Progress.task` shows one."""
        self._tell(("task", description, total))
        done = told = 0.0
        last = time.monotonic()

        def advance(amount: float = 1, note: str = "") -> None:
            nonlocal done, told, last
            done += amount
            if done >= total or time.monotonic() - last >= RELAY_INTERVAL:
                self._tell(("advance", done - told, note))
                told, last = done, time.monotonic()

        yield advance


def part_of(advance: Advance) -> Progress:
    """Return the progress of a part of a task: its own tasks advance that one.

    Args:
        advance: What reports the whole task's advance.
    """
    return Relay(lambda message: advance(*message[1:]) if message[0] == "advance" else None)


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
