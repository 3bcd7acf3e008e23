"""A training on the worker of a cluster: its inputs arrive, and its result leaves, as bytes.

No disk is shared: a worker has a folder of its own for as long as the training takes. Checkpoints
go to the process that gave it out, which keeps them as its own.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lora_compare.compute.device import Machine
from lora_compare.compute.engines.crew import Cluster, Hear, Inputs, Tell
from lora_compare.compute.parallel import wait_for
from lora_compare.project.checksums import SUMS
from lora_compare.project.files import replacing_folder, write_bytes
from lora_compare.project.paths import Paths
from lora_compare.training.finished import Job
from lora_compare.training.ranks.one import train_one

CHECKPOINT = "checkpoint"
"""The kind of message that holds the bytes of a checkpoint."""


@dataclass(frozen=True)
class Remote:
    """A training as a worker gets it.

    Attributes:
        job: The training, in a project that the worker does not see.
        checkpoint: The file to go on from; None: from the start.
    """

    job: Job
    checkpoint: bytes | None


def read_inputs(paths: Paths) -> Inputs:
    """Return all files that a training reads: base model, texts as tokens, names of classes."""
    tokens = [paths.tokens(name) for name in ("train", "validation")]
    sealed = [*tokens, tokens[0].parent / SUMS, paths.classes, paths.classes.parent / SUMS]
    base = [path for path in sorted(paths.base.rglob("*")) if path.is_file()]
    return {str(path.relative_to(paths.root)): path.read_bytes() for path in (*sealed, *base)}


def train_on(
    cluster: Cluster,
    jobs: Sequence[Job],
    machine: Machine,
    hear: Hear,
    ended: Callable[[int, Exception | None], bool],
) -> None:
    """Train on a cluster, and leave here what trainings on this machine leave.

    Args:
        cluster: The cluster.
        jobs: The trainings.
        machine: What each of them needs.
        hear: Called with the number of a job and all that it tells.
        ended: As that of `run_tasks`; a result is on the disk before.

    Raises:
        ClusterError: The cluster is gone.
        Interrupted: A signal asked for the end; checkpoints are kept.
        StorageError: There is no room for a checkpoint or a result.
    """
    tasks = [Remote(job, _read(job.checkpoint)) for job in jobs]

    def heard(number: int, message: Any) -> None:
        if message[0] == CHECKPOINT:
            write_bytes(jobs[number].checkpoint, message[1])
        else:
            hear(number, message)

    def done(number: int, outcome: Inputs | Exception) -> bool:
        if isinstance(outcome, Exception):
            return ended(number, outcome)
        _keep(jobs[number], outcome)
        return ended(number, None)

    inputs = read_inputs(jobs[0].shared.paths)
    wait_for(cluster.hire(train_there, tasks, inputs, machine), heard, done)


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _keep(job: Job, files: Inputs) -> None:
    shutil.rmtree(job.folder, ignore_errors=True)  # damaged, or it would not have been trained
    with replacing_folder(job.folder) as new:
        for name, content in files.items():
            write_bytes(new / name, content)
    job.checkpoint.unlink(missing_ok=True)


def train_there(task: Remote, inputs: Inputs, tell: Tell) -> Inputs:
    """Train on a worker, and return the files of the finished training by their path in its folder.

    Args:
        task: The training.
        inputs: The files of `read_inputs`.
        tell: As that of `train_one`; called with `(CHECKPOINT, bytes)` too.

    Raises:
        ClusterError: This worker would compute something else.
        Interrupted: It was asked to end; a checkpoint was told before.
        UserError: As `finetune`.
    """
    with TemporaryDirectory(prefix="lora-compare-") as folder:
        paths = Paths(Path(folder))
        for name, content in inputs.items():
            write_bytes(paths.root / name, content)
        job = replace(task.job, shared=replace(task.job.shared, paths=paths))
        if task.checkpoint is not None:
            write_bytes(job.checkpoint, task.checkpoint)
        train_one(job, tell, lambda path: tell((CHECKPOINT, path.read_bytes())))
        files = (path for path in job.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(job.folder)): path.read_bytes() for path in files}
