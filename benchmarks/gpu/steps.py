"""Optimizer steps in bfloat16 of one model in every formulation, on texts of one length."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks.gpu.rows import Watched, row
from benchmarks.jobs import Contender, Job
from benchmarks.others import build_notebook, build_transformers
from benchmarks.workload import random_texts
from lora_compare.models.gpt.network import CONFIGS

BATCH, TOKENS, WARMUP = 8, 64, 3
"""Texts a step, tokens of each (so that nobody pads), and the steps before the timed ones."""

Step = Callable[[int], Any]
"""Does the step of that number."""


class BFloat16Job(Job):
    """A job in which every implementation computes in bfloat16."""

    @property
    def precision(self) -> Any:
        """What the implementation computes in."""
        return "bfloat16"


def run(device: str, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield seconds and memory of a step by method and implementation, as they become known.

    Args:
        device: Where to train.
        settings: `model`, a name of CONFIGS, and `steps`, how many are timed.
    """
    steps = WARMUP + settings["steps"]
    rows: list[dict[str, Any]] = []
    for method in ("lora", "full"):
        for name, job in _jobs(device, settings["model"], method, steps).items():
            texts = [texts for texts, _ in job.batches()]

            def make(job: Job = job, texts: Any = texts) -> Step:
                contender = _build(job)
                return lambda i: contender.step(texts[i], job.labels[:BATCH])

            rows.append(row(method, name, partial(timed, device, make, settings["steps"])))
            yield described(rows)


def described(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rows of steps with what they have in common."""
    return {"precision": "bfloat16", "batch_size": BATCH, "tokens": TOKENS, "rows": rows}


def _jobs(device: str, model: str, method: str, steps: int) -> dict[str, Job]:
    shape = CONFIGS[model].to_dict()
    n = BATCH * steps

    def job(implementation: str, recorded: bool = False) -> Job:
        return BFloat16Job(
            implementation,
            "train",
            method,
            shape,
            random_texts(n, TOKENS, shape["vocab_size"]),
            [i % 2 for i in range(n)],
            BATCH,
            TOKENS,
            WARMUP,
            torch.get_num_threads(),
            device,
            recorded=recorded,
        )

    recordings = {"lora-compare, recorded": job("lora-compare", True)} if device == "cuda" else {}
    return {
        **recordings,
        "lora-compare": job("lora-compare"),
        "transformers": job("transformers"),
        "notebook": job("notebook"),
    }


def _build(job: Job) -> Contender:
    # Random weights are made where they shall be: a host takes longer for them than for the rest.
    with torch.device(job.device):
        if job.implementation == "lora-compare":
            from benchmarks import ours

            return ours.build(job)
        return {"notebook": build_notebook, "transformers": build_transformers}[job.implementation](
            job
        )


def timed(device: str, make: Callable[[], Step], steps: int) -> dict[str, Any]:
    """Return seconds and memory of one implementation's steps.

    Args:
        device: Where it computes.
        make: Returns its step.
        steps: Timed steps, after WARMUP others.
    """
    step = make()
    watched, seconds = Watched(device), []
    for i in range(WARMUP):
        step(i)
    for i in range(WARMUP, WARMUP + steps):
        watched.wait()
        start = time.perf_counter()
        step(i)
        watched.wait()
        seconds.append(time.perf_counter() - start)
    return {
        "step_seconds": median(seconds),
        "lowest": min(seconds),
        "highest": max(seconds),
        "memory_bytes": watched.peak(),
    }
