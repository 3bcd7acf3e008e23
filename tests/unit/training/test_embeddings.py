"""Training only the seen rows of an embedding equals training all of it."""

import numpy as np
import pytest
import torch
from torch import nn

from lora_compare.models.batches import Examples, collate
from lora_compare.models.gpt.network import GPT, Classifier, GPTConfig, initialise
from lora_compare.training.embeddings import SeenRows, seen_rows
from lora_compare.training.ranks.steps import optimizer_step

CONFIG = GPTConfig(vocab_size=90, context_length=16, n_layer=1, n_head=2, n_embd=16)


def texts(n: int = 12) -> Examples:
    random = np.random.default_rng(0)
    return Examples(
        [random.integers(0, 40, random.integers(1, 9)) for _ in range(n)], np.arange(n) % 2
    )


def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(initialise(GPT(CONFIG)), 2, "last_token").double()


def steps(model: Classifier, data: Examples, count: int = 10) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.2)
    for i in range(count):
        optimizer_step(model, [collate(data.take([i, i + 1]))], optimizer)


def test_seen_and_unseen_rows_end_where_the_whole_embedding_ends() -> None:
    whole, parts, data = classifier(), classifier(), texts()
    start = whole.gpt.wte.weight.detach().clone()
    steps(whole, data)
    with seen_rows(parts, [data]) as rest:
        assert isinstance(parts.gpt.wte, SeenRows)
        assert len(parts.gpt.wte.weight) < 40
        steps(parts, data)
        for _ in range(10):
            rest.decay(1 - 0.01 * 0.2)
    for a, b in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert not torch.equal(start[80:], whole.gpt.wte.weight[80:])


def test_the_embedding_is_whole_again_after_a_failure() -> None:
    model = classifier()
    table = model.gpt.wte
    with pytest.raises(RuntimeError, match="stop"), seen_rows(model, [texts()]):
        raise RuntimeError("stop")
    assert model.gpt.wte is table


def test_a_frozen_embedding_stays_as_it_is() -> None:
    model = classifier()
    model.gpt.wte.requires_grad_(False)
    with seen_rows(model, [texts()]):
        assert type(model.gpt.wte) is nn.Embedding
