"""Which texts each step of a training sees, what they weigh, and at what learning rate."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lora_compare.compute.optimizers import rate_factor
from lora_compare.models.batches import Examples, IntArray, consecutive, epoch_order
from lora_compare.models.network import Network
from lora_compare.params import TrainingParams


class Schedule:
    """Which texts each optimizer step sees, and at what learning rate.

    Args:
        training: Epochs, batch size, accumulation and the rate's schedule.
        n: Texts of the training split.
        seed: The training's seed, of the order of the texts.
    """

    def __init__(self, training: TrainingParams, n: int, seed: int) -> None:
        self.training = training
        self.n, self.seed = n, seed
        self.steps_per_epoch = training.steps_per_epoch(n)
        self.steps = training.epochs * self.steps_per_epoch

    def _passes(self, epoch: int) -> list[IntArray]:
        order = epoch_order(self.n, self.seed, epoch)
        return consecutive(order, self.training.batch_size, self.training.drop_last)

    def batches(self) -> Iterator[list[IntArray]]:
        """Yield, for each optimizer step, the texts' indices of each of its forward passes."""
        group = self.training.gradient_accumulation_steps
        for epoch in range(self.training.epochs):
            passes = self._passes(epoch)
            for i in range(0, len(passes), group):
                yield passes[i : i + group]

    def longest_step(self, lengths: IntArray) -> int:
        """Return the 0-based step with the forward pass of most tokens in the first epoch.

        Args:
            lengths: Tokens of each text of the training split, shape (n,).
        """
        tokens = [lengths[chosen].sum() for chosen in self._passes(0)]
        return int(np.argmax(tokens)) // self.training.gradient_accumulation_steps

    def is_evaluated(self, step: int) -> bool:
        """Return whether the model is looked at after so many steps."""
        return step % self.training.eval_every == 0 or step % self.steps_per_epoch == 0

    def factor(self, step: int) -> float:
        """Return the learning rate of 0-based `step` as a fraction of its peak."""
        training = self.training
        return rate_factor(step, self.steps, training.lr_scheduler, training.warmup_ratio)


def balanced_weights(model: Network, examples: Examples, training: TrainingParams) -> Tensor | None:
    """Return what each class weighs in the loss, shape (k,); None where all weigh the same.

    A class with n_c of n texts weighs n / (k n_c), as scikit-learn's `balanced` has it.

    Args:
        model: The classifier, of k classes.
        examples: The training split.
        training: Whether to weigh at all.
    """
    if training.class_weights == "none":
        return None
    counts = np.bincount(examples.labels, minlength=model.n_classes)
    # A class without texts has no loss either.
    weights = len(examples) / (model.n_classes * np.maximum(counts, 1))
    like = next(model.output.parameters())
    return torch.from_numpy(weights).to(like.device, like.dtype)
