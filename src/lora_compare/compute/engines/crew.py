"""What all engines share: who does pieces of work, what is heard of them, and how they end."""

import hashlib
import pickle
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from lora_compare.compute.device import Machine
from lora_compare.errors import ClusterError, KilledError, UserError
from lora_compare.project.interruption import Interrupted

LOOK_EVERY = 0.1
"""Seconds between two looks at whether a piece of work is done."""

PATIENCE = 10
"""Seconds to wait for the address of a cluster to answer."""

WORKER = "worker"
"""The kind of message, the first of a task on a cluster, that holds the name of its worker."""

Task = TypeVar("Task")
Result = TypeVar("Result")
Done = TypeVar("Done", covariant=True)

Tell = Callable[[Any], None]
"""What a piece of work calls with what is to be known at once."""

Hear = Callable[[int, Any], None]
"""What is called with a task's number and all that it tells, in order."""

Work = Callable[[Task, Tell], Result]

Inputs = dict[str, bytes]
"""Files by their path in a project: what tasks on a cluster share, where no disk is shared."""

RemoteWork = Callable[[Task, Inputs, Tell], Result]


class Ended:
    """The outcome of a task that was asked to end before it was done."""


class Crew(Protocol[Done]):
    """Who does some tasks."""

    def is_busy(self) -> bool:
        """Give out what there is to give out, and return whether a task is not done."""

    def news(self, hear: Hear) -> Iterator[tuple[int, Done | Exception]]:
        """Wait a moment, hear all that is told, and yield the tasks done with their outcome.

        A task that has ended because it was asked to is done without an outcome.
        """

    def end(self) -> None:
        """Let no other task be begun, and those that are not done be ended."""

    def close(self) -> None:
        """Let go of all that does the tasks, at once where they are not done."""


class Cluster(Protocol):
    """An engine that spreads tasks over machines, once it is connected to."""

    def describe(self) -> str:
        """Return which it is, and how many workers it has now."""

    def hire(
        self,
        work: RemoteWork[Task, Result],
        tasks: Sequence[Task],
        inputs: Inputs,
        machine: Machine,
    ) -> Crew[Result]:
        """Give out all tasks, each for a worker to do.

        Args:
            work: A function of a module that the workers have.
            tasks: What it is called with; they can be pickled.
            inputs: What it is called with too; every worker gets it once.
            machine: What a worker needs for one task: threads, and a GPU if it is one.
        """


class RemoteCrew(ABC, Generic[Result]):
    """Tasks given to a cluster, whose engine decides where and when each is done.

    Args:
        numbers: The tasks.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._open = dict.fromkeys(numbers)
        self._workers: dict[int, str] = {}
        self._is_ending = False

    def is_busy(self) -> bool:
        """Return whether a task is not done."""
        return bool(self._open)

    def news(self, hear: Hear) -> Iterator[tuple[int, Result | Exception]]:
        """Hear of tasks and yield those that are done, as every `Crew`."""
        done = [number for number in self._open if self._is_done(number)]  # before its last words
        words = self._words()
        for number, message in words:
            if message[0] == WORKER:
                self._workers[number] = message[1]
            hear(number, message)
        if not done and not words:
            time.sleep(LOOK_EVERY)
        for number in done:
            outcome = self._outcome(number)
            del self._open[number]
            if not isinstance(outcome, Ended):
                yield number, outcome

    def end(self) -> None:
        """Ask every task that is not done to end, once."""
        if not self._is_ending:
            self._is_ending = True
            self._cancel(list(self._open))

    @abstractmethod
    def _is_done(self, number: int) -> bool:
        """Return whether no more is to be expected of a task."""

    @abstractmethod
    def _words(self) -> list[tuple[int, Any]]:
        """Return what tasks have told since, without waiting."""

    @abstractmethod
    def _outcome(self, number: int) -> Result | Exception | Ended:
        """Return what became of a task that is done."""

    @abstractmethod
    def _cancel(self, numbers: Sequence[int]) -> None:
        """Ask tasks to end, or not to begin."""

    @abstractmethod
    def close(self) -> None:
        """Let the engine forget the tasks."""

    def _lost(self, number: int, error: Exception) -> KilledError:
        """Return the error of a task whose workers have died, as often as the engine bears it."""
        return KilledError(
            "Every worker that did this has died.",
            where=f"worker {self._workers.get(number, 'unknown')}, the last of them",
            actual=first_line(error),
            next="where memory is short, workers with more of it; then dvc repro",
        )


def _opener() -> Callable[..., Any]:
    def opened(content: bytes, *more: Any) -> Any:
        import pickle

        function, *arguments = pickle.loads(content)  # noqa: S301 - what `sealed` has written
        return function(*arguments, *more)

    return opened


open_sealed = _opener()
"""Calls on a worker what `sealed` holds. Engines send this function itself, as no import leads to a
function within another: a worker without this project can read it, and then says what is missing.
"""


def sealed(function: Callable[..., Any], *arguments: Any) -> bytes:
    """Return the first arguments of a call as bytes, which only its worker has to understand."""
    return pickle.dumps((function, *arguments))


def attempt(
    work: RemoteWork[Task, Result], task: Task, inputs: Inputs, tell: Tell, worker: str
) -> Result | Exception | Ended:
    """Do a task on a worker; what it raises is returned, as engines change what they raise anew.

    Args:
        work: The function.
        task: What it is called with.
        inputs: What all tasks share.
        tell: What it tells its words to.
        worker: The name of this worker.
    """
    tell((WORKER, worker))
    found = outcome_of(lambda: work(task, inputs, tell))
    if isinstance(found, ClusterError):
        found.where = f"worker {worker}"
    return found


def outcome_of(work: Callable[[], Result]) -> Result | Exception | Ended:
    """Return what some work returns or raises, as it can be sent to another process."""
    try:
        return work()
    except Interrupted:
        return Ended()
    except UserError as error:
        return error
    except Exception as error:  # a bug, whose traceback no pickle would hold
        return RuntimeError("".join(traceback.format_exception(error)))


def digest(inputs: Inputs) -> str:
    """Return the SHA-256 that stands for inputs, by which an engine knows them again."""
    found = hashlib.sha256()
    for name, content in sorted(inputs.items()):
        found.update(f"{name} {len(content)} ".encode() + content)
    return found.hexdigest()


def cannot_run(error: Exception) -> ClusterError:
    """Return the error of a worker that cannot even read its task."""
    return ClusterError(
        "A worker cannot run this project's code.",
        expected="lora-compare with its locked packages, in the Python of every worker",
        actual=first_line(error),
        next="install them there: pip install --requirement requirements.lock\n"
        "and pip install --no-deps -e .",
    )


def first_line(error: BaseException) -> str:
    """Return the type and the first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
