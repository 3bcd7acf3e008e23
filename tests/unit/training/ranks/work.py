"""What a rank does in these tests; in a module of its own, as every rank imports it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_compare.compute.memory import planned_state
from lora_compare.compute.optimizers import Rates
from lora_compare.compute.ranks import Ranks, local
from lora_compare.lora import inject
from lora_compare.models.batches import Examples
from lora_compare.models.gpt.network import GPT, Classifier, GPTConfig, initialise
from lora_compare.params import TrainingParams
from lora_compare.project.progress import SILENT, Progress
from lora_compare.training import loop
from lora_compare.training.history import TrainingResult
from lora_compare.training.loop import train
from lora_compare.training.ranks.checkpoints import SharedCheckpoints
from lora_compare.training.ranks.strategies import gather, shard
from lora_settings import lora_settings

CPU = torch.device("cpu")

UNEVEN = {"epochs": 2, "batch_size": 8, "seeds": [1], "eval_every": 4}
"""Of 49 texts the last batch of an epoch has one, so that all ranks but the first have none."""

EVERYTHING = UNEVEN | {
    "gradient_accumulation_steps": 3,
    "max_grad_norm": 0.05,
    "class_weights": "balanced",
    "gradient_checkpointing": True,
    "keep": "best",
    "patience": 1,
}


def texts(n: int, seed: int = 0) -> Examples:
    """Texts of 2 to 9 tokens of two classes."""
    random = np.random.default_rng(seed)
    tokens = [random.integers(8, 38, random.integers(2, 10)) for _ in range(n)]
    return Examples(tokens, np.arange(n) % 2)


def model(method: str, dropout: float = 0.0) -> Classifier:
    """Return a small GPT whose sizes no number of ranks divides; `dropout` of the adapter."""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=41, context_length=16, n_layer=2, n_head=2, n_embd=18)
    found = Classifier(initialise(GPT(config)), 2, "last_token").double()
    if method != "full":
        inject(found, lora_settings(r=4, lora_alpha=8, lora_dropout=dropout))
    return found


def trained(
    ranks: Ranks,
    method: str,
    changes: Mapping[str, Any],
    checkpoints: SharedCheckpoints | None = None,
    dropout: float = 0.0,
) -> tuple[dict[str, Tensor], TrainingResult, dict[str, int]]:
    """Return the trained weights, whole in the first rank, how it went, and what was planned."""
    training = TrainingParams(**changes)
    found = model(method, dropout)
    found.checkpointing = training.gradient_checkpointing
    planned = planned_state(found, world=ranks.world)
    if ranks.strategy == "fsdp":
        shard(found, CPU, torch.float64)
    torch.manual_seed(7 + ranks.rank)  # of dropout
    how = training, Rates(0.01, 0.05), 1, torch.float64
    result = train(found, texts(49), texts(20, 1), *how, checkpoints=checkpoints, ranks=ranks)
    gather(found, ranks)
    named = found.named_parameters()
    return {n: local(p.detach()) for n, p in named if p.requires_grad}, result, planned


def all_cases(ranks: Ranks, cases: list[tuple[str, Any, Mapping[str, Any]]]) -> list[Any]:
    """Return what `trained` returns for each method, strategy and settings."""
    return [trained(replace(ranks, strategy=s), m, changes) for m, s, changes in cases]


class CutOffError(Exception):
    """Stands for the end of all processes."""


class Announced(Progress):
    """Collects what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def cut_off(
    ranks: Ranks, folder: Path, method: str, changes: Mapping[str, Any], steps: int, dropout: float
) -> None:
    """Train so many steps, with a checkpoint after each, and no further."""
    original: Callable[..., Tensor] = loop.optimizer_step
    left = steps

    def step(*arguments: Any) -> Tensor:
        nonlocal left
        if not left:
            raise CutOffError
        left -= 1
        return original(*arguments)

    loop.optimizer_step = step
    checkpoints = SharedCheckpoints(folder, {"method": method}, 0, SILENT, ranks)
    try:
        trained(ranks, method, changes, checkpoints, dropout)
    except CutOffError:
        return
    finally:
        loop.optimizer_step = original


def go_on(
    ranks: Ranks,
    folder: Path,
    method: str,
    changes: Mapping[str, Any],
    dropout: float,
    facts: str = "",
) -> tuple[list[str], dict[str, Tensor], TrainingResult]:
    """Return what is said, and the weights, of a training that has a checkpoint."""
    announced = Announced()
    checkpoints = SharedCheckpoints(folder, {"method": facts or method}, None, announced, ranks)
    weights, result, _ = trained(ranks, method, changes, checkpoints, dropout)
    return announced.said, weights, result


def cut_off_and_go_on(
    ranks: Ranks, folder: Path, method: str, changes: Mapping[str, Any], steps: int, dropout: float
) -> tuple[Any, Any]:
    """Return the weights of a training that is not cut off, and `go_on` of one that is."""
    whole = trained(ranks, method, changes, None, dropout)[0]
    cut_off(ranks, folder, method, changes, steps, dropout)
    return whole, go_on(ranks, folder, method, changes, dropout)
