"""The table of what several GPUs hold each: real shapes, and what the page shows of them."""

from pathlib import Path

import pytest
import torch

from benchmarks.memory import Shape, classifier
from benchmarks.sharded import METHODS, SHAPES, WORLDS, plan, rows

PUBLISHED = {
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616 - 32_000 * 4096,  # its output layer
    "meta-llama/Llama-2-13b-hf": 13_015_864_320 - 32_000 * 5120,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192 - 32_000 * 8192,
}
"""Parameters without heads."""


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_shapes_have_the_published_numbers_of_parameters(shape: Shape) -> None:
    with torch.device("meta"):
        base = classifier(shape).base_model
    assert sum(p.numel() for p in base.parameters()) == PUBLISHED[shape.name]


def test_state_is_shared_out_and_methods_are_ordered() -> None:
    found = {method: plan(SHAPES[0], method)[0] for method in METHODS}
    full = found["full"]
    assert 16 * PUBLISHED[SHAPES[0].name] < full[0] < 16.01 * PUBLISHED[SHAPES[0].name]
    for state in found.values():
        for world, held in zip(WORLDS, state, strict=True):
            # The constants of 4 bit are on each.
            assert state[0] / world <= held < 1.2 * state[0] / world
    assert full[0] > 4 * found["LoRA"][0] > 5 * found["QLoRA"][0]


@pytest.mark.slow
def test_the_page_shows_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "gpus.md").read_text(encoding="utf-8")
    assert not [line for line in rows() if line not in page.splitlines()]
