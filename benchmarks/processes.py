"""Jobs in processes of their own, in turns."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.jobs import IMPLEMENTATIONS, Job
from benchmarks.machine import ROOT
from lora_compare import WAITING
from lora_compare.errors import UserError
from lora_compare.project.progress import SILENT, Progress

Run = Callable[[Job], dict[str, Any]]

SHOWN_LINES = 15
"""Lines of a failed process's error output that are shown."""


def run_in_process(job: Job) -> dict[str, Any]:
    """Return the figures of a job that a new process does.

    Raises:
        UserError: The process failed.
    """
    # The others' threads wait as torch lets them, not as this project does.
    own = job.task == "matmul" or IMPLEMENTATIONS[job.implementation].family == "lora-compare"
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker"],
        input=json.dumps(job.to_dict()),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if own or WAITING.get(k) != v},
    )
    if process.returncode != 0:
        raise UserError(
            f"The process of {job.implementation} ({job.task}, {job.method}) failed.",
            where=f"exit status {process.returncode}",
            actual="\n".join(process.stderr.splitlines()[-SHOWN_LINES:]),
        )
    figures: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return figures


def in_turns(
    jobs: Mapping[str, Job],
    repeats: int,
    progress: Progress = SILENT,
    run: Run = run_in_process,
) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of every job by its name, one a repeat.

    All jobs have their turn before the next repeat: a machine that becomes slower or faster
    meanwhile does so for all of them.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    with progress.task("benchmark", repeats * len(jobs)) as advance:
        for _ in range(repeats):
            for name, job in jobs.items():
                results[name].append(run(job))
                advance(1, name)
    return results
