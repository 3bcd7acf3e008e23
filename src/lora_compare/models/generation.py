"""Text from a language model, one token after another: the likeliest, or drawn at random."""

from collections.abc import Callable

import tiktoken
import torch
from torch import Tensor

from lora_compare.errors import PromptError
from lora_compare.models.attention import KeyValueCache
from lora_compare.models.network import GPT
from lora_compare.models.tokenizer import encode

Choice = Callable[[Tensor], Tensor]
"""Takes the next token's logits, shape (b, vocab_size), and returns its ids, shape (b,)."""


def greedy(logits: Tensor) -> Tensor:
    """Return the likeliest token of each row, shape (b,) for logits (b, vocab_size)."""
    return logits.argmax(dim=-1)


def sampling(seed: int, temperature: float = 1.0, top_k: int | None = None) -> Choice:
    """Return a choice that draws tokens at random, the same ones for the same seed.

    Args:
        seed: Seed of the draws, which go on from one call of the choice to the next.
        temperature: Unitless, above 0: logits are divided by it, so below 1 likely tokens
            become likelier.
        top_k: Only this many of the likeliest tokens are drawn; None: all.

    Source: Fan et al. 2018, arXiv:1805.04833, section 5 (top-k sampling).
    """
    assert temperature > 0
    assert top_k is None or top_k >= 1
    generator = torch.Generator().manual_seed(seed)

    def choose(logits: Tensor) -> Tensor:
        # On the CPU, whose generator gives the same draws wherever the model runs.
        scaled = logits.double().cpu() / temperature
        if top_k is not None and top_k < scaled.shape[-1]:
            best = scaled.topk(top_k)
            scaled = torch.full_like(scaled, -torch.inf).scatter(-1, best.indices, best.values)
        drawn = torch.multinomial(scaled.softmax(dim=-1), 1, generator=generator)
        return drawn.squeeze(-1).to(logits.device)

    return choose


# Not inference_mode: nobody could train on tokens that were made in it.
@torch.no_grad()
def generate(
    gpt: GPT, prompts: Tensor, new_tokens: int, choose: Choice = greedy, cached: bool = True
) -> Tensor:
    """Return the prompts with `new_tokens` more tokens each, shape (b, t + new_tokens).

    The model is in evaluation mode meanwhile and in its former mode afterwards.

    Args:
        gpt: The language model.
        prompts: Token ids of b prompts of equal length on the model's device, shape (b, t).
        new_tokens: Tokens to add, at least 0.
        choose: How a token follows from its logits: `greedy` or a `sampling`.
        cached: Whether keys and values of earlier positions are kept; without them every new
            token costs a pass over the whole text, to the same result.

    Raises:
        PromptError: The prompts are empty, or longer with the new tokens than the context.

    Checked by tests/unit/models/test_generation.py::test_cached_text_equals_text_computed_anew.
    """
    _check_room(gpt, prompts.shape[1], new_tokens)
    was_training = gpt.training
    gpt.eval()
    caches = [KeyValueCache() for _ in gpt.h] if cached else None
    tokens = unseen = prompts
    for _ in range(new_tokens):
        hidden = gpt(unseen, caches)
        chosen = choose(gpt.next_token_logits(hidden[:, -1]))[:, None]
        tokens = torch.cat((tokens, chosen), dim=1)
        unseen = chosen if cached else tokens
    gpt.train(was_training)
    return tokens


def continuation(
    gpt: GPT, encoding: tiktoken.Encoding, text: str, new_tokens: int, choose: Choice = greedy
) -> str:
    """Return what the model writes after `text`; bytes that are no UTF-8 become U+FFFD.

    Args:
        gpt: The language model.
        encoding: Its tokenizer.
        text: What comes before.
        new_tokens: Tokens to write.
        choose: As for `generate`.

    Raises:
        PromptError: As `generate`.
    """
    prompt = torch.tensor([encode(encoding, text)], dtype=torch.long, device=gpt.wte.weight.device)
    tokens = generate(gpt, prompt, new_tokens, choose)
    return encoding.decode(tokens[0, prompt.shape[1] :].tolist(), errors="replace")


def _check_room(gpt: GPT, prompt_tokens: int, new_tokens: int) -> None:
    assert new_tokens >= 0
    if prompt_tokens == 0:
        raise PromptError("An empty prompt cannot be continued.", next="write at least one word")
    if prompt_tokens + new_tokens > gpt.config.context_length:
        raise PromptError(
            "The prompt and its continuation do not fit into the model's context.",
            expected=f"at most {gpt.config.context_length} tokens together",
            actual=f"{prompt_tokens} of the prompt + {new_tokens} new ones",
            next="shorten the prompt, or ask for fewer new tokens",
        )
