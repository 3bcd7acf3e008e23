"""The table of what large models need in memory: real shapes, and what the page shows of them."""

from pathlib import Path

import pytest
import torch

from benchmarks.memory import METHODS, SHAPES, Shape, classifier, plan, row

PUBLISHED = {
    "google-bert/bert-base-uncased": 109_482_240,
    "answerdotai/ModernBERT-base": 149_014_272,
    "FacebookAI/xlm-roberta-large": 559_890_432 - 1_049_600,  # its pooler is not used
    "Qwen/Qwen3-0.6B": 596_049_920,
    "google/gemma-3-1b-pt": 999_885_952,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096 - 32_000 * 4096,  # its output layer
    "meta-llama/Llama-3.1-8B": 8_030_261_248 - 128_256 * 4096,
}
"""Parameters without heads."""


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_shapes_have_the_published_numbers_of_parameters(shape: Shape) -> None:
    with torch.device("meta"):
        base = classifier(shape).base_model
    assert sum(p.numel() for p in base.parameters()) == PUBLISHED[shape.name]


def test_methods_are_ordered_as_the_table_says() -> None:
    found = [plan(SHAPES[0], method) for method in METHODS]
    states = [sum(f[k] for k in ("weights", "gradients", "optimizer")) for f in found]
    assert 16 * found[0]["trained"] <= states[0] < 16.01 * found[0]["trained"]
    assert 3.7 * states[1] < states[0]
    assert 2.5 * states[2] < states[1]


@pytest.mark.slow
def test_the_page_shows_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for shape in SHAPES:
        assert row(shape) in page.splitlines()
