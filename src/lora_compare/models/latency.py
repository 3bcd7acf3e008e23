"""How long a classifier takes for a message: alone or in a batch, its adapter merged or not."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lora_compare import lora
from lora_compare.compute.device import Machine
from lora_compare.models.base import load_base
from lora_compare.models.batches import Examples
from lora_compare.models.methods import load_method

BATCHES = (1, 64)
"""Messages that are given at once."""

CALLS = 5
"""Batches of each size that are timed, after one that is not; the middle one counts."""

PATIENCE = 2.0
"""Seconds after which no further batch of a size is begun."""


def measure_latency(
    folder: Path, base: Path, texts: Examples, machine: Machine
) -> dict[str, float | None]:
    """Return the milliseconds that the classifier in a folder of `save_method` takes for a message.

    Tokens are given, probabilities come back; a text takes some 0.02 ms to become tokens. The
    time is that by the clock, with nothing else of this project beside it.

    Args:
        folder: The folder.
        base: That of the model that it was trained from.
        texts: Whole texts, one at least.
        machine: What to compute with.

    Returns:
        `classify_<n>_ms` for each n of BATCHES, and `classify_<n>_merged_ms` with the adapter
        merged; None without an adapter.

    Raises:
        UserError: As `load_method`.
    """
    classifier = load_method(folder, load_base(base))
    classifier.model.to(machine.device)

    def milliseconds(n: int) -> float:
        rows = np.arange(CALLS * n) % len(texts)
        batches = [texts.take(own.tolist()) for own in rows.reshape(CALLS, n)]
        return _median(lambda call: classifier.chances(batches[call], dtype=machine.dtype)) / n

    figures: dict[str, float | None] = {f"classify_{n}_ms": milliseconds(n) for n in BATCHES}
    has_adapter = lora.active_adapter(classifier.model) is not None
    if has_adapter:
        lora.merge(classifier.model)
    for n in BATCHES:
        figures[f"classify_{n}_merged_ms"] = milliseconds(n) if has_adapter else None
    return figures


def _median(call: Callable[[int], object]) -> float:
    """Return the median milliseconds of calls with the numbers from 0 on."""
    call(0)
    taken: list[float] = []
    for number in range(CALLS):
        start = time.perf_counter()
        call(number)
        taken.append(1000 * (time.perf_counter() - start))
        if sum(taken) > 1000 * PATIENCE:
            break
    return round(statistics.median(taken), 4)
