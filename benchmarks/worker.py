"""One measurement in a process of its own: a job as JSON comes in, its figures go out."""

import json
import sys
import time
from typing import Any

import torch

from benchmarks.jobs import IMPLEMENTATIONS, Contender, Job
from benchmarks.machine import matmul_throughput, peak_memory_bytes


def build(job: Job) -> Contender:
    """Return the job's implementation, ready to work."""
    # Each process imports what its implementation needs: memory is that of the whole process.
    family = IMPLEMENTATIONS[job.implementation].family
    if family == "lora-compare":
        from benchmarks import ours

        return ours.build(job)
    from benchmarks import others

    return others.build_notebook(job) if family == "notebook" else others.build_transformers(job)


def measure(job: Job) -> dict[str, Any]:
    """Do the job and return its figures, times in seconds."""
    torch.set_num_threads(job.threads)
    if job.task == "matmul":
        return matmul_throughput(job)
    contender = build(job)
    parameters = list(contender.model.parameters())
    figures = _steps(contender, job) if job.task == "train" else _predictions(contender, job)
    return {
        **figures,
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "total_parameters": sum(p.numel() for p in parameters),
        "peak_memory_bytes": peak_memory_bytes(job.device),
    }


def _steps(contender: Contender, job: Job) -> dict[str, Any]:
    seconds, losses = [], []
    for texts, labels in job.batches():
        start = time.perf_counter()
        losses.append(contender.step(texts, labels))  # the loss is a number: the device is done
        _synchronize(job.device)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[job.warmup :], "losses": losses[job.warmup :]}


def _predictions(contender: Contender, job: Job) -> dict[str, Any]:
    contender.predict(job.texts[: job.batch_size])
    start = time.perf_counter()
    contender.predict(job.texts)
    _synchronize(job.device)
    return {"seconds": [time.perf_counter() - start]}


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    if device == "mps":
        torch.mps.synchronize()


if __name__ == "__main__":
    print(json.dumps(measure(Job(**json.load(sys.stdin)))))  # noqa: T201
