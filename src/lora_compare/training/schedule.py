"""Which texts each step of a training sees, and at what learning rate."""

import math
from collections.abc import Iterator
from typing import Literal

from lora_compare.models.batches import IntArray, consecutive, epoch_order
from lora_compare.params import TrainingParams


def rate_factor(
    step: int, steps: int, scheduler: Literal["constant", "linear", "cosine"], warmup_ratio: float
) -> float:
    """Return the learning rate of a step as a fraction of its peak.

    Args:
        step: From 0 to `steps` - 1.
        steps: Optimizer steps of the whole training.
        scheduler: `constant`, or `linear` or `cosine` decay to zero.
        warmup_ratio: Fraction of the steps in which the rate rises linearly to its peak.
    """
    warmup = round(warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / warmup
    remaining = (steps - step) / max(1, steps - warmup)
    return {
        "constant": 1.0,
        "linear": remaining,
        "cosine": 0.5 * (1 - math.cos(math.pi * remaining)),
    }[scheduler]


class Schedule:
    """Which texts each optimizer step sees, and at what learning rate.

    Args:
        training: Epochs, batch size, accumulation, seed and the rate's schedule.
        n: Texts of the training split.
    """

    def __init__(self, training: TrainingParams, n: int) -> None:
        self.training = training
        self.n = n
        passes = len(self._passes(0))
        self.steps_per_epoch = math.ceil(passes / training.gradient_accumulation_steps)
        self.steps = training.epochs * self.steps_per_epoch

    def _passes(self, epoch: int) -> list[IntArray]:
        order = epoch_order(self.n, self.training.seed, epoch)
        return consecutive(order, self.training.batch_size, self.training.drop_last)

    def batches(self) -> Iterator[list[IntArray]]:
        """Yield, for each optimizer step, the texts' indices of each of its forward passes."""
        group = self.training.gradient_accumulation_steps
        for epoch in range(self.training.epochs):
            passes = self._passes(epoch)
            for i in range(0, len(passes), group):
                yield passes[i : i + group]

    def factor(self, step: int) -> float:
        """Return the learning rate of 0-based `step` as a fraction of its peak."""
        training = self.training
        return rate_factor(step, self.steps, training.lr_scheduler, training.warmup_ratio)
