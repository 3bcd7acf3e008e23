"""The page's first screen: every difference on a band of the margin, and every price."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_compare.comparison import formats
from lora_compare.comparison.prices import PRICES, Price, comparable
from lora_compare.params import Params

FREE = 7.0
"""Per cent of the axis left free at both of its ends, for dots and their ticks' numbers."""

STEPS = tuple(digit * 10**power for power in range(9) for digit in (1, 2, 5))[2:]
"""Thousandths from one tick of the axis to the next; costs may need large ones."""

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

FIGURES = {
    "balanced_accuracy": "Balanced accuracy",
    "jaccard": "Jaccard",
    "hamming_loss": "Hamming loss",
    "micro_f1": "Micro-F1",
    "macro_f1": "Macro-F1",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "log_loss": "Log loss",
    "brier": "Brier",
    "ece": "ECE",
}
"""Figures of a split beside the accuracy, and their titles; which there are is up to the labels."""

BASELINES = {"tfidf": "TF-IDF, logistic regression", "untuned": "before any fine-tuning"}
"""What a baseline is."""


@dataclass(frozen=True)
class Axis:
    """The axis on which the first screen draws differences to the reference.

    Attributes:
        low: Difference at its left end, as a fraction.
        high: Difference at its right end, as a fraction.
        ticks: Differences that are marked.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, difference: float) -> float:
        """Return where a difference lies, in per cent of the width; beyond the end at the end."""
        within = min(max(difference, self.low), self.high)
        share = (within - self.low) / (self.high - self.low)
        return round(FREE + (100 - 2 * FREE) * share, 2)

    def holds(self, difference: float) -> bool:
        """Return whether a difference lies on the axis."""
        return self.low <= difference <= self.high


def make_axis(comparison: Mapping[str, Any]) -> Axis:
    """Return the axis that holds the margin on both sides of 0 and every pair's interval.

    A seed that collapsed may lie beyond it: with that on the axis the rest would be one blot.

    Args:
        comparison: The content of metrics/comparison.json.
    """
    margin, pairs = comparison["margin"], comparison["pairs"]
    lowest = min(-margin, *(pair["low"] for pair in pairs), -STEPS[0] / 1000)
    highest = max(margin, *(pair["high"] for pair in pairs), STEPS[0] / 1000)
    for step in STEPS:
        # Whole thousandths: sums of fractions would miss the ticks by a rounding error.
        first = int(1000 * lowest // step) * step
        last = -int(-1000 * highest // step) * step
        ticks = range(first, last + 1, step)
        if len(ticks) <= MOST_TICKS:
            break
    return Axis(first / 1000, last / 1000, tuple(tick / 1000 for tick in ticks))


def ticked(difference: float) -> str:
    """Return a tick's number in points with its sign, such as `+0.5` or `-2`."""
    return f"{100 * difference:+g}".replace("-", formats.MINUS) if difference else "0"


def reference(comparison: Mapping[str, Any]) -> str:
    """Return the name of the method that the others are compared with."""
    return str(comparison["pairs"][0]["b"]) if comparison["pairs"] else ""


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


def split_figures(comparison: Mapping[str, Any]) -> dict[str, str]:
    """Return the figures of a split that there are beside the accuracy, with their titles."""
    there = comparison["methods"][0]
    return {key: title for key, title in FIGURES.items() if f"test_{key}" in there}


def savings(comparison: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what LoRA costs beside full fine-tuning, a record a price; none without both.

    Each has `title`, `share`, and `lora` and `full` as they are written.

    Args:
        comparison: The content of metrics/comparison.json.
    """
    reference = comparison["reference"]
    if not reference:
        return []
    records = {record["method"]: record for record in comparison["methods"]}
    lora, full = records[reference["lora"]], records[reference["full"]]
    return [
        {
            "title": price.title,
            "share": formats.share(reference[price.ratio]),
            "lora": price.write(price.of(lora)),
            "full": price.write(price.of(full)),
        }
        for price in PRICES
        if reference.get(price.ratio)
    ]
