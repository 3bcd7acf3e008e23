"""Packed texts: the same logits and gradients as padded ones, with none of their work."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_compare.lora import adapted_layers, inject
from lora_compare.models.batches import Examples, collate, pack
from lora_compare.models.classifier import Padding
from lora_compare.models.gpt.network import GPT, Classifier, GPTConfig, Position, initialise
from lora_settings import lora_settings

CONFIG = GPTConfig(vocab_size=50, context_length=24, n_layer=3, n_head=2, n_embd=16)

LENGTHS = (7, 1, 12, 12, 3, 1)

METHODS = ["full", "lora", "last_block"]


def texts() -> Examples:
    random = np.random.default_rng(0)
    return Examples([random.integers(0, 49, n) for n in LENGTHS], np.arange(len(LENGTHS)) % 2)


def classifier(position: Position, method: str) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(initialise(GPT(CONFIG)), 2, position).double()
    if method == "lora":
        inject(model, lora_settings(r=3))
        for _, layer in adapted_layers(model):
            nn.init.normal_(layer.adapters["default"].lora_B, std=0.1)
    if method == "last_block":
        model.requires_grad_(False)
        model.gpt.h[-1].requires_grad_(True)
    return model


def padded(data: Examples, width: int) -> tuple[Tensor, Tensor]:
    rows = [Padding(49, width).pad(tokens) for tokens in data.tokens]
    return torch.from_numpy(np.stack(rows)), torch.from_numpy(data.lengths)


def outcome(model: Classifier, logits: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    F.cross_entropy(logits, labels).backward()
    return logits, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("position", ["last_token", "first", "mean", "last_position"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_texts_give_the_logits_and_gradients_of_padded_ones(
    position: Position, method: str, checkpointing: bool
) -> None:
    model = classifier(position, method)
    model.gpt.checkpointing = checkpointing
    data, labels = texts(), torch.from_numpy(texts().labels)
    batch = padded(data, 14)
    expected, expected_grads = outcome(model, model(*batch), labels)
    if position == "last_position":
        data = Examples(list(batch[0].numpy()), data.labels)
    logits, grads = outcome(model, model.of_packed(collate(data).texts), labels)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    # What a text of one token, or a wanted row, does not reach has no gradient rather than zeros.
    for name, gradient in expected_grads.items():
        found = grads.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(found, gradient, rtol=0, atol=1e-10)


def test_a_text_is_untouched_by_its_neighbours() -> None:
    model, data = classifier("last_token", "full"), texts()
    together = model.of_packed(pack(data.tokens))
    alone = torch.cat([model.of_packed(pack([tokens])) for tokens in data.tokens])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_the_last_blocks_feed_forward_part_sees_the_last_tokens_only() -> None:
    model, seen = classifier("last_token", "full"), []
    for block in model.gpt.h:
        block.mlp.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    model.of_packed(pack(texts().tokens))
    assert seen == [sum(LENGTHS), sum(LENGTHS), len(LENGTHS)]


def test_nothing_below_the_lowest_trained_layer_has_a_gradient() -> None:
    model = classifier("last_token", "last_block")
    states: list[Tensor] = []
    for block in model.gpt.h:
        block.register_forward_hook(lambda _, __, output: states.append(output))
    model.of_packed(pack(texts().tokens))
    assert [state.requires_grad for state in states] == [False, False, True]


def test_a_packed_text_does_not_change_the_weights() -> None:
    model = classifier("last_token", "lora")
    before = copy.deepcopy(model.state_dict())
    model.of_packed(pack(texts().tokens)).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
