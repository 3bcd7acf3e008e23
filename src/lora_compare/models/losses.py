"""The loss of a batch with its gradients: computed, or on a GPU played from a recording."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lora_compare.compute.graphs import Capture, Recorded
from lora_compare.compute.precision import computing_in
from lora_compare.models.answers.targets import targets_of
from lora_compare.models.batches import Batch, Packed, padded
from lora_compare.models.network import Network
from lora_compare.params import TrainingParams

Passes = Callable[[Batch, float], Tensor]
"""Does what `packed_loss` does with a batch on the host and the total: a `RecordedLoss`."""

SHORTEST = 32
"""Tokens that recorded batches are padded to at least; beyond, widths double."""


def packed_loss(
    forward: Callable[[Packed], Tensor],
    batch: Batch,
    total: float,
    dtype: torch.dtype = torch.float32,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Add a batch's gradients to those of the trained parameters, and return its loss, shape ().

    Args:
        forward: Returns the logits of packed texts, as `Network.of_packed`.
        batch: The texts, on its device.
        total: What the sum of their losses is divided by.
        dtype: Type of the arithmetic, as in `predict_logits`.
        class_weights: Of each class, shape (k,), of the logits' type, on the model's device;
            None: all are 1.
    """
    with computing_in(dtype, batch.labels.device):
        logits = forward(batch.texts)
    return _backward(logits, batch.labels, total, class_weights)


def _backward(
    logits: Tensor, labels: Tensor, total: Tensor | float, class_weights: Tensor | None
) -> Tensor:
    loss = targets_of(labels).loss(logits, labels, class_weights) / total
    loss.backward()
    return loss.detach()


class RecordedLoss:
    """Forward and backward passes that a GPU is given as one launch each.

    A recording is of one shape, so a batch is padded to one of a few widths, each of which is
    recorded once. No text sees the padding behind it.

    Args:
        model: The classifier, on a GPU, with its trained parameters chosen.
        longest: Tokens of the longest text.
        dtype: As for `packed_loss`.
        class_weights: As for `packed_loss`.
        capture: As for `Recorded`.

    Checked by tests/unit/models/test_losses.py against packed batches.
    """

    def __init__(
        self,
        model: Network,
        longest: int,
        dtype: torch.dtype = torch.float32,
        class_weights: Tensor | None = None,
        capture: Capture | None = None,
    ) -> None:
        self._longest = longest
        trained = [p for p in model.parameters() if p.requires_grad]
        # Not a method of this object: recordings shall end with it, not with the garbage.
        work = partial(_padded_loss, model, dtype, class_weights)
        self._recorded = Recorded(work, trained, capture)

    def __call__(self, batch: Batch, total: float) -> Tensor:
        """Do what `packed_loss` does, for a batch on the host."""
        return self._recorded(*self._inputs(batch, total))

    def unrecorded(self, batch: Batch, total: float) -> Tensor:
        """Do the same by Python's calls, so that tensors can be counted as they are made."""
        return self._recorded.unrecorded(*self._inputs(batch, total))

    def _inputs(self, batch: Batch, total: float) -> tuple[Tensor, ...]:
        width = padded_width(max(batch.texts.lengths), self._longest)
        return *padded(batch, width), torch.tensor(float(total))

    def close(self) -> None:
        """Forget the recordings; the next batches are recorded anew."""
        self._recorded.close()


def _padded_loss(
    model: Network,
    dtype: torch.dtype,
    class_weights: Tensor | None,
    tokens: Tensor,
    lengths: Tensor,
    labels: Tensor,
    total: Tensor,
) -> Tensor:
    with computing_in(dtype, labels.device):
        logits = model.of_padded(tokens, lengths)
    return _backward(logits, labels, total, class_weights)


def is_recorded(training: TrainingParams, device: torch.device) -> bool:
    """Return whether a training that compiles records its passes: on CUDA.

    Args:
        training: Whether it compiles. What is recorded cannot compute its blocks anew.
        device: Where it trains.
    """
    suits = device.type == "cuda" and not training.gradient_checkpointing
    return training.compile and suits


def padded_width(length: int, longest: int) -> int:
    """Return the power of two that a batch is padded to, or the longest text's tokens if fewer.

    Args:
        length: Tokens of the batch's longest text.
        longest: Those of the longest text of all.
    """
    return min(longest, max(SHORTEST, 1 << (length - 1).bit_length()))
