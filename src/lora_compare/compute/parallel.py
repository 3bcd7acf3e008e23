"""Several pieces of work at once: in this process, in others, or on the workers of a cluster."""

import os
from collections.abc import Callable, Sequence
from functools import partial

import torch

from lora_compare.compute.device import Machine
from lora_compare.compute.engines.crew import Cluster, Crew, Hear, Result, Task, Work
from lora_compare.errors import ClusterError, UserError
from lora_compare.project.interruption import Interrupted, pending

PROCESSES = "LORA_COMPARE_PROCESSES"
"""The environment variable that says how many processes work at once."""

BACKEND = "LORA_COMPARE_BACKEND"
"""The environment variable that names the engine: loky, processes here; dask or ray, a cluster."""


def choose_processes(tasks: int, machine: Machine) -> int:
    """Return how many processes shall work on `tasks` pieces of work, at most one for each.

    That is the cores over the threads of each; on GPUs one for each, whose memory several would
    share. `LORA_COMPARE_PROCESSES` says another number; the results are the same.

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
    return min(int(asked) if asked else _room(tasks, machine), max(tasks, 1))


def _room(tasks: int, machine: Machine) -> int:
    if tasks < 2 or machine.device.type == "mps":
        return 1
    if machine.device.type == "cuda":
        return max(1, torch.cuda.device_count())
    # Here, because it takes a tenth of a second to import. It knows of containers' limits.
    from joblib import cpu_count

    return max(1, int(cpu_count()) // machine.threads)


def choose_cluster() -> Cluster | None:
    """Return the cluster that `LORA_COMPARE_BACKEND` asks for, connected; None: this machine.

    Raises:
        ClusterError: Its library is not installed, or it does not answer.
        UserError: The variable names no engine.
    """
    asked = os.environ.get(BACKEND) or "loky"
    try:
        if asked == "loky":
            return None
        if asked == "dask":
            from lora_compare.compute.engines import dask

            return dask.connect()
        if asked == "ray":
            from lora_compare.compute.engines import ray

            return ray.connect()
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"{asked} is not installed.",
            where=f"environment variable {BACKEND}",
            actual=str(error),
            next=f'pip install -e ".[{asked}]", or unset {BACKEND}',
        ) from error
    raise UserError(
        "There is no such engine.",
        where=f"environment variable {BACKEND}",
        expected="loky (processes of this machine), dask or ray; unset: loky",
        actual=asked,
        next=f"unset {BACKEND}, or set it to one of these",
    )


def run_tasks(
    work: Work[Task, Result],
    tasks: Sequence[Task],
    processes: int,
    hear: Hear,
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
    if processes > 1:
        from lora_compare.compute.engines.loky import Processes

        return wait_for(Processes(work, tasks, processes), hear, ended)
    for number, task in enumerate(tasks):
        outcome: Result | Exception
        try:
            outcome = work(task, partial(hear, number))
        except Exception as error:
            outcome = error
        if not ended(number, outcome) or pending() is not None:
            break
    _raise_pending()
    return None


def wait_for(
    crew: Crew[Result], hear: Hear, ended: Callable[[int, Result | Exception], bool]
) -> None:
    """Wait until a crew has done its tasks, within `deferred`, and let it go.

    Args:
        crew: Who does them.
        hear: As that of `run_tasks`.
        ended: As that of `run_tasks`.

    Raises:
        Interrupted: A signal asked for the end.
    """
    try:
        while crew.is_busy():
            for number, outcome in crew.news(hear):
                if not ended(number, outcome):
                    crew.end()
            if pending() is not None:
                crew.end()
    finally:
        crew.close()
    _raise_pending()


def _raise_pending() -> None:
    if (signum := pending()) is not None:
        raise Interrupted(signum)
