"""What LoRA saves at the sizes of GPT-2, as `make benchmark-scaling` measured it once."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from lora_compare.comparison import formats
from lora_compare.comparison.prices import PRICES, Price
from lora_compare.project.files import read_json

FILE = Path(__file__).with_name("scaling.json")
"""The benchmark's results, part of the package: `models` by name, each with a record of `full` and
of `lora` under the keys of metrics/M_cost.json. A time that was not measured is None."""


@dataclass(frozen=True)
class LargerModels:
    """A table of what LoRA needs, model by model, of what full fine-tuning needs.

    Attributes:
        caption: What it is of, and where it was measured.
        header: Its headings.
        rows: A row for each model: its name, then a cell for each price.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def larger_models(comparison: Mapping[str, Any]) -> LargerModels | None:
    """Return the table that stands beside the prices of full fine-tuning and LoRA.

    Args:
        comparison: The content of metrics/comparison.json; None without both methods.
    """
    if comparison["reference"] is None:
        return None
    results = read_json(FILE)
    machine, settings = results["machine"], results["settings"]
    return LargerModels(
        f"From the benchmark, not from this run: LoRA of rank {settings['rank']} beside full "
        f"fine-tuning of larger models. Random weights, {settings['batch_size']} messages of "
        f"{settings['tokens']} tokens, {settings['dtype']}; bytes counted, steps timed on "
        f"{machine['cpu']} ({machine['threads']} of its cores, {results['date']}) if memory "
        "sufficed.",
        ("model", *(price.title for price in PRICES)),
        tuple(
            (name, *map(_cell, PRICES, repeat(pair))) for name, pair in results["models"].items()
        ),
    )


def _cell(price: Price, pair: Mapping[str, Mapping[str, Any]]) -> str:
    lora, full = price.of(pair["lora"]), price.of(pair["full"])
    if lora is None or full is None:
        return formats.UNKNOWN
    return f"{price.write(lora)} of {price.write(full)} ({formats.share(lora / full)})"
