"""The machine and the versions that figures belong to, and how fast it multiplies matrices."""

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from shutil import which
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.jobs import Job

ROOT = Path(__file__).resolve().parents[1]

CAPABILITIES = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "amx_fp16", "bf16", "sve")
"""What decides how fast a CPU multiplies float32 and bfloat16."""

PACKAGES = ("torch", "transformers", "peft", "numpy")

LARGE_BATCH = 4096
"""Tokens of a batch that is not bound by memory: `lora_compare.models.classifier.TOKEN_BUDGET`."""

MATMUL_SECONDS = 0.5
"""Time for which each matrix product is repeated; the fastest repetition counts."""


def describe_machine(device: str) -> dict[str, Any]:
    """Return the hardware: CPU, cores of this process, memory, GPU."""
    # Here, because a process that measures others' code shall not pay for this project's.
    from lora_compare.compute.device import processor

    capabilities = torch.cpu.get_capabilities()
    return {
        "cpu": processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "capabilities": [name for name in CAPABILITIES if capabilities.get(name)],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "system": platform.system(),
    }


def describe_versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python, of `packages` and of this project by its commit."""
    from lora_compare import __version__

    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "lora-compare": __version__,
        "commit": _git("rev-parse", "--short=12", "HEAD") or "unknown",
        "edited": "yes" if _git("status", "--porcelain", "--untracked-files=no") else "no",
    }


def _git(*arguments: str) -> str:
    if which("git") is None:
        return ""
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip()


def available_memory_bytes(device: str) -> int:
    """Return the memory that a job could still take."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    path = Path("/proc/meminfo")
    if not path.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    line = next(x for x in path.read_text().splitlines() if x.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def peak_memory_bytes(device: str) -> int:
    """Return this process's peak so far, as `lora_compare.training.meters.peak_memory_bytes` does.

    That module imports more of lora-compare than the other implementations shall pay for.
    """
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if device == "mps":
        return torch.mps.driver_allocated_memory()
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if platform.system() == "Darwin" else peak * 1024
    line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def matmul_throughput(job: Job) -> dict[str, Any]:
    """Return how many FLOPs a second the feed-forward's matrix products reach, by precision.

    Each is measured with the tokens of the job's mean batch, of its padded one and of a large
    one, as the forward pass, the gradient of the input and the gradient of the weight multiply.
    """
    width = job.shape["n_embd"]
    n_batches = len(job.texts) / job.batch_size
    mean = round(sum(map(len, job.texts)) / n_batches)
    rows = {mean, job.batch_size * job.padded_length, LARGE_BATCH}
    figures: dict[str, Any] = {}
    for dtype in (torch.float32, torch.bfloat16):
        rates = {m: _best_rate(m, width, dtype, job.device) for m in sorted(rows)}
        figures[str(dtype).removeprefix("torch.")] = {
            "products": [
                {"shape": [m, width, 4 * width], "flops_per_second": rate}
                for m, rate in rates.items()
            ],
            "flops_per_second": max(rates.values()),
        }
    return figures


def _best_rate(m: int, width: int, dtype: torch.dtype, device: str) -> float:
    """Return the FLOPs a second of the fastest of the three products of one layer."""
    x = torch.randn(m, width, device=device, dtype=dtype)
    weight = torch.randn(4 * width, width, device=device, dtype=dtype)
    y = torch.randn(m, 4 * width, device=device, dtype=dtype)
    products = (lambda: F.linear(x, weight), lambda: y @ weight, lambda: y.T @ x)
    return max(2 * m * 4 * width**2 / _fastest(product, device) for product in products)


def _fastest(product: Any, device: str) -> float:
    best = float("inf")
    end = time.perf_counter() + MATMUL_SECONDS
    while (start := time.perf_counter()) < end:
        result: Tensor = product()
        if device != "cpu":
            result[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return best
