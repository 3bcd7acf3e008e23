"""Ranks that torchrun has started from outside, on one machine or several: the first one leads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch

from lora_compare.compute.engines.crew import Tell
from lora_compare.compute.ranks import BACKEND, Ranks, Strategy, naming_lost_ranks
from lora_compare.errors import DivergenceError, ParamsError
from lora_compare.params import TrainingParams
from lora_compare.project.interruption import Interrupted, deferred, interruptible
from lora_compare.project.paths import Paths
from lora_compare.training.finished import Job
from lora_compare.training.ranks.one import train_one


@contextmanager
def group(strategy: Strategy, store: str | None = None) -> Iterator[Ranks]:
    """Be one of the ranks in the block, as the environment that torch's launcher sets says which.

    Args:
        strategy: How they share a training.
        store: A file through which the ranks of one machine find each other; None: the address
            that the environment names.
    """
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    backend = BACKEND if torch.cuda.is_available() else "gloo"
    found = torch._C._distributed_c10d.FileStore(store, world) if store else None
    torch.distributed.init_process_group(backend, store=found, rank=rank, world_size=world)
    try:
        yield Ranks(rank, world, strategy)
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def leading(training: TrainingParams) -> Iterator[None]:
    """Have the other ranks of torchrun wait for trainings in the block, and end after it.

    Raises:
        ParamsError: The settings are of another number of processes.
    """
    _require_world(training)
    with group(training.strategy):
        try:
            yield
        finally:
            with suppress(RuntimeError):  # who is gone needs no word, and is an error by now
                torch.distributed.broadcast_object_list([None])


def lead(job: Job, tell: Tell) -> None:
    """Train with the ranks that wait, as `train_one`."""
    ranks = _here(job.training.training.strategy)
    with naming_lost_ranks(ranks):
        torch.distributed.broadcast_object_list([job])
    train_one(job, tell, ranks=ranks)


def follow(paths: Paths, training: TrainingParams) -> None:
    """Take part in the trainings of the first rank until it has no more.

    Args:
        paths: The project as this rank sees it: the same files, on a shared disk.
        training: The settings.

    Raises:
        UserError: As `train_one`.
    """
    _require_world(training)
    ended = suppress(Interrupted, DivergenceError)  # of which the first one tells
    with ended, interruptible(), deferred(), group(training.strategy) as ranks:
        while job := _next_job(ranks):
            job = replace(job, shared=replace(job.shared, paths=paths))
            with ended:
                train_one(job, lambda message: None, ranks=ranks)


def _next_job(ranks: Ranks) -> Job | None:
    told: list[Job | None] = [None]
    with naming_lost_ranks(ranks):
        torch.distributed.broadcast_object_list(told)
    return told[0]


def _here(strategy: Strategy) -> Ranks:
    distributed = torch.distributed
    return Ranks(distributed.get_rank(), distributed.get_world_size(), strategy)


def _require_world(training: TrainingParams) -> None:
    world = int(os.environ["WORLD_SIZE"])
    if training.strategy == "single" or training.devices != world:
        raise ParamsError(
            "torchrun has started another number of processes.",
            where="params.yaml: training.strategy, training.devices",
            expected=f"strategy ddp or fsdp, devices {world}",
            actual=f"strategy {training.strategy}, devices {training.devices}",
            next="set them so, or run the stage without torchrun: dvc repro",
        )
