"""The processes that train one model together, each of which is a rank, and what they exchange."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lora_compare.errors import KilledError

Strategy = Literal["single", "ddp", "fsdp"]

BACKEND = "cpu:gloo,cuda:nccl"
"""Who carries tensors: on a GPU NCCL, and gloo all that the processor itself has to know."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one model.

    Attributes:
        rank: Its number, from 0.
        world: How many there are.
        strategy: How they share the work: `single` is a process alone, in `ddp` each has the whole
            model, in `fsdp` each has a part of every weight.
    """

    rank: int = 0
    world: int = 1
    strategy: Strategy = "single"

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and reports."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether no process group is there to ask."""
        return self.strategy == "single"

    def share(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return this rank's part of some texts; the parts of all ranks are each text once."""
        return indices[self.rank :: self.world]

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum of every rank's tensor of this shape, on all ranks."""
        if not self.is_alone:
            torch.distributed.all_reduce(tensor)
        return tensor

    def most(self, number: int) -> int:
        """Return the largest of every rank's number, on all ranks."""
        if self.is_alone:
            return number
        shared = torch.tensor(number)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return int(shared)

    def wait(self) -> None:
        """Wait until every rank has come here."""
        self.most(0)


ALONE = Ranks()
"""The one process of a training that is not shared."""


@contextmanager
def naming_lost_ranks(ranks: Ranks) -> Iterator[None]:
    """Say that another rank has gone, where the block cannot reach it.

    Raises:
        KilledError: The connection to another rank broke, or it did not answer.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error).strip()
        # gloo raises plain errors that name its source, NCCL torch's DistError.
        known = "gloo" in said.lower() or isinstance(error, torch.distributed.DistError)
        if ranks.is_alone or not known:
            raise
        raise KilledError(
            "Another process of this training is gone.",
            where=f"rank {ranks.rank} of {ranks.world}",
            actual=said.splitlines()[0],
            next="look at what it said; then dvc repro",
        ) from error


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, as a view: of most tensors all."""
    # By its method, because the class takes a second to import, for which few need to wait.
    of_this_rank = getattr(tensor, "to_local", None)
    return of_this_rank() if of_this_rank else tensor
