"""What a method costs: the columns that every table of prices has, and how they are written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lora_compare.comparison import formats


@dataclass(frozen=True)
class Price:
    """One price of a method.

    Attributes:
        key: Its key in a record of metrics/comparison.json.
        title: What it is called.
        ratio: Key of LoRA's share of full's in `reference`.
        write: Returns the number as people read it.
    """

    key: str
    title: str
    ratio: str
    write: Callable[[float | None], str]

    def of(self, record: Mapping[str, Any]) -> float | None:
        """Return what a method paid; None of what is not known.

        A time of 0 s is that of an imported adapter, but a method may well train 0 parameters.
        """
        value: float | None = record.get(self.key)
        return value if value or self.key == "trainable_parameters" else None


PRICES = (
    Price("trainable_parameters", "trainable parameters", "parameter_ratio", formats.count),
    Price("train_seconds", "training time", "time_ratio", formats.duration),
    Price("peak_memory_bytes", "peak memory", "memory_ratio", formats.size),
    Price("artifact_bytes", "artifact size", "artifact_ratio", formats.size),
)
"""Every price, in the order of the columns."""

OF_FULL = "of full"
"""Heading of a method's share of the parameters that full fine-tuning trains."""


def accuracy(record: Mapping[str, Any], between: str = " ") -> str:
    """Return a record's test accuracy with its 95 % interval, such as `97.6 % (95.2-98.9)`."""
    interval = formats.percent_interval((record["test_accuracy_low"], record["test_accuracy_high"]))
    return f"{formats.percent(record['test_accuracy'])}{between}({interval})"


def cells(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what a method or baseline costs by heading: each price, and the share of full.

    Args:
        record: One of `methods` or `baselines` of metrics/comparison.json.
    """
    written = {price.title: price.write(price.of(record)) for price in PRICES}
    (first, value), *rest = written.items()
    return {first: value, OF_FULL: formats.share(record.get("parameters_of_full")), **dict(rest)}
