"""Real clusters on this machine, each process of theirs on loopback: Dask's and Ray's."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import psutil

from small_project import ROOT, environment


@dataclass
class Cluster:
    """A cluster that runs.

    Attributes:
        engine: `dask` or `ray`.
        address: Where it is.
        head: The process of its scheduler.
    """

    engine: str
    address: str
    head: psutil.Process

    @property
    def variables(self) -> dict[str, str]:
        """What a stage's environment needs to use it."""
        named = {"dask": "DASK_SCHEDULER_ADDRESS", "ray": "RAY_ADDRESS"}[self.engine]
        return {
            "LORA_COMPARE_TRACKING": "off",
            "LORA_COMPARE_BACKEND": self.engine,
            named: self.address,
        }

    def processes(self) -> list[psutil.Process]:
        """Return all its processes."""
        return [self.head, *workers_of(self.head)] if self.engine == "ray" else list(self.own())

    def own(self) -> Iterator[psutil.Process]:
        """Yield those of a Dask cluster: the scheduler's, the workers', their nannies'."""
        for process in psutil.process_iter():
            try:
                if self.address in process.cmdline():
                    yield process
                    yield from process.children(recursive=True)
            except psutil.Error:
                continue
        yield self.head

    def working(self) -> list[psutil.Process]:
        """Return the processes that do tasks."""
        mark = {"dask": "spawn_main", "ray": "ray::open"}[self.engine]
        found = []
        for process in set(self.processes()):
            try:
                if any(mark in word for word in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found


def workers_of(head: psutil.Process) -> list[psutil.Process]:
    return head.children(recursive=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until(condition: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def _variables() -> dict[str, str]:
    return environment(PYTHONPATH=os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]))


@contextmanager
def _process(*arguments: str, log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Run one, and end it with all that it has started."""
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, *arguments], env=_variables(), stdout=out, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield process
        finally:
            end(psutil.Process(process.pid))


def end(process: psutil.Process) -> None:
    """Kill a process with its children, where it still runs."""
    try:
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue


@contextmanager
def dask_cluster(folder: Path, *options: str, workers: int = 2) -> Iterator[Cluster]:
    """Run a scheduler and workers of one thread each, with further options of `dask worker`."""
    folder.mkdir(parents=True, exist_ok=True)
    address = f"tcp://127.0.0.1:{free_port()}"
    here = ("--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")
    port = address.rpartition(":")[2]
    dask = ("-m", "dask", "scheduler", *here, "--port", port)
    with ExitStack() as stack:
        scheduler = stack.enter_context(_process(*dask, log=folder / "scheduler.log"))
        count = ("--nworkers", str(workers), "--nthreads", "1")
        place = ("--local-directory", str(folder))
        worker = ("-m", "dask", "worker", address, *here, *count, *place, *options)
        log = folder / "workers.log"
        stack.enter_context(_process(*worker, log=log))
        wait_until(lambda: log.read_text().count("Registered to") >= workers)
        yield Cluster("dask", address, psutil.Process(scheduler.pid))


@contextmanager
def ray_cluster() -> Iterator[Cluster]:
    """Run Ray's head, whose node does two tasks at once."""
    port = 20_000 + free_port() % 10_000  # not one of those that Ray gives its workers
    folder = Path(mkdtemp(prefix="ray", dir="/tmp"))  # its sockets' paths must be short
    options = ("--head", "--block", "--num-cpus=2", "--include-dashboard=false", f"--port={port}")
    more = ("--disable-usage-stats", "--object-store-memory=100000000", f"--temp-dir={folder}")
    start = ("-m", "ray.scripts.scripts", "start", *options, *more)
    log = folder / "head.log"
    try:
        with _process(*start, log=log) as head:
            wait_until(lambda: "Ray runtime started" in log.read_text())
            yield Cluster("ray", f"127.0.0.1:{port}", psutil.Process(head.pid))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
