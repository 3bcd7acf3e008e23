"""Padded and recorded passes: the losses and gradients of packed texts."""

import gc
from pathlib import Path
from weakref import ref

import numpy as np
import pytest
import torch

from lora_compare.lora import inject
from lora_compare.models.batches import Batch, Examples, collate, padded
from lora_compare.models.gpt.network import GPT, Classifier, GPTConfig, Position, initialise
from lora_compare.models.losses import RecordedLoss, packed_loss, padded_width
from lora_settings import lora_settings
from tiny_bases import HEAD, SEED, examples, load
from unit.compute.test_graphs import Repeated

CONFIG = GPTConfig(vocab_size=40, context_length=80, n_layer=2, n_head=2, n_embd=16)


def classifier(method: str, position: Position) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(initialise(GPT(CONFIG)), 3, position)
    if method == "lora":
        inject(model, lora_settings(r=4, lora_alpha=8))
    return model.double()


def batches(position: Position) -> list[Batch]:
    """Batches of several widths, one of fewer texts; `last_position` has texts of one length."""
    random, found = np.random.default_rng(0), []
    for n, longest in ((6, 9), (6, 70), (4, 40)):
        lengths = random.integers(1, longest, n) if position != "last_position" else [70] * n
        texts = [random.integers(0, 40, length) for length in lengths]
        found.append(collate(Examples(texts, np.arange(n) % 3)))
    return found


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("position", ["last_token", "last_position", "first", "mean"])
def test_recorded_passes_equal_packed_ones(method: str, position: Position) -> None:
    model, twin = classifier(method, position), classifier(method, position)
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    recorded = RecordedLoss(model, 70, torch.float64, weights, Repeated())
    for batch in batches(position):
        loss = recorded(batch, 7.5)
        expected = packed_loss(twin.of_packed, batch, 7.5, torch.float64, weights)
        torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    for (name, one), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        if other.grad is None:
            assert one.grad is None or not one.grad.any(), name
        else:
            torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-12, msg=name)


def test_recordings_end_with_what_plays_them_not_with_the_garbage() -> None:
    model, batch = classifier("full", "last_token"), batches("last_token")[0]
    recorded = RecordedLoss(model, 70, torch.float64, capture=Repeated())
    recorded(batch, 6)
    ended = ref(recorded._recorded)
    gc.disable()
    try:
        del recorded
        assert ended() is None
    finally:
        gc.enable()


def test_bfloat16_leaves_the_head_in_full_precision() -> None:
    model = classifier("full", "last_token").float()
    batch = batches("last_token")[1]
    tokens, lengths, _ = padded(batch, 80)
    with torch.autocast("cpu", torch.bfloat16):
        found, packed = model.of_padded(tokens, lengths), model.of_packed(batch.texts)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, packed, rtol=0, atol=0.02)


def test_widths_are_few_and_no_wider_than_the_longest_text() -> None:
    found = {padded_width(length, 120) for length in range(1, 121)}
    assert found == {32, 64, 120}
    assert all(padded_width(length, 120) >= length for length in range(1, 121))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_models_of_transformers_take_padded_texts(architecture: str, root: Path) -> None:
    base = load(architecture, root)
    model = base.new_classifier(3, HEAD, SEED).eval()
    batch = collate(examples(base).cut(30)[0].take(range(8)))
    tokens, lengths, _ = padded(batch, 32)
    with torch.no_grad():
        found, packed = model.of_padded(tokens, lengths), model.of_packed(batch.texts)
    torch.testing.assert_close(found, packed, rtol=0, atol=1e-5)
