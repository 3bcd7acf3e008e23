"""The steps that are timed beside transformers' Trainer: both do the same work."""

from typing import Any

import pytest
import torch

from benchmarks import architectures
from benchmarks.architectures import BATCH, WHO, network, texts

TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": architectures.VOCABULARY,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
STEPS = 3

# PEFT asks transformers by an older name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


def run(who: str, method: str) -> tuple[Any, list[float]]:
    model = network("bert", **TINY)
    return model, WHO[who](model, method, texts(STEPS))


def test_both_train_to_the_same_weights() -> None:
    (first, own), (second, other) = run("ours", "full"), run("theirs", "full")
    assert len(own) == len(other) == STEPS
    start = network("bert", **TINY).state_dict()
    expected = second.state_dict()
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=2e-6)
    assert not torch.allclose(first.classifier.weight, start["classifier.weight"], atol=1e-4)


def test_both_train_the_same_number_of_weights_with_lora() -> None:
    counts = []
    for who in WHO:
        model, seconds = run(who, "lora")
        counts.append(sum(p.numel() for p in model.parameters() if p.requires_grad))
        assert len(seconds) == STEPS
    assert counts[0] == counts[1]


def test_a_third_of_a_batch_is_padding() -> None:
    lengths = texts(200).lengths.reshape(-1, BATCH)
    assert 0.25 < 1 - lengths.mean() / lengths.max(axis=1).mean() < 0.4
