"""Pre-training of `gpt2-nano` on the messages that no evaluation uses.

It learns to predict the next token and, at the end of a text, which tokens stand in it. In so short
a training the first alone leaves nothing of a text at its last token but that it ends there, and
that token is what a classifier reads.
"""

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


class Learner(nn.Module):
    """A GPT and what is thrown away after its pre-training.

    Args:
        gpt: The language model.
        frequencies: Inverse document frequency of every token, shape (vocab_size,).

    Attributes:
        gpt: The language model.
        reader: Makes of a text's last hidden state the one that recalls its tokens.
    """

    frequencies: Tensor

    def __init__(self, gpt: GPT, frequencies: Tensor) -> None:
        super().__init__()
        self.gpt = gpt
        self.reader = nn.Linear(gpt.config.n_embd, gpt.config.n_embd)
        self.register_buffer("frequencies", frequencies)

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return both losses: the cross-entropies in nats, summed over tokens and over texts.

        The first is of each next token. The second is of the tokens that a text holds, at its last
        one: the share of each is as its count times its inverse document frequency.

        Args:
            batch: Token ids padded on the right with IGNORED, shape (b, t), at least two a text.

        Source: of the second, Ma et al. 2024, arXiv:2401.11248, "Drop your Decoder: Pre-training
        with Bag-of-Word Prediction for Dense Passage Retrieval"; the weights are this project's.
        """
        tokens, targets = batch[:, :-1].clamp(min=0), batch[:, 1:]
        real = targets != IGNORED
        hidden = self.gpt(tokens)
        logits = self.gpt.next_token_logits(hidden[real])
        following = F.cross_entropy(logits, targets[real], reduction="sum")
        last = hidden[torch.arange(len(batch), device=batch.device), real.sum(dim=1) - 1]
        recalled = self.gpt.next_token_logits(self.reader(last))  # (b, vocab_size)
        found = real.nonzero()[:, 0], tokens[real]
        bags = torch.zeros_like(recalled).index_put_(
            found, self.frequencies[tokens[real]], accumulate=True
        )
        # A text of tokens that all texts have asks for nothing.
        bags = bags / bags.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return following, F.cross_entropy(recalled, bags, reduction="sum")


def inverse_document_frequencies(pieces: Sequence[IntArray], vocabulary_size: int) -> Tensor:
    """Return log((1 + n) / (1 + d)) of each token, d of n pieces having it: (vocabulary_size,).

    Checked by tests/unit/models/test_pretraining.py against scikit-learn, which adds 1.
    """
    found = np.concatenate([np.unique(piece) for piece in pieces])
    counts = np.bincount(found, minlength=vocabulary_size)
    return torch.from_numpy(np.log((1 + len(pieces)) / (1 + counts)).astype(np.float32))


def pretrain(
    pieces: Sequence[IntArray],
    vocabulary_size: int,
    settings: PretrainingParams,
    device: torch.device,
    progress: Progress = SILENT,
) -> tuple[GPT, float]:
    """Return a `gpt2-nano` trained on `pieces`, and its last mean loss.

    Args:
        pieces: Token ids of each text or piece of one, at least two each.
        vocabulary_size: Tokens of the embedding.
        settings: Steps, batch and sequence sizes, learning rate and seed.
        device: Where to train.
        progress: Where to report.

    Returns:
        The model on `device`, and the mean cross-entropy in nats of the next token in the last
        tenth of the steps.

    Raises:
        TrainingError: The loss is not finite.
    """
    gpt = random_nano(vocabulary_size, settings.seed)
    with seeded(settings.seed):
        learner = Learner(gpt, inverse_document_frequencies(pieces, vocabulary_size)).to(device)
    optimizers = _optimizers(learner, settings)
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
            losses.append(_gradients(learner, halves, over))
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


def _optimizers(learner: Learner, settings: PretrainingParams) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices in the blocks, and AdamW for all else.

    Muon is there twice, each for every other block, so that both can work at once.
    """
    halves = [learner.gpt.h[i::2] for i in (0, 1)]
    matrices = [[p for p in half.parameters() if p.ndim == 2] for half in halves]
    inside = {id(p) for half in matrices for p in half}
    rest = [p for p in learner.parameters() if id(p) not in inside]
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


def _gradients(learner: Learner, parts: Sequence[Tensor], over: Map) -> float:
    """Set the gradients of both losses, the mean over all tokens and that over all texts.

    Returns:
        The mean over all tokens of `parts`.
    """
    parameters = list(learner.parameters())
    tokens = sum(int((part[:, 1:] != IGNORED).sum()) for part in parts)
    texts = sum(len(part) for part in parts)

    def gradients(part: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        following, recalled = learner(part)
        loss = following / tokens + recalled / texts
        return following.detach() / tokens, torch.autograd.grad(loss, parameters)

    losses, found = zip(*over(gradients, parts), strict=True)
    for parameter, *pieces in zip(parameters, *found, strict=True):
        parameter.grad = sum(pieces[1:], start=pieces[0])
    return float(sum(losses))
