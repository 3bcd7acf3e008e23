"""The network: its size, its causality, and which position it classifies."""

import pytest
import torch

from lora_compare.models.gpt.network import CONFIGS, GPT, Classifier, GPTConfig, initialise

SMALL = GPTConfig(vocab_size=50, context_length=16, n_layer=2, n_head=2, n_embd=8)

# OpenAI's checkpoints by formula: vocabulary, positions, and per layer 12 d^2 + 13 d.
BASE_PARAMETERS = {
    "gpt2-small": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
}


def classifier(position: str = "last_token", n_classes: int = 2) -> Classifier:
    torch.manual_seed(0)
    return Classifier(initialise(GPT(SMALL)), n_classes, position).double().eval()


@pytest.mark.parametrize(("name", "parameters"), BASE_PARAMETERS.items())
def test_sizes_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        gpt = GPT(CONFIGS[name])
    assert sum(p.numel() for p in gpt.parameters()) == parameters


def test_gpt2_small_with_a_head_for_two_classes_has_the_books_size() -> None:
    with torch.device("meta"):
        model = Classifier(GPT(CONFIGS["gpt2-small"]), 2, "last_token")
    assert sum(p.numel() for p in model.parameters()) == 124_441_346


def test_gpt2_nano_has_about_a_million_parameters() -> None:
    with torch.device("meta"):
        gpt = GPT(CONFIGS["gpt2-nano"])
    assert 0.9e6 < sum(p.numel() for p in gpt.parameters()) < 1.2e6


def test_a_position_does_not_see_what_follows() -> None:
    gpt = classifier().gpt
    tokens = torch.randint(0, 50, (1, 10))
    changed = tokens.clone()
    changed[0, 6:] = (changed[0, 6:] + 1) % 50
    before, after = gpt(tokens), gpt(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("position", ["last_token", "first", "mean"])
def test_padding_and_neighbours_do_not_change_a_texts_logits(position: str) -> None:
    model = classifier(position)
    torch.manual_seed(1)
    texts = [torch.randint(0, 50, (n,)) for n in (3, 7, 1)]
    alone = torch.cat([model(t[None], torch.tensor([len(t)])) for t in texts])
    for width in (7, 12):
        padded = torch.full((3, width), 49)
        for row, text in zip(padded, texts, strict=True):
            row[: len(text)] = text
        together = model(padded, torch.tensor([3, 7, 1]))
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


def test_last_position_classifies_the_padding_as_the_book_does() -> None:
    model = classifier("last_position")
    padded = torch.tensor([[1, 2, 3, 49, 49]])
    by_hand = model.score(model.gpt(padded)[:, -1])
    assert torch.equal(model(padded, torch.tensor([3])), by_hand)
    assert not torch.allclose(by_hand, model(padded[:, :3], torch.tensor([3])))


def test_mean_is_over_the_texts_own_tokens() -> None:
    model = classifier("mean")
    tokens = torch.tensor([[1, 2, 3, 49, 49]])
    by_hand = model.score(model.gpt(tokens)[:, :3].mean(dim=1))
    torch.testing.assert_close(model(tokens, torch.tensor([3])), by_hand)


def test_initial_weights_have_gpt2s_spread() -> None:
    torch.manual_seed(0)
    gpt = initialise(GPT(GPTConfig(500, 64, 2, 2, 64)))
    assert gpt.wte.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert gpt.h[0].mlp.c_proj.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert gpt.h[0].mlp.c_fc.bias.abs().max() == 0
    assert torch.equal(gpt.ln_f.weight, torch.ones(64))
