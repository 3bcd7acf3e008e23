"""Two and three real processes train what one trains: DDP and FSDP2, full and LoRA."""

from typing import Any

import pytest
import torch

from gangs import in_ranks
from lora_compare.compute.optimizers import Rates
from lora_compare.compute.ranks import ALONE, Ranks
from lora_compare.training.history import TrainingResult
from lora_compare.training.loop import train
from lora_compare.training.ranks.strategies import gather, shard
from unit.training.test_loop import SEED, model, settings, texts

CPU = torch.device("cpu")

UNEVEN = {"epochs": 2, "batch_size": 8}
"""49 texts: the last batch of an epoch has one, so all ranks but the first have none of it."""

CASES: list[dict[str, Any]] = [
    UNEVEN,
    UNEVEN | {"gradient_accumulation_steps": 3, "max_grad_norm": 0.05, "class_weights": "balanced"},
    UNEVEN | {"gradient_checkpointing": True, "keep": "best", "patience": 1},
]


def trained(ranks: Ranks, method: str, changes: dict[str, Any]) -> tuple[Any, TrainingResult]:
    """Return the weights of a training in float64, whole, and how it went."""
    training = settings(**changes)
    found = model(method).double()
    found.checkpointing = training.gradient_checkpointing
    if ranks.strategy == "fsdp":
        shard(found, CPU, torch.float64)
    data = texts(49), texts(20, 1)
    result = train(found, *data, training, Rates(0.01, 0.01), SEED, torch.float64, ranks=ranks)
    gather(found, ranks)
    weights = {n: p.detach() for n, p in found.named_parameters() if p.requires_grad}
    return weights if ranks.is_first else None, result


def all_cases(ranks: Ranks, method: str) -> list[Any]:
    return [trained(ranks, method, changes) for changes in CASES]


@pytest.mark.parametrize(
    ("method", "strategy", "world"),
    [("full", "fsdp", 2), ("lora", "ddp", 3), ("lora", "fsdp", 3), ("full", "ddp", 2)],
)
def test_ranks_train_what_one_process_trains(method: str, strategy: Any, world: int) -> None:
    expected = all_cases(ALONE, method)
    found = in_ranks(world, strategy, all_cases, method)
    for (weights, result), (same, alone) in zip(found[0], expected, strict=True):
        assert weights.keys() == same.keys()
        for name, weight in same.items():
            torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-10)
        assert [r.step for r in result.history] == [r.step for r in alone.history]
        for a, b in zip(result.history, alone.history, strict=True):
            assert a.validation_loss == pytest.approx(b.validation_loss, abs=1e-10)
            assert a.train_loss == pytest.approx(b.train_loss, abs=1e-10)
        assert (result.examples, result.tokens) == (alone.examples, alone.tokens)
