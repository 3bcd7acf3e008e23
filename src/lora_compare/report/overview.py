"""The page's first screen: every accuracy with its interval on one axis, and every price."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_compare.comparison import formats
from lora_compare.comparison.prices import PRICES, Price, comparable
from lora_compare.comparison.verdict import TESTED_BASELINE
from lora_compare.params import Params

MARGIN = 7.0
"""Per cent of the axis left free at both of its ends, for dots and their ticks' numbers."""

STEPS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Accuracy from one tick of the axis to the next."""

MOST_TICKS = 6
"""Ticks whose numbers fit beside one another on a phone."""

TRAINED = {
    "all": "every weight",
    "head": "the head alone",
    "last_block": "last block and head",
    "last_two_blocks": "last two blocks and head",
    "imported": "imported adapter",
}
"""What a method trains, in words, by its `trainable` in params.yaml."""

BASELINES = {"tfidf": "TF-IDF, logistic regression", "untuned": "before any fine-tuning"}
"""What a baseline is."""


@dataclass(frozen=True)
class Axis:
    """The axis on which the first screen draws accuracies.

    Attributes:
        low: Accuracy at its left end, as a fraction.
        high: Accuracy at its right end, as a fraction.
        ticks: Accuracies that are marked.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, accuracy: float) -> float:
        """Return where an accuracy lies, in per cent of the drawing's width."""
        share = (accuracy - self.low) / (self.high - self.low)
        return round(MARGIN + (100 - 2 * MARGIN) * share, 2)

    def holds(self, accuracy: float) -> bool:
        """Return whether an accuracy lies on the axis."""
        return self.low <= accuracy <= self.high


def make_axis(comparison: Mapping[str, Any]) -> Axis:
    """Return the axis that holds the interval of every method and of TF-IDF.

    The untuned model is left of it: with it on the axis the methods would be one blot.

    Args:
        comparison: The content of metrics/comparison.json.
    """
    baselines = [b for b in comparison["baselines"] if b["method"] == TESTED_BASELINE]
    rivals = [*comparison["methods"], *baselines]
    lowest = min(record["test_accuracy_low"] for record in rivals)
    highest = max(record["test_accuracy_high"] for record in rivals)
    for step in STEPS:
        # Whole hundredths: sums of fractions would miss the ticks by a rounding error.
        width = round(100 * step)
        first = int(100 * lowest // width) * width
        last = max(first + width, -int(-100 * highest // width) * width)
        ticks = range(first, last + 1, width)
        if len(ticks) <= MOST_TICKS:
            break
    return Axis(first / 100, last / 100, tuple(tick / 100 for tick in ticks))


def describe(params: Params) -> dict[str, str]:
    """Return what each method and baseline is, in a few words."""
    methods = {
        name: f"LoRA, r = {settings.lora.r}"
        if settings.lora is not None
        else TRAINED[settings.trainable]
        for name, settings in params.methods.items()
    }
    return methods | BASELINES


def prices(comparison: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return what each method and baseline costs.

    Under its name stands one record a price: `title`, `value` as text, `share` of what the full
    fine-tuning costs as text (empty for that itself, where it is not known, and for baselines),
    and `part`, the per cent of the dearest method (None for a baseline, for the unknown, and where
    there is one method only).

    Args:
        comparison: The content of metrics/comparison.json.
    """
    methods, reference = comparison["methods"], comparison["reference"] or {}
    full = next((r for r in methods if r["method"] == reference.get("full")), None)
    table: dict[str, list[dict[str, Any]]] = {}
    for record in [*methods, *comparison["baselines"]]:
        compared = record in methods
        table[record["method"]] = [
            _price(price, record, full, methods if compared else ()) for price in PRICES
        ]
    return table


def _price(
    price: Price,
    record: Mapping[str, Any],
    full: Mapping[str, Any] | None,
    methods: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    value = price.of(record)
    share, part = "", None
    if methods and value is not None:
        dearest = max(price.of(other) or 0 for other in methods)
        part = round(100 * value / dearest, 2) if dearest and len(methods) > 1 else None
        paid = None if full is None or full is record else price.of(full)
        if paid and comparable(price, record, full or {}):
            share = formats.share(value / paid)
    written = price.text(record)
    return {"title": price.title.capitalize(), "value": written, "share": share, "part": part}
