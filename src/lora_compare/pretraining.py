"""Language-model pre-training of `gpt2-nano` on the messages that no evaluation uses."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import tiktoken
import torch
from torch.nn import functional as F

from lora_compare.batches import IntArray
from lora_compare.errors import DataError
from lora_compare.gpt import CONFIGS, GPT, initialise
from lora_compare.params import PretrainingParams
from lora_compare.progress import SILENT, Progress
from lora_compare.schedules import rate_factor
from lora_compare.seeding import seeded
from lora_compare.tokenizer import encode_all

WARMUP = 0.05
"""Fraction of the steps in which the learning rate rises to its peak."""


def random_nano(vocabulary_size: int, seed: int) -> GPT:
    """Return a `gpt2-nano` with random weights.

    Args:
        vocabulary_size: Tokens of its embedding.
        seed: Seed of the weights.
    """
    with seeded(seed):
        return initialise(GPT(replace(CONFIGS["gpt2-nano"], vocab_size=vocabulary_size)))


def token_stream(texts: Sequence[str], encoding: tiktoken.Encoding) -> IntArray:
    """Return all texts as one array of token ids, each followed by the end-of-text token."""
    sequences, _ = encode_all(encoding, texts, max_length=None)
    return np.concatenate([np.append(s, encoding.eot_token) for s in sequences]).astype(np.int64)


def pretrain(
    stream: IntArray,
    vocabulary_size: int,
    settings: PretrainingParams,
    device: torch.device,
    progress: Progress = SILENT,
) -> tuple[GPT, float]:
    """Return a `gpt2-nano` trained to predict the next token, and its last mean loss.

    Args:
        stream: Token ids of the whole pre-training text, shape (n,).
        vocabulary_size: Tokens of the embedding.
        settings: Steps, batch and sequence sizes, learning rate and seed.
        device: Where to train.
        progress: Where to report.

    Returns:
        The model on `device`, and the mean cross-entropy in nats of the last tenth of the
        steps.

    Raises:
        DataError: The text is shorter than one training sequence.
    """
    length = settings.sequence_length
    if len(stream) <= length:
        raise DataError(
            "There is too little text to pre-train gpt2-nano.",
            where="data/splits/train.csv and data/splits/unused.csv",
            expected=f"more than {length} tokens",
            actual=str(len(stream)),
            next="give more messages, or set model.weights: random in params.yaml",
        )
    gpt = random_nano(vocabulary_size, settings.seed).to(device)
    optimizer = torch.optim.AdamW(
        gpt.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor(step, settings.steps, "cosine", WARMUP)
    )
    generator = np.random.default_rng(settings.seed)
    tokens = torch.from_numpy(stream).to(device)
    losses: list[float] = []
    with progress.task("pre-train gpt2-nano", settings.steps) as advance:
        for _ in range(settings.steps):
            starts = generator.integers(0, len(stream) - length, settings.batch_size)
            windows = torch.stack([tokens[s : s + length + 1] for s in starts])  # (b, t + 1)
            loss = next_token_loss(gpt, windows)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            advance(1, f"loss {losses[-1]:.3f}")
    return gpt, float(np.mean(losses[-max(1, settings.steps // 10) :]))


def next_token_loss(gpt: GPT, windows: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy in nats of predicting each next token.

    Args:
        gpt: The language model.
        windows: Token ids, shape (b, t + 1): inputs and, one to the right, targets.
    """
    logits = gpt.next_token_logits(gpt(windows[:, :-1]))
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
