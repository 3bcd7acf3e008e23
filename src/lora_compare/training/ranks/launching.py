"""Ranks on this machine, which torch's elastic launcher starts and watches."""

import logging
import os
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import active_children
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.process import BaseProcess
from tempfile import TemporaryDirectory
from typing import Any

from lora_compare.compute.engines.crew import LOOK_EVERY, Tell, outcome_of
from lora_compare.compute.engines.loky import Started, begin
from lora_compare.errors import KilledError
from lora_compare.project.files import storage_faults
from lora_compare.project.interruption import pending
from lora_compare.training.finished import Job
from lora_compare.training.ranks.environment import on_loopback
from lora_compare.training.ranks.joining import group
from lora_compare.training.ranks.one import train_one

GRACE = 10
"""Seconds after which ranks that wait for one that has died are killed."""


def launch(job: Job, tell: Tell) -> None:
    """Train in as many processes as the job asks for, and wait for their end.

    Args:
        job: The training.
        tell: Called with what the first rank tells, as by `train_one`.

    Raises:
        KilledError: A rank was killed; the others have ended.
        UserError: As `train_one`.
    """
    world = job.training.training.devices
    lines = [Pipe(duplex=False) for _ in range(world)]
    with TemporaryDirectory(prefix="lora-compare-") as folder, ThreadPoolExecutor(1) as agent:
        far_ends = [far for _, far in lines]
        run = _launcher(world, f"{folder}/rendezvous")
        ending = agent.submit(run, job, os.getpid(), f"{folder}/group", far_ends)
        try:
            _Watch([near for near, _ in lines], tell).until(ending)
        finally:
            for near, far in lines:
                near.close()
                far.close()


def _launcher(world: int, rendezvous: str) -> Any:
    """Return what starts ranks of `take_part`: they meet through a file, so no port is opened."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in [*logging.root.manager.loggerDict]:
        # What they say of a rank's end, the stage says in words.
        if name.startswith(("torch.distributed.elastic", "torch.multiprocessing")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    # The launcher's own store listens on every interface, and nobody asks it here.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=world,
        run_id="lora-compare",
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous,
        rdzv_configs={"store_type": "file"},
        max_restarts=0,
        local_addr="127.0.0.1",
        shutdown_timeout=GRACE,
    )
    return elastic_launch(config, take_part)


class _Watch:
    """What is heard and seen of ranks.

    Args:
        lines: Where the words of each arrive.
        tell: Called with those of the first.
    """

    def __init__(self, lines: Sequence[Connection], tell: Tell) -> None:
        self._ranks = {line: rank for rank, line in enumerate(lines)}
        self._tell = tell
        self._processes: dict[int, BaseProcess] = {}
        self._errors: dict[int, Exception] = {}
        self._killed: KilledError | None = None
        self._is_asked = False

    def until(self, ending: "Future[Any]") -> None:
        """Wait for the end of all ranks, and raise what has ended them."""
        try:
            while not ending.done():
                self._look()
        except BaseException:
            for process in active_children():
                process.kill()
            raise
        self._look()
        if error := self._first_error() or ending.exception():
            raise error

    def _look(self) -> None:
        for line in wait([*self._ranks], timeout=LOOK_EVERY):
            assert isinstance(line, Connection)
            while line.poll():
                self._hear(self._ranks[line], line.recv())
        if pending() is not None and not self._is_asked:
            self._is_asked = True
            for process in self._processes.values():
                process.terminate()
        for rank, process in self._processes.items():
            code = process.exitcode or 0
            if code < 0 and self._killed is None:
                self._killed = _killed(rank, -code, self._processes)

    def _hear(self, rank: int, message: Any) -> None:
        if isinstance(message, Started):
            self._processes[rank] = next(p for p in active_children() if p.pid == message.pid)
        elif isinstance(message, Exception):
            self._errors[rank] = message
        else:
            self._tell(message)

    def _first_error(self) -> Exception | None:
        """Return what has ended the ranks.

        That is an error of one, or else the death of the first; that others have missed it, and
        were killed where they waited, comes of these.
        """
        own = [error for error in self._errors.values() if not isinstance(error, KilledError)]
        return next(iter([*own, *filter(None, [self._killed]), *self._errors.values()]), None)


def _killed(rank: int, signum: int, processes: dict[int, BaseProcess]) -> KilledError:
    name = signal.Signals(signum).name
    return KilledError(
        "A process of the training was killed.",
        where=f"rank {rank} of {len(processes)}, process {processes[rank].pid}",
        actual=f"it ended by {name}; the system kills where memory is short",
        next="dvc repro, which goes on from the last checkpoint; where memory is short, a smaller\n"
        "training.batch_size or fewer training.devices",
    )


def take_part(job: Job, parent: int, store: str, lines: Sequence[Connection]) -> None:
    """Be one rank of a training, in a process that torch's launcher has started.

    Args:
        job: The training.
        parent: The process that the rank ends with.
        store: The file through which the ranks find each other.
        lines: Where the words of each rank go; an exception is what has ended it.
    """
    line = lines[int(os.environ["RANK"])]
    begin(line, parent)
    on_loopback()

    def work() -> None:
        with storage_faults(), group(job.training.training.strategy, store) as ranks:
            train_one(job, line.send if ranks.is_first else lambda message: None, ranks=ranks)

    outcome = outcome_of(work)
    if isinstance(outcome, Exception):
        line.send(outcome)
        raise SystemExit(1)
