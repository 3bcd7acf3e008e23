"""Tasks on a Ray cluster, which `RAY_ADDRESS` names.

Ray runs a task again elsewhere when its process or node dies, and ends all tasks of a process that
is gone. Words go through a queue, which is an actor of Ray. A task that is cancelled sees it as
Ctrl-C.
"""

import logging
import os
import signal
import socket
from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import ray
from ray import exceptions
from ray.util.queue import Queue

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
from lora_compare.project.interruption import STOPPING, Interrupted, deferred, interruptible

ADDRESS = "RAY_ADDRESS"

RETRIES = 3
"""How often a task is done again whose worker has died; Ray's own default."""


@cache
def connect() -> "Ray":
    """Return the cluster that the environment names, the same one in all of this process.

    Raises:
        ClusterError: None is named, or it does not answer.
    """
    address = os.environ.get(ADDRESS, "")
    if not address or address == "local":  # which would start one, open to the network
        raise ClusterError(
            "No Ray cluster is named.",
            where=f"environment variable {ADDRESS}",
            expected="the address that `ray start --head` prints, such as 192.168.1.5:6379, "
            "or auto for the one that runs on this machine",
            actual=address,
            next="docs/clusters.md shows how to start one; or unset LORA_COMPARE_BACKEND",
        )
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    try:
        if address != "auto":
            _knock(address)  # Ray itself waits for minutes
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(
            "The Ray cluster does not answer, or does not fit.",
            where=f"{ADDRESS}={address}",
            expected=f"an answer within {PATIENCE} seconds, by the Ray and Python that run here",
            actual=first_line(error),
            next="start it (ray start --head), or unset LORA_COMPARE_BACKEND",
        ) from error
    for number, handler in handlers.items():  # Ray has put its own in their place
        signal.signal(number, handler)
    return Ray()


def _knock(address: str) -> None:
    parts = urlsplit(address if "://" in address else f"//{address}")
    with socket.create_connection((parts.hostname or "", parts.port or 10001), PATIENCE):
        pass


class Ray:
    """A Ray cluster: a `Cluster`."""

    def __init__(self) -> None:
        self._inputs: dict[str, ray.ObjectRef[Inputs]] = {}

    def describe(self) -> str:
        """Return where it is, and how many cores it has now."""
        cores = ray.cluster_resources().get("CPU", 0)
        return f"Ray at {os.environ[ADDRESS]}, {cores:g} cores now"

    def hire(
        self,
        work: RemoteWork[Task, Result],
        tasks: Sequence[Task],
        inputs: Inputs,
        machine: Machine,
    ) -> "RayCrew[Result]":
        """Give out all tasks, as every `Cluster`."""
        if (name := digest(inputs)) not in self._inputs:
            self._inputs = {name: ray.put(inputs)}
        return RayCrew(work, tasks, self._inputs[name], machine)


class RayCrew(RemoteCrew[Result]):
    """Tasks on a Ray cluster.

    Args:
        work: What is done.
        tasks: What it is called with.
        inputs: What all tasks share.
        machine: What each of them needs.
    """

    def __init__(
        self,
        work: RemoteWork[Task, Result],
        tasks: Sequence[Task],
        inputs: "ray.ObjectRef[Inputs]",
        machine: Machine,
    ) -> None:
        super().__init__(range(len(tasks)))
        self._queue = Queue(actor_options={"num_cpus": 0})
        gpus = int(machine.device.type == "cuda")
        do: Any = ray.remote(num_cpus=machine.threads, num_gpus=gpus, max_retries=RETRIES)(
            open_sealed
        )
        self._tasks = [
            do.remote(sealed(_do, work, task, number), self._queue, inputs)
            for number, task in enumerate(tasks)
        ]

    def _is_done(self, number: int) -> bool:
        done, _ = ray.wait([self._tasks[number]], timeout=0, fetch_local=False)
        return bool(done)

    def _words(self) -> list[tuple[int, Any]]:
        return list(self._queue.get_nowait_batch(self._queue.qsize()))

    def _outcome(self, number: int) -> Result | Exception | Ended:
        try:
            result: Result | Exception | Ended = ray.get(self._tasks[number])
        except exceptions.TaskCancelledError:
            return Ended()
        except exceptions.RayTaskError as error:
            return cannot_run(error.cause)
        except exceptions.RayError as error:
            return self._lost(number, error)
        return result

    def _cancel(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            ray.cancel(self._tasks[number])

    def close(self) -> None:
        """Cancel what is left, and end the queue."""
        self._cancel(list(self._open))
        self._queue.shutdown()


def _do(
    work: RemoteWork[Task, Result], task: Task, number: int, queue: Queue, inputs: Inputs
) -> Result | Exception | Ended:
    """Do a task in the main thread of a worker."""
    worker = f"{ray.util.get_node_ip_address()}, process {os.getpid()}"
    try:
        with interruptible(), deferred():
            return attempt(work, task, inputs, lambda word: queue.put((number, word)), worker)
    except Interrupted:
        return Ended()
