"""Language-model pre-training of `gpt2-nano` on the messages that no evaluation uses."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import tiktoken
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_compare.compute.optimizers import AdamW, Muon, rate_factor
from lora_compare.compute.seeding import seeded
from lora_compare.errors import TrainingError
from lora_compare.models.batches import IntArray, by_length
from lora_compare.models.gpt.network import CONFIGS, GPT, initialise
from lora_compare.models.gpt.tokenizer import encode_all
from lora_compare.params import PretrainingParams
from lora_compare.project.progress import SILENT, Progress

IGNORED = -100
"""Fills the right side of shorter pieces; no token has this id."""

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""`map`, or what does the same in its own way."""

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


def sequences(texts: Sequence[str], encoding: tiktoken.Encoding, length: int) -> list[IntArray]:
    """Return every text's token ids with the end-of-text token behind, cut into pieces.

    A piece starts where fine-tuning will start: at the beginning of a text, position 0. Windows
    over the concatenated texts would teach positions and contexts that no message has.

    Args:
        texts: What to learn from.
        encoding: The tokenizer.
        length: Most tokens of a piece; a longer text becomes several.
    """
    tokens, _ = encode_all(encoding, texts, max_length=None)
    whole = [np.append(t, encoding.eot_token).astype(np.int64) for t in tokens]
    pieces = [t[i : i + length] for t in whole for i in range(0, len(t), length)]
    return [piece for piece in pieces if len(piece) > 1]


def batches(pieces: Sequence[IntArray], settings: PretrainingParams) -> Iterator[Tensor]:
    """Yield the batches of the whole pre-training, shape (b, t), padded with IGNORED.

    Every epoch takes all pieces once, pieces of similar length together, in a new order.

    Args:
        pieces: Token ids of each piece.
        settings: Number of batches, their size in positions, and the seed.
    """
    random = np.random.default_rng(settings.seed)
    done = 0
    while True:
        # Ties between pieces of one length are broken anew in every epoch.
        order = random.permutation(len(pieces))
        lengths = np.array([len(pieces[i]) for i in order])
        groups = [order[g] for g in by_length(lengths, settings.batch_tokens)]
        for index in random.permutation(len(groups)):
            if done == settings.steps:
                return
            done += 1
            group = [torch.from_numpy(pieces[i]) for i in groups[index]]
            yield nn.utils.rnn.pad_sequence(group, batch_first=True, padding_value=IGNORED)


def pretrain(
    pieces: Sequence[IntArray],
    vocabulary_size: int,
    settings: PretrainingParams,
    device: torch.device,
    progress: Progress = SILENT,
) -> tuple[GPT, float]:
    """Return a `gpt2-nano` trained to predict the next token, and its last mean loss.

    Args:
        pieces: Token ids of each text or piece of one, at least two each.
        vocabulary_size: Tokens of the embedding.
        settings: Steps, batch and sequence sizes, learning rate and seed.
        device: Where to train.
        progress: Where to report.

    Returns:
        The model on `device`, and the mean cross-entropy in nats of the last tenth of the
        steps.

    Raises:
        TrainingError: The loss is not finite.
    """
    gpt = random_nano(vocabulary_size, settings.seed).to(device)
    optimizers = _optimizers(gpt, settings)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(step, settings.steps, "cosine", WARMUP)
        )
        for optimizer in optimizers
    ]
    losses: list[float] = []
    task = progress.task("pre-train gpt2-nano", settings.steps)
    with task as advance, _at_once(device) as over:
        for batch in batches(pieces, settings):
            halves = batch.to(device).chunk(2 if device.type == "cpu" else 1)
            losses.append(_gradients(gpt, halves, over))
            list(over(lambda optimizer: optimizer.step(), optimizers))
            for schedule in schedules:
                schedule.step()
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"The pre-training loss is {losses[-1]}.",
                    where=f"step {len(losses)} of gpt2-nano",
                    expected="a finite number",
                    next="lower model.pretraining.learning_rate in params.yaml",
                )
            advance(1, f"loss {losses[-1]:.3f}")
    return gpt, float(np.mean(losses[-max(1, settings.steps // 10) :]))


def _optimizers(gpt: GPT, settings: PretrainingParams) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices in the blocks, and AdamW for embeddings, biases and norms.

    Muon is there twice, each for every other block, so that both can work at once.
    """
    matrices = [
        [p for block in gpt.h[i::2] for p in block.parameters() if p.ndim == 2] for i in (0, 1)
    ]
    inside = {id(p) for half in matrices for p in half}
    rest = [p for p in gpt.parameters() if id(p) not in inside]
    rate, decay = settings.matrix_learning_rate, settings.weight_decay
    adam = AdamW(rest, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=decay, fused=True)
    return [*(Muon(half, lr=rate, weight_decay=decay) for half in matrices), adam]


@contextmanager
def _at_once(device: torch.device) -> Iterator[Map]:
    """Yield a `map` whose calls go on at the same time on a CPU, on two threads.

    Two threads inside every operation would wait for each other a thousand times a step; a
    batch's halves, one thread each, wait once. The halves are the same on every machine, and
    so are the bits of their sum.
    """
    if device.type != "cpu":
        yield map
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        yield pool.map


def _gradients(gpt: GPT, parts: Sequence[Tensor], over: Map) -> float:
    """Set the gradients of the mean loss over all tokens of `parts`, and return that loss."""
    parameters = list(gpt.parameters())
    n = sum(int((part[:, 1:] != IGNORED).sum()) for part in parts)

    def gradients(part: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = next_token_loss(gpt, part, reduction="sum") / n
        return loss.detach(), torch.autograd.grad(loss, parameters)

    losses, found = zip(*over(gradients, parts), strict=True)
    for parameter, *pieces in zip(parameters, *found, strict=True):
        parameter.grad = sum(pieces[1:], start=pieces[0])
    return float(sum(losses))


def next_token_loss(gpt: GPT, batch: Tensor, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy in nats of predicting each next token.

    Args:
        gpt: The language model.
        batch: Token ids padded on the right with IGNORED, shape (b, t).
        reduction: `mean` over the real tokens, or `sum`.
    """
    inputs, targets = batch[:, :-1].clamp(min=0), batch[:, 1:]
    real = targets != IGNORED
    logits = gpt.next_token_logits(gpt(inputs)[real])
    return F.cross_entropy(logits, targets[real], reduction=reduction)
