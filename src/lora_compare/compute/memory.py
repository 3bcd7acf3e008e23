"""How many bytes a computation holds: its tensors exactly, its process as the system sees it."""

import resource
import sys
import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from lora_compare.compute.ranks import local


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes that tensors hold, each storage once however many tensors share it.

    A quantised weight counts as it is stored, a view as the whole that it keeps alive.
    """
    return sum(_storages(tensors).values())


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Return the bytes of every storage by what tells it from others, on `meta` too."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {storage._cdata: storage.nbytes() for storage in storages}


def held_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield what a model holds here: parameters, buffers, and the constants of weights in 4 bit.

    Of a sharded parameter that is this process's part.
    """
    yield from model.buffers()
    for parameter in model.parameters():
        yield local(parameter)
        state = getattr(parameter, "quant_state", None)
        while state is not None:  # the constants are quantised, too, with constants of their own
            yield from (value for value in vars(state).values() if isinstance(value, Tensor))
            state = state.state2


def planned_state(
    model: nn.Module, in_four_bit: Iterable[Tensor] = (), world: int = 1
) -> dict[str, int]:
    """Return the bytes that training a model with AdamW will hold beside activations.

    Args:
        model: What requires a gradient is trained; it may be on `meta`.
        in_four_bit: The weights that QLoRA will hold in 4 bit.
        world: Over how many processes every parameter is sharded; buffers and the constants of
            4 bit are not.

    Returns:
        Bytes of `weights`, `gradients` and `optimizer` in the process that holds most.

    Checked by tests/unit/compute/test_memory.py against trainings, and sharded by
    tests/unit/training/ranks/test_strategies.py.
    """
    packed = {id(weight): nf4_bytes(weight.numel(), world) for weight in in_four_bit}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = sum(_sharded(parameter, world) for parameter in trained)
    plain = sum(_sharded(p, world) for p in model.parameters() if id(p) not in packed)
    return {
        "weights": storage_bytes(model.buffers()) + plain + sum(packed.values()),
        "gradients": gradients,
        # Two averages, and the number of steps, of each parameter.
        "optimizer": 2 * gradients + 4 * len(trained),
    }


def _sharded(parameter: Tensor, world: int) -> int:
    """Return the bytes of the largest of as many runs of rows."""
    rows = len(parameter) if parameter.ndim else 1
    return -(-rows // world) * (parameter.nbytes // rows)


def nf4_bytes(n: int, world: int = 1) -> int:
    """Return the bytes of n weights in 4-bit NormalFloat whose constants are quantised, too.

    Blocks of 64 weights have a constant of a byte, blocks of 256 constants one of four; there
    are tables of 16 and of 256 values, and an offset. Of the packed weights, two in a byte, each of
    `world` processes has its part; all else is in each.

    Source: Dettmers et al. 2023, arXiv:2305.14314, section 3, as bitsandbytes stores it.
    """
    constants = -(-n // 64)
    packed = -(-n // 2)
    return -(-packed // world) + constants + 4 * (-(-constants // 256) + 16 + 256 + 1)


class Saved:
    """Counts, within a block, the bytes that autograd keeps of forward passes for their backward.

    The tensors are handed on as they are: no bit of a result changes. With checkpointed blocks,
    what a backward pass computes again is not among them.

    Args:
        known: Tensors that are held anyway, such as parameters: not counted; more may be added
            within the block.

    Attributes:
        peak: After the block, the most bytes that were kept at once.

    Checked by tests/unit/compute/test_memory.py against torch's own account of memory.
    """

    def __init__(self, known: Collection[Tensor]) -> None:
        self.peak = 0
        self._known = known
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
        known = _storages(map(local, self._known))
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
