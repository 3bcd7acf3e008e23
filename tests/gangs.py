"""Several real processes that train one model together, as gloo on loopback connects them."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as processes

from lora_compare.compute.ranks import Ranks, Strategy
from lora_compare.training.ranks.environment import on_loopback
from lora_compare.training.ranks.joining import group


def in_ranks(
    world: int, strategy: Strategy, work: Callable[..., Any], *arguments: Any
) -> list[Any]:
    """Return what `work(ranks, *arguments)` returns in each of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        processes.spawn(_work, (world, strategy, folder, work, arguments), nprocs=world)
        results = [Path(folder) / f"{rank}.pt" for rank in range(world)]
        return [torch.load(result, weights_only=False) for result in results]


def _work(
    rank: int, world: int, strategy: Strategy, folder: str, work: Callable[..., Any], arguments: Any
) -> None:
    torch.set_num_threads(1)
    on_loopback()
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    with group(strategy, f"{folder}/group") as ranks:
        assert isinstance(ranks, Ranks)
        torch.save(work(ranks, *arguments), Path(folder) / f"{rank}.pt")
        ranks.wait()
