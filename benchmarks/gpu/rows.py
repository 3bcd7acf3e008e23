"""One implementation's figures, or what it failed with; and what a device holds at most."""

import gc
import traceback
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.machine import peak_memory_bytes


class Watched:
    """A device whose peak of memory is watched from now on.

    Args:
        device: `cpu` or `cuda`.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def wait(self) -> None:
        """Wait until all that was launched is done."""
        if self._device == "cuda":
            torch.cuda.synchronize()

    def peak(self) -> int:
        """Return the most bytes held so far, on a GPU those of recordings included."""
        if self._device == "cuda":
            return torch.cuda.max_memory_reserved()
        return peak_memory_bytes(self._device)


def row(method: str, implementation: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what `measure` does, or `failed`: one that fails does not end the comparison.

    Args:
        method: `lora` or `full`.
        implementation: Whose figures they are.
        measure: Takes them.
    """
    named = {"method": method, "implementation": implementation}
    try:
        return named | measure()
    except Exception as error:
        traceback.print_exc()
        return named | {"failed": f"{type(error).__name__}: {error}"[:500]}
