"""Tasks on the workers of a Dask cluster, which `DASK_SCHEDULER_ADDRESS` names.

Dask runs a task again elsewhere when its worker dies. Words go through a queue of the scheduler, so
that no worker has to reach this process; a task that is cancelled, or whose client is gone, is not
stopped by Dask: it looks at its own state whenever it tells something.
"""

import atexit
import logging
import os
import pickle
import secrets
import time
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

from distributed import CancelledError, Client, Future, KilledWorker, Queue, get_worker

from lora_compare.compute.device import Machine
from lora_compare.compute.engines.crew import (
    PATIENCE,
    Ended,
    Inputs,
    RemoteCrew,
    RemoteWork,
    Result,
    Task,
    attempt,
    cannot_run,
    digest,
    first_line,
    open_sealed,
    sealed,
)
from lora_compare.errors import ClusterError
from lora_compare.project.interruption import Interrupted, deferred, request

ADDRESS = "DASK_SCHEDULER_ADDRESS"

LAST_WORDS = 60
"""Seconds that tasks which are asked to end have for the step that they are in."""

OVER = "over"
"""The kind of the last message of a task."""


@cache
def connect() -> "Dask":
    """Return the cluster that the environment names, the same one in all of this process.

    Raises:
        ClusterError: None is named, or it does not answer.
    """
    address = os.environ.get(ADDRESS, "")
    if not address:
        raise ClusterError(
            "No Dask scheduler is named.",
            where=f"environment variable {ADDRESS}",
            expected="the address that `dask scheduler` prints, such as tcp://127.0.0.1:8786",
            next="docs/clusters.md shows how to start one; or unset LORA_COMPARE_BACKEND",
        )
    for logger in ("distributed", "distributed.client"):  # what they say is in our errors
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions that differ: every task compares them
            client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            "The Dask scheduler does not answer.",
            where=f"{ADDRESS}={address}",
            expected=f"an answer within {PATIENCE} seconds",
            actual=first_line(error),
            next="start it (dask scheduler), or unset LORA_COMPARE_BACKEND",
        ) from error
    atexit.register(client.close)
    return Dask(client)


class Dask:
    """A Dask cluster: a `Cluster`.

    Args:
        client: The connection to it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inputs: dict[str, Future[Inputs]] = {}

    def describe(self) -> str:
        """Return where it is, and how many workers it has now."""
        workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
        return f"Dask at {os.environ[ADDRESS]}, {workers} workers now"

    def hire(
        self,
        work: RemoteWork[Task, Result],
        tasks: Sequence[Task],
        inputs: Inputs,
        machine: Machine,  # noqa: ARG002 - a worker of Dask is made for what it shall do
    ) -> "DaskCrew[Result]":
        """Give out all tasks, as every `Cluster`."""
        return DaskCrew(self._client, work, tasks, self._submitted(inputs))

    def _submitted(self, inputs: Inputs) -> "Future[Inputs]":
        """Return inputs as the result of a task, which the scheduler can have done again.

        Workers hand such a result to each other. One that is scattered would be lost with the
        worker that has it.
        """
        key = f"lora-compare-inputs-{digest(inputs)}"
        if key not in self._inputs:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "Sending large graph"
                self._inputs = {key: self._client.submit(dict, inputs, key=key)}
        return self._inputs[key]


class DaskCrew(RemoteCrew[Result]):
    """Tasks on a Dask cluster.

    Args:
        client: The connection to it.
        work: What is done.
        tasks: What it is called with.
        inputs: What all tasks share.
    """

    def __init__(
        self,
        client: Client,
        work: RemoteWork[Task, Result],
        tasks: Sequence[Task],
        inputs: "Future[Inputs]",
    ) -> None:
        super().__init__(range(len(tasks)))
        name = f"lora-compare-{secrets.token_hex(8)}"
        self._client, self._queue = client, Queue(name, client=client)
        self._futures = [
            client.submit(
                open_sealed, sealed(_do, work, task, name, number), inputs, key=f"{name}-{number}"
            )
            for number, task in enumerate(tasks)
        ]
        self._cancelled: set[int] = set()
        self._last_words_until = 0.0

    def _is_done(self, number: int) -> bool:
        if number not in self._cancelled:
            return bool(self._futures[number].done())
        return number not in self._workers or time.monotonic() > self._last_words_until

    def _words(self) -> list[tuple[int, Any]]:
        try:
            words = self._queue.get(batch=True)
        except OSError as error:
            raise _gone(error) from error
        told = [(number, pickle.loads(word)) for number, word in words]  # noqa: S301 - our own
        for number, (kind, *_) in told:
            if kind == OVER:
                self._workers.pop(number, None)
        return [(number, message) for number, message in told if message[0] != OVER]

    def _outcome(self, number: int) -> Result | Exception | Ended:
        if number in self._cancelled:
            return Ended()
        try:
            result: Result | Exception | Ended = self._futures[number].result()
        except KilledWorker as error:
            return self._lost(number, error)
        except (CancelledError, OSError) as error:
            raise _gone(error) from error
        except Exception as error:
            return cannot_run(error)
        return result

    def _cancel(self, numbers: Sequence[int]) -> None:
        self._last_words_until = time.monotonic() + LAST_WORDS
        self._cancelled = {number for number in numbers if not self._futures[number].done()}
        self._client.cancel([self._futures[number] for number in self._cancelled])

    def close(self) -> None:
        """Let the scheduler forget tasks and queue."""
        if self._client.status == "running":
            self._client.cancel([self._futures[number] for number in self._open])
            self._queue.close()


def _gone(error: BaseException) -> ClusterError:
    return ClusterError(
        "The Dask scheduler is gone.",
        where=f"{ADDRESS}={os.environ.get(ADDRESS)}",
        actual=first_line(error),
        kept="what is finished, and the last checkpoints",
        next="start it again, then dvc repro, which goes on from there",
    )


def _do(
    work: RemoteWork[Task, Result], task: Task, queue: str, number: int, inputs: Inputs
) -> Result | Exception | Ended:
    """Do a task in a thread of a worker."""
    worker, line = get_worker(), Queue(queue)
    if worker.state.nthreads > 1:
        return ClusterError(
            "A worker does several tasks at once, which would share one state of torch.",
            where=f"worker {worker.address}",
            expected="one thread a worker",
            actual=f"{worker.state.nthreads} threads",
            next="dask worker ADDRESS --nthreads 1 --nworkers 4, for 4 at once on a machine",
        )
    state = worker.state.tasks[worker.get_current_task()]

    def tell(message: Any) -> None:
        line.put((number, pickle.dumps(message)))
        if state.state != "executing":  # cancelled, by us or because our client is gone
            request()

    try:
        with deferred():
            return attempt(work, task, inputs, tell, worker.address)
    except Interrupted:
        return Ended()
    finally:
        line.put((number, pickle.dumps((OVER,))))
        line.close()
