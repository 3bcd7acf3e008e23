"""Processes of this machine, each doing one task after the other.

A worker process is loky's, which joblib brings: it starts afresh, so that nothing of its parent's
state can change what it computes. Every worker has an executor of its own, because loky takes all
workers of an executor down with one that is killed.
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Generic

import torch

from lora_compare.compute.engines.crew import LOOK_EVERY, Ended, Hear, Result, Task, Work
from lora_compare.errors import KilledError
from lora_compare.project.interruption import Interrupted, deferred, interruptible

PARENT_EVERY = 0.5
"""Seconds between a worker's looks at whether its parent is still there."""

GPUS = "CUDA_VISIBLE_DEVICES"
"""The environment variable that says which GPUs a process sees, by number or name."""


class Processes(Generic[Task, Result]):
    """Workers, and the tasks that are left for them: a `Crew`.

    Args:
        work: What they do.
        tasks: What it is called with.
        processes: How many there are; where there are several GPUs, each sees one of them.
    """

    def __init__(self, work: Work[Task, Result], tasks: Sequence[Task], processes: int) -> None:
        self._left = deque(enumerate(tasks))
        gpus = _gpus()
        shares = [gpus[number % len(gpus)] if gpus else None for number in range(processes)]
        self._workers: list[_Worker[Task, Result]] = [_Worker(work, gpu) for gpu in shares]
        self._is_ending = False

    def is_busy(self) -> bool:
        """Give out what is left to who has nothing to do, and return whether somebody has."""
        for worker in self._workers:
            if worker.number is None and self._left:
                worker.begin(*self._left.popleft())
            if self._is_ending:
                worker.ask_to_end()
        return bool(self._busy())

    def _busy(self) -> "list[_Worker[Task, Result]]":
        return [worker for worker in self._workers if worker.number is not None]

    def news(self, hear: Hear) -> Iterator[tuple[int, Result | Exception]]:
        """Hear all that workers tell, and yield the tasks that have ended with their outcome."""
        busy = self._busy()
        wait([worker.line for worker in busy], timeout=LOOK_EVERY)
        for worker in busy:
            assert worker.number is not None
            number, is_done = worker.number, worker.is_done()  # first: no word comes after it
            for message in worker.messages():
                hear(number, message)
            if is_done and not isinstance(outcome := worker.outcome(), Ended):
                yield number, outcome

    def end(self) -> None:
        """Let no other task be begun, and those that are not done be ended."""
        self._left.clear()
        self._is_ending = True

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.close()


def _gpus() -> list[str]:
    """Return what `CUDA_VISIBLE_DEVICES` calls each GPU here, where there are several."""
    count = torch.cuda.device_count()
    named = os.environ.get(GPUS, "")
    return [named.split(",")[i] if named else str(i) for i in range(count)] if count > 1 else []


class _Worker(Generic[Task, Result]):
    """A process that does tasks; another takes its place where it is killed.

    Attributes:
        number: The number of the task that it does; None: none.
        line: Where its words arrive.
    """

    def __init__(self, work: Work[Task, Result], gpu: str | None) -> None:
        self._work, self._gpu = work, gpu
        self.number: int | None = None
        self._open()

    def _open(self) -> None:
        from joblib.externals.loky import ProcessPoolExecutor

        self.line, self._far_end = Pipe(duplex=False)
        self._pid, self._is_asked = 0, False
        start = (self._far_end, os.getpid(), self._gpu)
        self._executor = ProcessPoolExecutor(1, initializer=begin, initargs=start)

    def begin(self, number: int, task: Task) -> None:
        self.number = number
        self._future = self._executor.submit(_do, self._work, task)

    def is_done(self) -> bool:
        return bool(self._future.done())

    def messages(self) -> Iterator[Any]:
        """Yield what the worker has told since, but for the number of its process."""
        while self.line.poll():
            message = self.line.recv()
            if isinstance(message, Started):
                self._pid = message.pid
            else:
                yield message

    def outcome(self) -> Result | Exception | Ended:
        """Return the outcome of the task that is done; then the worker is free."""
        from concurrent.futures.process import BrokenProcessPool

        self.number = None
        try:
            result: Result | Ended = self._future.result()
        except BrokenProcessPool as error:
            asked, pid = self._is_asked, self._pid
            self.close()
            self._open()
            return Ended() if asked else _killed(pid, str(error))
        except Exception as error:
            return error
        return result

    def ask_to_end(self) -> None:
        """Ask the worker once to end its task; what it keeps is its own affair."""
        if self._pid and not self._is_asked and self.number is not None:
            self._is_asked = True
            os.kill(self._pid, signal.SIGTERM)

    def close(self) -> None:
        """End the process, at once where it still works."""
        self._executor.shutdown(wait=True, kill_workers=True)
        self.line.close()
        self._far_end.close()


def _killed(pid: int, said: str) -> KilledError:
    codes = said.partition("exit codes of the workers are {")[2].partition("}")[0]
    return KilledError(
        "A process was killed." if codes else "A process ended.",
        where=f"process {pid}",
        actual=f"it ended by {codes}; the system kills where memory is short" if codes else said,
        next="where memory is short, fewer at once: LORA_COMPARE_PROCESSES=1 dvc repro; "
        "else dvc repro",
    )


@dataclass(frozen=True)
class Started:
    """A worker's first word.

    Attributes:
        pid: The number of its process.
    """

    pid: int


_LINE: list[Connection] = []
"""In a worker: where its words go. A connection can only be handed over at a process's start."""


_FOR_GOOD = ExitStack()
"""In a worker: how it takes signals, as long as it lives."""


def begin(line: Connection, parent: int, gpu: str | None = None) -> None:
    """Make ready a process of work: SIGTERM waits for its end, Ctrl-C is the parent's to pass on.

    Args:
        line: Where its words go; the first is a `Started`.
        parent: The process that it ends with.
        gpu: What `CUDA_VISIBLE_DEVICES` calls the one that it shall see; None: all.
    """
    _LINE[:] = [line]
    if gpu is not None:  # before anything asks CUDA
        os.environ[GPUS] = gpu
    _FOR_GOOD.enter_context(interruptible())
    _FOR_GOOD.enter_context(deferred())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    line.send(Started(os.getpid()))


def _end_with(parent: int) -> None:
    """End this process as soon as its parent is gone: nobody waits for what it does."""
    while os.getppid() == parent:
        time.sleep(PARENT_EVERY)
    os._exit(1)


def _do(work: Work[Task, Result], task: Task) -> Result | Ended:
    try:
        return work(task, _LINE[0].send)
    except Interrupted:
        return Ended()
