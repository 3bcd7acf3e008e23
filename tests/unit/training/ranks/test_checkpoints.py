"""A training that several ranks share goes on, with as many ranks or with others."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gangs import in_ranks
from unit.training.ranks.work import EVERYTHING, UNEVEN, cut_off, cut_off_and_go_on, go_on, trained

pytestmark = pytest.mark.slow

CASES = [
    ("full", "fsdp", UNEVEN, 5, 0.0),
    ("lora", "fsdp", UNEVEN | {"keep": "best"}, 9, 0.3),
    ("lora", "ddp", EVERYTHING, 3, 0.0),
]


@pytest.mark.parametrize(("method", "strategy", "changes", "steps", "dropout"), CASES)
def test_as_many_ranks_go_on_to_the_same_bytes(
    method: str, strategy: Any, changes: Any, steps: int, dropout: float, tmp_path: Path
) -> None:
    how = tmp_path / "state", method, changes, steps, dropout
    whole, (said, weights, _) = in_ranks(2, strategy, cut_off_and_go_on, *how)[0]
    assert said == [f"go on after step {steps}, from {tmp_path / 'state'}"]
    assert all(torch.equal(weights[name], weight) for name, weight in whole.items())
    assert [path.name for path in (tmp_path / "state").iterdir()] == [f"{steps:09}"]


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (3, 1)])
def test_another_number_of_ranks_goes_on_to_the_same_result(
    before: int, after: int, tmp_path: Path
) -> None:
    for method, changes in (("full", UNEVEN), ("lora", EVERYTHING | {"patience": None})):
        how = tmp_path / method, method, changes
        in_ranks(before, "fsdp", cut_off, *how, 3, 0.0)
        said, weights, _ = in_ranks(after, "fsdp", go_on, *how, 0.0)[0]
        assert "go on after step 3" in said[0]
        whole = in_ranks(1, "fsdp", trained, method, changes)[0][0]
        for name, weight in whole.items():
            torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("damage", ["head", "metadata", "part", "facts"])
def test_a_state_that_is_damaged_or_of_another_training_is_not_used(
    damage: str, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    in_ranks(2, "fsdp", cut_off, folder, "full", UNEVEN, 3, 0.0)
    state = folder / f"{3:09}"
    files = {"head": "head.json", "metadata": ".metadata", "part": "__1_0.distcp"}
    if damage in files:
        content = (state / files[damage]).read_bytes()
        (state / files[damage]).write_bytes(content[: len(content) // 2])
    facts = "another" if damage == "facts" else ""
    said, weights, _ = in_ranks(2, "fsdp", go_on, folder, "full", UNEVEN, 0.0, facts)[0]
    expected = "method was full, is another" if damage == "facts" else "is damaged and not used"
    assert len(said) == 1
    assert expected in said[0]
    whole = in_ranks(2, "fsdp", trained, "full", UNEVEN)[0][0]
    assert all(torch.equal(weights[name], weight) for name, weight in whole.items())
