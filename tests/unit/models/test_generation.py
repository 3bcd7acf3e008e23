"""Text generation: with a cache the same text as without, and reproducible draws."""

import pytest
import torch
from torch import Tensor, nn

from lora_compare.compute.seeding import seeded
from lora_compare.errors import PromptError
from lora_compare.models.attention import KeyValueCache
from lora_compare.models.generation import continuation, generate, greedy, sampling
from lora_compare.models.network import GPT, GPTConfig, initialise
from lora_compare.models.tokenizer import train_encoding

CONFIG = GPTConfig(vocab_size=50, context_length=24, n_layer=3, n_head=3, n_embd=24)


@pytest.fixture(scope="module")
def gpt() -> GPT:
    """A network with attention far from uniform, so that every position's sight matters."""
    model = GPT(CONFIG).double()
    with seeded(1), torch.no_grad():
        for name, parameter in model.named_parameters():
            # Biases as large would drown the tokens, and every text would repeat one.
            parameter.normal_(std=0.05 if name.endswith("bias") else 0.3)
            if "ln_" in name and name.endswith("weight"):
                parameter.add_(1)
    return model


def tokens(batch: int, length: int) -> Tensor:
    with seeded(batch * 100 + length):
        return torch.randint(CONFIG.vocab_size, (batch, length))


@pytest.mark.parametrize("pieces", [[24], [1, 23], [8, 8, 8], [5, 1, 1, 17], [1] * 24, [23, 1]])
def test_pieces_through_the_cache_equal_the_whole(gpt: GPT, pieces: list[int]) -> None:
    text = tokens(3, 24)
    caches = [KeyValueCache() for _ in gpt.h]
    together = torch.cat([gpt(piece, caches) for piece in text.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(together, gpt(text), rtol=0, atol=1e-12)
    assert {cache.length for cache in caches} == {24}


def test_gradients_flow_through_the_cache_as_without_it(gpt: GPT) -> None:
    text = tokens(2, 10)
    whole = torch.autograd.grad(gpt(text)[:, -1].square().sum(), list(gpt.parameters()))
    caches = [KeyValueCache() for _ in gpt.h]
    last = [gpt(piece, caches) for piece in text.split(4, dim=1)][-1][:, -1]
    cached = torch.autograd.grad(last.square().sum(), list(gpt.parameters()))
    for one, other in zip(cached, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("settings", [None, {}, {"temperature": 0.7}, {"top_k": 5}])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 9), (4, 4)])
def test_cached_text_equals_text_computed_anew(
    gpt: GPT, batch: int, length: int, settings: dict[str, float] | None
) -> None:
    def text(cached: bool) -> Tensor:
        choose = greedy if settings is None else sampling(7, **settings)
        return generate(gpt, tokens(batch, length), 24 - length, choose, cached)

    assert torch.equal(text(cached=True), text(cached=False))
    assert torch.equal(text(cached=True)[:, :length], tokens(batch, length))


def test_greedy_text_is_the_likeliest_token_at_every_position(gpt: GPT) -> None:
    text = generate(gpt, tokens(2, 3), 21)
    logits = gpt.next_token_logits(gpt(text))
    assert torch.equal(logits.argmax(dim=-1)[:, 2:-1], text[:, 3:])


def test_texts_of_a_batch_are_those_of_each_prompt_alone(gpt: GPT) -> None:
    alone = [generate(gpt, prompt[None], 10) for prompt in tokens(4, 6)]
    assert torch.equal(generate(gpt, tokens(4, 6), 10), torch.cat(alone))


def test_draws_repeat_with_their_seed_alone(gpt: GPT) -> None:
    first, again, other = (generate(gpt, tokens(2, 4), 20, sampling(s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_generator_is_left_alone(gpt: GPT) -> None:
    before = torch.get_rng_state()
    generate(gpt, tokens(1, 4), 5, sampling(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_have_the_frequencies_of_the_tempered_top_k() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 2.0, 2.5])
    drawn = sampling(5, temperature=0.5, top_k=3)(logits.repeat(40_000, 1))
    frequencies = drawn.bincount(minlength=5) / len(drawn)
    expected = torch.tensor([0.0, 6.0, 0.0, 4.0, 5.0]).exp() * torch.tensor([0, 1, 0, 1, 1])
    torch.testing.assert_close(frequencies, expected / expected.sum(), rtol=0, atol=0.01)
    assert frequencies[0] == frequencies[2] == 0


def test_one_candidate_is_the_greedy_choice(gpt: GPT) -> None:
    drawn = generate(gpt, tokens(2, 4), 20, sampling(1, temperature=2.0, top_k=1))
    assert torch.equal(drawn, generate(gpt, tokens(2, 4), 20))


@pytest.mark.parametrize("cached", [True, False])
def test_text_may_fill_the_context_but_not_exceed_it(gpt: GPT, cached: bool) -> None:
    assert generate(gpt, tokens(1, 20), 4, cached=cached).shape == (1, 24)
    assert torch.equal(generate(gpt, tokens(1, 24), 0, cached=cached), tokens(1, 24))
    with pytest.raises(PromptError, match="do not fit") as caught:
        generate(gpt, tokens(1, 20), 5, cached=cached)
    assert caught.value.expected == "at most 24 tokens together"
    assert caught.value.actual == "20 of the prompt + 5 new ones"


def test_empty_prompt_is_refused(gpt: GPT) -> None:
    with pytest.raises(PromptError, match="empty prompt"):
        generate(gpt, tokens(1, 0), 3)


def test_dropout_is_off_while_generating_and_on_again_afterwards(gpt: GPT) -> None:
    undisturbed = generate(gpt, tokens(2, 4), 10)
    mlp = gpt.h[0].mlp
    try:
        gpt.h[0].mlp = nn.Sequential(mlp, nn.Dropout(0.9))
        gpt.train()
        assert torch.equal(generate(gpt, tokens(2, 4), 10), undisturbed)
        assert gpt.training
        assert gpt.h[0].mlp[1].training
    finally:
        gpt.h[0].mlp = mlp


def test_bytes_that_are_no_text_are_replaced() -> None:
    encoding = train_encoding(["héllo wörld"] * 3, 270)
    stray = encoding.encode_single_token("é".encode()[1:])
    shape = GPTConfig(encoding.n_vocab, 32, 1, 2, 8)
    with seeded(0):
        model = initialise(GPT(shape))
    written = continuation(model, encoding, "hello", 3, lambda logits: torch.tensor([stray]))
    assert written == "\ufffd" * 3
