"""Token sequences into batches: order, and groups of similar length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lora_compare.models.packing import Packed, pack

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Texts as tokens, with their classes.

    Attributes:
        tokens: One array of token ids a text, none of them empty.
        labels: Class indices, shape (n,).
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

    def cut(self, max_length: int) -> tuple["Examples", int]:
        """Return the texts with at most `max_length` tokens each, and how many had more."""
        tokens = [sequence[:max_length] for sequence in self.tokens]
        return Examples(tokens, self.labels), int((self.lengths > max_length).sum())

    @property
    def lengths(self) -> IntArray:
        """Tokens of every text, shape (n,)."""
        return np.array([len(sequence) for sequence in self.tokens], dtype=np.int64)


@dataclass(frozen=True)
class Batch:
    """Some texts as tensors.

    Attributes:
        texts: b texts.
        labels: Their class indices, shape (b,).
    """

    texts: Packed
    labels: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        return Batch(self.texts.to(device), self.labels.to(device, non_blocking=True))


def collate(examples: Examples) -> Batch:
    """Return `examples` as one batch."""
    return Batch(pack(examples.tokens), torch.from_numpy(examples.labels))


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
