"""DVC in a copy of this project, and what it leaves."""

import hashlib
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from lora_compare.params import read_yaml
from small_project import environment

PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"

COSTS = ("_cost.json", "reports/training", "metrics/comparison", "reports/comparison")
"""What holds measured times, which no two runs share."""


def run(folder: Path, *command: str, **variables: str) -> str:
    """Run a command that is expected to end well, and return what it printed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(PATH=PATH, **variables),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def dvc(folder: Path, *arguments: str, **variables: str) -> str:
    """Run DVC in `folder` and return what it printed."""
    return run(folder, sys.executable, "-m", "dvc", *arguments, **variables)


def ran(output: str) -> list[str]:
    """Return the stages that DVC ran, in order."""
    return re.findall(r"Running stage '([^']+)'", output)


@contextmanager
def queue_workers(folder: Path, jobs: int, patience: float = 600.0) -> Iterator[None]:
    """Let `jobs` workers empty the queue of experiments of the project in `folder`.

    The block starts when nothing is queued and nothing runs any more. No worker is left behind,
    however it ends.
    """
    try:
        dvc(folder, "queue", "start", "-j", str(jobs))
        deadline = time.monotonic() + patience
        while re.search(r"(Queued|Running)\s*$", status := dvc(folder, "queue", "status"), re.M):
            assert time.monotonic() < deadline, status
            time.sleep(1)
        yield
    finally:
        _end_workers(folder)


def _end_workers(folder: Path) -> None:
    """End the workers of this project's queue, which DVC names after its folder."""
    queue = folder.resolve() / ".dvc" / "tmp" / "exps" / "celery"
    name = f"dvc-exp-{hashlib.sha256(str(queue).encode()).hexdigest()[:6]}-"
    workers = [
        p for p in psutil.process_iter(["cmdline"]) if name in " ".join(p.info["cmdline"] or ())
    ]
    for process in [
        child for worker in workers for child in worker.children(recursive=True)
    ] + workers:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def repro(folder: Path, *targets: str, **variables: str) -> "subprocess.Popen[str]":
    """Start `dvc repro`, without tracking if `variables` do not set where to."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", *targets],
        cwd=folder,
        env=environment(PATH=PATH, **(variables or {"LORA_COMPARE_TRACKING": "off"})),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> str:
    """Return what a run printed that ended well."""
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return output


def outputs(folder: Path) -> dict[str, str]:
    """Return the MD5 that DVC recorded of every output, but for times."""
    stages = read_yaml(folder / "dvc.lock")["stages"]
    entries = [entry for stage in stages.values() for entry in stage["outs"]]
    return {e["path"]: e["md5"] for e in entries if not any(cost in e["path"] for cost in COSTS)}


def count_runs(project: Path) -> int:
    """Return how many runs MLflow shows of a project."""
    with sqlite3.connect(project / "mlflow.db") as store:
        found: int = store.execute("select count(*) from runs").fetchone()[0]
    return found
