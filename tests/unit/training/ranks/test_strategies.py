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
    ("world", "cases"), [(2, TWO), pytest.param(3, THREE, marks=pytest.mark.slow)]
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
    for case, *of_ranks in zip(cases, *ranks, strict=True):
        if case[1] == "fsdp":
            held = [
                {part: n for part, n in result.state.items() if part != "activations"}
                for _, result, _ in of_ranks
            ]
            planned = of_ranks[0][2]
            assert held[0] == planned
            # The last ones may have averages of fewer rows; weights are filled up to as many.
            assert all(0.8 * n < other[part] <= n for other in held for part, n in planned.items())
