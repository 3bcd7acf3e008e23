"""Two and three real processes train what one trains, and hold what is planned."""

from typing import Any

import pytest
import torch

from gangs import in_ranks
from lora_compare.compute.ranks import ALONE
from unit.training.ranks.work import EVERYTHING, UNEVEN, all_cases

TWO = [("full", "fsdp", UNEVEN), ("lora", "fsdp", EVERYTHING), ("lora", "ddp", UNEVEN)]

THREE = [(m, s, c) for m in ("full", "lora") for s in ("fsdp", "ddp") for c in (UNEVEN, EVERYTHING)]


@pytest.mark.parametrize(
    ("world", "cases"),
    [
        (2, TWO[1:2]),
        pytest.param(2, TWO, marks=pytest.mark.slow),
        pytest.param(3, THREE, marks=pytest.mark.slow),
    ],
)
def test_ranks_train_what_one_process_trains(world: int, cases: list[Any]) -> None:
    ranks = in_ranks(world, "fsdp", all_cases, cases)
    alone = all_cases(ALONE, [(method, "single", changes) for method, _, changes in cases])
    for (weights, result, _), (same, expected, _) in zip(ranks[0], alone, strict=True):
        assert weights.keys() == same.keys()
        for name, weight in same.items():
            torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-10)
        for row, expected_row in zip(result.history, expected.history, strict=True):
            assert row.to_dict() == pytest.approx(expected_row.to_dict(), rel=0, abs=1e-10)
        assert (result.examples, result.tokens) == (expected.examples, expected.tokens)
    for case, (_, _, whole), *of_ranks in zip(cases, alone, *ranks, strict=True):
        if case[1] == "fsdp":
            weights, _, planned = of_ranks[0]
            held = [result.state for _, result, _ in of_ranks]
            assert all(state["weights"] == planned["weights"] for state in held)
            assert all(state["gradients"] == planned["gradients"] for state in held)
            assert held[0]["optimizer"] == planned["optimizer"]
            # All ranks' averages are those of one process; each rank counts its own steps.
            counters = 4 * len(weights)
            averages = sum(state["optimizer"] - counters for state in held)
            assert averages == whole["optimizer"] - counters
