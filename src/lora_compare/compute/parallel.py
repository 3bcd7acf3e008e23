"""Several pieces of work at once, each process doing one after the other.

A worker process is loky's, which joblib brings: it starts afresh, so that nothing of its parent's
state can change what it computes. Every worker has an executor of its own, because loky takes all
workers of an executor down with one that is killed.
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Generic, TypeVar

from lora_compare.compute.device import Machine
from lora_compare.errors import KilledError, UserError
from lora_compare.project.interruption import Interrupted, deferred, interruptible, pending

PROCESSES = "LORA_COMPARE_PROCESSES"
"""The environment variable that says how many processes work at once."""

LOOK_EVERY = 0.1
"""Seconds between two looks at whether a worker has ended."""

PARENT_EVERY = 0.5
"""Seconds between a worker's looks at whether its parent is still there."""

Task = TypeVar("Task")
Result = TypeVar("Result")

Tell = Callable[[Any], None]
"""What a piece of work calls with what is to be known at once."""

Work = Callable[[Task, Tell], Result]


def choose_processes(tasks: int, machine: Machine) -> int:
    """Return how many processes shall work on `tasks` pieces of work, at most one for each.

    That is the cores over the threads of each, and 1 on a GPU, whose memory they would share.
    `LORA_COMPARE_PROCESSES` says another number; the results are the same.

    Raises:
        UserError: The variable is no whole number of 1 or more.
    """
    asked = os.environ.get(PROCESSES, "")
    if asked and not (asked.isdecimal() and int(asked)):
        raise UserError(
            "The number of processes is none.",
            where=f"environment variable {PROCESSES}",
            expected="a whole number, 1 or more; unset: as many as the machine has room for",
            actual=asked,
            next=f"unset {PROCESSES}, or set it to 1",
        )
    if tasks < 2 or machine.device.type != "cpu" or asked:
        return min(int(asked or 1), max(tasks, 1))
    # Here, because it takes a tenth of a second to import. It knows of containers' limits.
    from joblib import cpu_count

    return max(1, min(tasks, int(cpu_count()) // machine.threads))


def run_tasks(
    work: "Work[Task, Result]",
    tasks: Sequence[Task],
    processes: int,
    hear: Callable[[int, Any], None],
    ended: Callable[[int, Result | Exception], bool],
) -> None:
    """Do `work(task, tell)` for every task, in this process or side by side in others.

    Call it within `deferred`: a signal that waits goes to the workers, which end their tasks as
    they do on SIGTERM.

    Args:
        work: A function of a module; what it does must not depend on the process.
        tasks: What it is called with; they can be pickled.
        processes: How many work at once; with 1 this process does it all.
        hear: Called with a task's number and all that it tells, in order.
        ended: Called with a task's number and what `work` returned or raised, as soon as it is
            known; False: no other task is begun, and those that are not done are ended.

    Raises:
        Interrupted: A signal asked for the end.
    """
    if processes == 1:
        _one_by_one(work, tasks, hear, ended)
    else:
        _side_by_side(work, tasks, processes, hear, ended)
    if (signum := pending()) is not None:
        raise Interrupted(signum)


def _one_by_one(
    work: "Work[Task, Result]",
    tasks: Sequence[Task],
    hear: Callable[[int, Any], None],
    ended: Callable[[int, Result | Exception], bool],
) -> None:
    for number, task in enumerate(tasks):
        outcome: Result | Exception
        try:
            outcome = work(task, partial(hear, number))
        except Exception as error:
            outcome = error
        if not ended(number, outcome) or pending() is not None:
            return


def _side_by_side(
    work: "Work[Task, Result]",
    tasks: Sequence[Task],
    processes: int,
    hear: Callable[[int, Any], None],
    ended: Callable[[int, Result | Exception], bool],
) -> None:
    crew = _Crew(work, tasks, processes)
    try:
        while busy := crew.busy():
            wait([worker.line for worker in busy], timeout=LOOK_EVERY)
            for number, outcome in _news(busy, hear):
                if not ended(number, outcome):
                    crew.end()
            if pending() is not None:
                crew.end()
    finally:
        crew.close()


def _news(
    busy: "Sequence[_Worker[Task, Result]]", hear: Callable[[int, Any], None]
) -> "Iterator[tuple[int, Result | Exception]]":
    """Hear all that workers have told, and yield the tasks that have ended with their outcome."""
    for worker in busy:
        assert worker.number is not None
        number, is_done = worker.number, worker.is_done()  # asked first: no word comes after it
        for message in worker.messages():
            hear(number, message)
        if is_done and not isinstance(outcome := worker.outcome(), _Ended):
            yield number, outcome


class _Crew(Generic[Task, Result]):
    """Workers, and the tasks that are left for them."""

    def __init__(self, work: "Work[Task, Result]", tasks: Sequence[Task], processes: int) -> None:
        self._left = deque(enumerate(tasks))
        self._workers: list[_Worker[Task, Result]] = [_Worker(work) for _ in range(processes)]
        self._is_ending = False

    def busy(self) -> "list[_Worker[Task, Result]]":
        """Give out what is left to who has nothing to do, and return all who have."""
        for worker in self._workers:
            if worker.number is None and self._left:
                worker.begin(*self._left.popleft())
            if self._is_ending:
                worker.ask_to_end()
        return [worker for worker in self._workers if worker.number is not None]

    def end(self) -> None:
        """Let no other task be begun, and those that are not done be ended."""
        self._left.clear()
        self._is_ending = True

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


@dataclass(frozen=True)
class _Ended:
    """The outcome of a task that was asked to end before it was done."""


class _Worker(Generic[Task, Result]):
    """A process that does tasks; another takes its place where it is killed.

    Attributes:
        number: The number of the task that it does; None: none.
        line: Where its words arrive.
    """

    def __init__(self, work: "Work[Task, Result]") -> None:
        self._work = work
        self.number: int | None = None
        self._open()

    def _open(self) -> None:
        from joblib.externals.loky import ProcessPoolExecutor

        self.line, self._far_end = Pipe(duplex=False)
        self._pid, self._is_asked = 0, False
        start = (self._far_end, os.getpid())
        self._executor = ProcessPoolExecutor(1, initializer=_begin, initargs=start)

    def begin(self, number: int, task: Task) -> None:
        self.number = number
        self._future = self._executor.submit(_do, self._work, task)

    def is_done(self) -> bool:
        return bool(self._future.done())

    def messages(self) -> Iterator[Any]:
        """Yield what the worker has told since, but for the number of its process."""
        while self.line.poll():
            message = self.line.recv()
            if isinstance(message, _Process):
                self._pid = message.pid
            else:
                yield message

    def outcome(self) -> Result | Exception | _Ended:
        """Return the outcome of the task that is done; then the worker is free."""
        from concurrent.futures.process import BrokenProcessPool

        self.number = None
        try:
            result: Result | _Ended = self._future.result()
        except BrokenProcessPool as error:
            asked, pid = self._is_asked, self._pid
            self.close()
            self._open()
            return _Ended() if asked else _killed(pid, str(error))
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
        next=f"where memory is short, fewer at once: {PROCESSES}=1 dvc repro; else dvc repro",
    )


@dataclass(frozen=True)
class _Process:
    """A worker's first word."""

    pid: int


_LINE: list[Connection] = []
"""In a worker: where its words go. A connection can only be handed over at a process's start."""


_FOR_GOOD = ExitStack()
"""In a worker: how it takes signals, as long as it lives."""


def _begin(line: Connection, parent: int) -> None:
    """Make ready a worker: SIGTERM waits for the task, Ctrl-C is the parent's to pass on."""
    _LINE[:] = [line]
    _FOR_GOOD.enter_context(interruptible())
    _FOR_GOOD.enter_context(deferred())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    line.send(_Process(os.getpid()))


def _end_with(parent: int) -> None:
    """End this process as soon as its parent is gone: nobody waits for what it does."""
    while os.getppid() == parent:
        time.sleep(PARENT_EVERY)
    os._exit(1)


def _do(work: "Work[Task, Result]", task: Task) -> "Result | _Ended":
    try:
        return work(task, _LINE[0].send)
    except Interrupted:
        return _Ended()
