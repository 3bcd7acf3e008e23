"""How the learning rate changes over a training."""

import math
from typing import Literal


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
