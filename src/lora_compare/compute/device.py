"""The machine: where a model computes, in what arithmetic, and how memory is given back."""

import ctypes
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lora_compare.compute.precision import choose_precision
from lora_compare.errors import ParamsError
from lora_compare.params import TrainingParams

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""The names of glibc's malloc.h."""

LARGEST = 32 * 2**20
"""Bytes; glibc takes no larger threshold."""


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next tensors.

    A training frees and allocates the same tensors at every step. By default glibc returns
    large ones to the system, which then clears every page anew when it is touched: up to a
    fifth of the time of full fine-tuning (docs/decisions/0007). Other C libraries have no such
    setting, and nothing is done.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 2 * LARGEST)


@dataclass(frozen=True)
class Machine:
    """What a stage computes with; the bits of its results depend on all of it.

    Attributes:
        device: Where it computes.
        dtype: Type of the arithmetic.
        threads: CPU threads of torch.
    """

    device: torch.device
    dtype: torch.dtype
    threads: int

    def describe(self) -> dict[str, Any]:
        """Return the machine in words and numbers, for a provenance: plain JSON values."""
        cuda = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            "cuda": torch.version.cuda if cuda else None,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": self.threads,
        }


def processor() -> str:
    """Return the name of the CPU, such as `AMD EPYC`; "unknown" where the system tells none."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor()) or "unknown"


def choose_machine(training: TrainingParams, width: int) -> Machine:
    """Return what the settings ask for here, with the threads that `make_deterministic` has set.

    Args:
        training: Device and precision.
        width: Width of the network's residual stream.

    Raises:
        ParamsError: The named device is not available.
    """
    device = choose_device(training.device)
    dtype = choose_precision(training.precision, device, width)
    return Machine(device, dtype, torch.get_num_threads())


def choose_device(name: str) -> torch.device:
    """Return the device of that name, or for `auto` the best that works here.

    `auto` takes cuda, else mps with torch 2.9 or newer (older ones give wrong results), else
    cpu.

    Raises:
        ParamsError: The named device is not available.
    """
    torch_version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available() and torch_version >= (2, 9),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available[name]:
        raise ParamsError(
            f"The device {name} is not available.",
            where="params.yaml: training.device",
            expected="auto, or " + " or ".join(kind for kind, there in available.items() if there),
            actual=name,
            next="set training.device to auto; lora-compare doctor says why there is none",
        )
    return torch.device(name)
