"""What a training cost: time, throughput and memory."""

import resource
import sys
from pathlib import Path
from typing import Any

import torch

from lora_compare.training.loop import TrainingResult


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory in use so far, in bytes.

    On a GPU that is what tensors took there; on the CPU it is the resident memory of the whole
    process, libraries included.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would also count the shell's and DVC's memory before they became us.
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cost_figures(
    result: TrainingResult, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Return the content of a cost file; of a training without a step only its time is known.

    Args:
        result: The finished training, or one that had no step.
        device: Where it ran.
        dtype: Type of its arithmetic.
    """
    return {
        "train_seconds": round(result.seconds, 3),
        "examples_per_second": _rate(result.examples, result.seconds),
        "tokens_per_second": _rate(result.tokens, result.seconds),
        "peak_memory_bytes": peak_memory_bytes(device) if result.seconds else None,
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


def _rate(amount: int, seconds: float) -> float | None:
    return round(amount / seconds, 3) if seconds else None
