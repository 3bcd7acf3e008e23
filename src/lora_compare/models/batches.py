"""Token sequences into batches: order, groups of similar length, texts packed into one row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """b texts, one behind the other in one row of n tokens, without padding.

    Attributes:
        tokens: Token ids, shape (n,).
        positions: Place of every token in its own text, from 0, shape (n,).
        last: Index in `tokens` of every text's last token, shape (b,).
        bounds: Index in `tokens` at which every text begins, and n, int32, shape (b + 1,).
        lengths: Tokens of every text; on the host, so that nothing waits for a device to ask.
    """

    tokens: Tensor
    positions: Tensor
    last: Tensor
    bounds: Tensor
    lengths: tuple[int, ...]

    def to(self, device: torch.device) -> "Packed":
        """Return the texts on `device`."""
        tokens, positions, last, bounds = (
            tensor.to(device, non_blocking=True)
            for tensor in (self.tokens, self.positions, self.last, self.bounds)
        )
        return Packed(tokens, positions, last, bounds, self.lengths)

    def first_tokens(self) -> "Packed":
        """Return the texts cut after their first token."""
        starts = self.bounds[:-1].long()
        return Packed(
            self.tokens[starts],
            torch.zeros_like(starts),
            torch.arange(len(starts), device=starts.device),
            torch.arange(len(starts) + 1, dtype=torch.int32, device=starts.device),
            (1,) * len(starts),
        )


def pack(sequences: Sequence[npt.NDArray[np.int64]]) -> Packed:
    """Return token sequences, none of them empty, as one row."""
    lengths = np.array([len(sequence) for sequence in sequences])
    bounds = np.concatenate(([0], lengths.cumsum()))
    tokens = np.concatenate(sequences)
    positions = np.arange(len(tokens)) - np.repeat(bounds[:-1], lengths)
    return Packed(
        torch.from_numpy(tokens),
        torch.from_numpy(positions),
        torch.from_numpy(bounds[1:] - 1),
        torch.from_numpy(bounds.astype(np.int32)),
        tuple(lengths.tolist()),
    )


IntArray = npt.NDArray[np.int64]

Truncation = Literal["head", "tail", "head_tail"]
"""Which tokens are kept of a text that is too long: the first, the last, or both."""


@dataclass(frozen=True)
class Examples:
    """Texts as tokens, with their classes.

    Attributes:
        tokens: One array of token ids a text, none of them empty.
        labels: Class indices, shape (n,); of several labels a text 0 and 1, shape (n, k).
    """

    tokens: Sequence[IntArray]
    labels: IntArray

    def __post_init__(self) -> None:
        """Check what every later step relies on."""
        assert len(self.tokens) == len(self.labels)
        assert all(len(sequence) for sequence in self.tokens)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.labels)

    def take(self, indices: Sequence[int] | IntArray) -> "Examples":
        """Return the texts at `indices`, in that order."""
        return Examples([self.tokens[i] for i in indices], self.labels[np.asarray(indices, int)])

    def cut(self, max_length: int, truncation: Truncation = "head") -> tuple["Examples", int]:
        """Return the texts with at most `max_length` tokens each, and how many had more.

        Args:
            max_length: Tokens that are kept of a longer text.
            truncation: Which.
        """
        first, last = kept(max_length, truncation)
        tokens = [_shorten(sequence, first, last) for sequence in self.tokens]
        return Examples(tokens, self.labels), int((self.lengths > max_length).sum())

    def lost(self, max_length: int) -> float:
        """Return the share of all tokens, in 0..1, that `cut` takes away."""
        return float(np.maximum(self.lengths - max_length, 0).sum() / self.lengths.sum())

    @property
    def lengths(self) -> IntArray:
        """Tokens of every text, shape (n,)."""
        return np.array([len(sequence) for sequence in self.tokens], dtype=np.int64)


def kept(max_length: int, truncation: Truncation) -> tuple[int, int]:
    """Return how many of a longer text's first and last tokens are kept.

    Args:
        max_length: Both together.
        truncation: Which; of `head_tail` a quarter are the first ones.

    Source: Sun et al. 2019, arXiv:1905.05583, section 5.3.1 (128 of 510 tokens from the head).
    """
    first = {"head": max_length, "tail": 0, "head_tail": max_length // 4}[truncation]
    return first, max_length - first


def _shorten(tokens: IntArray, first: int, last: int) -> IntArray:
    """Return the first and the last tokens of a text, all where it is no longer than both."""
    if len(tokens) <= first + last:
        return tokens
    return np.concatenate([tokens[:first], tokens[len(tokens) - last :]])


@dataclass(frozen=True)
class Batch:
    """Some texts as tensors.

    Attributes:
        texts: b texts.
        labels: Their labels, shape (b,) or (b, k), as in `Examples`.
    """

    texts: Packed
    labels: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        return Batch(self.texts.to(device), self.labels.to(device, non_blocking=True))


def collate(examples: Examples) -> Batch:
    """Return `examples` as one batch."""
    return Batch(pack(examples.tokens), torch.from_numpy(examples.labels))


def padded(batch: Batch, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch's tokens (b, width), lengths (b,) and classes (b,).

    Args:
        batch: b texts of at most `width` tokens.
        width: Tokens of each row, those behind a text of any id.
    """
    texts, lengths = batch.texts, torch.tensor(batch.texts.lengths)
    tokens = torch.zeros(len(lengths), width, dtype=torch.int64)
    rows = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    tokens[rows, texts.positions] = texts.tokens
    return tokens, lengths, batch.labels


def epoch_order(n: int, seed: int, epoch: int) -> IntArray:
    """Return the order of `n` texts in one epoch: a permutation, shape (n,).

    Args:
        n: Number of texts.
        seed: The training's seed.
        epoch: Which epoch, from 0; every epoch has its own order.
    """
    return np.random.default_rng([seed, epoch]).permutation(n)


def consecutive(order: IntArray, batch_size: int, drop_last: bool = False) -> list[IntArray]:
    """Return `order` cut into runs of `batch_size` indices.

    Args:
        order: Indices, shape (n,).
        batch_size: Indices a run.
        drop_last: Leave out a last run that is shorter than the others.
    """
    runs = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if drop_last and len(runs) > 1 and len(runs[-1]) < batch_size:
        runs.pop()
    return runs


def by_length(lengths: IntArray, token_budget: int) -> Iterator[IntArray]:
    """Yield groups of texts of similar length, shorter ones first.

    Args:
        lengths: Tokens of every text, shape (n,).
        token_budget: Most tokens of a group, were all its texts as long as its longest; a
            single longer text is a group of its own.

    Yields:
        Indices into `lengths`; together they are every index once.
    """
    group: list[int] = []
    for index in np.argsort(lengths, kind="stable"):
        if group and (len(group) + 1) * lengths[index] > token_budget:
            yield np.array(group)
            group = []
        group.append(int(index))
    if group:
        yield np.array(group)
