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

BATCHES = {1: 25, 64: 5}
"""Messages that are given at once, and how often that is timed; the middle time counts."""

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
        rows = np.arange(BATCHES[n] * n) % len(texts)
        batches = [texts.take(own.tolist()) for own in rows.reshape(-1, n)]
        classifier.chances(batches[0], dtype=machine.dtype)  # the first call is slower
        return _median(lambda batch: classifier.chances(batch, dtype=machine.dtype), batches) / n

    figures: dict[str, float | None] = {f"classify_{n}_ms": milliseconds(n) for n in BATCHES}
    has_adapter = lora.active_adapter(classifier.model) is not None
    if has_adapter:
        lora.merge(classifier.model)
    for n in BATCHES:
        figures[f"classify_{n}_merged_ms"] = milliseconds(n) if has_adapter else None
    return figures


def _median(call: Callable[[Examples], object], batches: list[Examples]) -> float:
    """Return the median milliseconds of calls with each of `batches`."""
    taken: list[float] = []
    for batch in batches:
        start = time.perf_counter()
        call(batch)
        taken.append(1000 * (time.perf_counter() - start))
        if sum(taken) > 1000 * PATIENCE:
            break
    return round(statistics.median(taken), 4)
