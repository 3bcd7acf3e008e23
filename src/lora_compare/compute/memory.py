"""How many bytes a computation holds: its tensors exactly, its process as the system sees it."""

import resource
import sys
import weakref
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes that tensors hold, each storage once however many tensors share it.

    A quantised weight counts as it is stored, a view as the whole that it keeps alive.
    """
    return sum(_storages(tensors).values())


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Return the bytes of every storage by what tells it from others, on `meta` too."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {storage._cdata: storage.nbytes() for storage in storages}


class Saved:
    """Counts, within a block, the bytes that autograd keeps of forward passes for their backward.

    The tensors are handed on as they are: no bit of a result changes. With checkpointed blocks,
    what a backward pass computes again is not among them.

    Args:
        known: Tensors that are held anyway, such as parameters: not counted.

    Attributes:
        peak: After the block, the most bytes that were kept at once.

    Checked by tests/unit/compute/test_memory.py against torch's own account of memory.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        self.peak = 0
        self._known = list(known)
        self._holders: Counter[int] = Counter()
        self._changes: list[tuple[int, int]] = []
        self._hooks = saved_tensors_hooks(self._keep, lambda kept: kept.tensor)

    def __enter__(self) -> Self:
        """Begin to count."""
        self._hooks.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Count no further."""
        self._hooks.__exit__(kind, error, trace)
        # Not before: a first forward pass moves frozen weights next to each other, elsewhere.
        known = _storages(self._known)
        changes = (change for storage, change in self._changes if storage not in known)
        self.peak = max(accumulate(changes), default=0)

    def _keep(self, tensor: Tensor) -> "_Kept":
        kept, storage = _Kept(tensor), tensor.untyped_storage()
        key, n_bytes = storage._cdata, storage.nbytes()
        self._holders[key] += 1
        if self._holders[key] == 1:
            self._changes.append((key, n_bytes))
        weakref.finalize(kept, self._release, key, n_bytes).atexit = False
        return kept

    def _release(self, key: int, n_bytes: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            self._changes.append((key, -n_bytes))


class _Kept:
    """A tensor that autograd keeps; it goes when the backward pass has used it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


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
