"""What a device holds at most, and when it is done."""

import gc

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
