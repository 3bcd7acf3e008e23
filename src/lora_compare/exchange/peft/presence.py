"""Which layers, modules and biases an adapter's settings name, and which its file holds."""

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from lora_compare.exchange.peft.config import PeftConfig
from lora_compare.exchange.peft.layout import Shapes
from lora_compare.params import Layer, choose_layers

PEFTS_HEADS = ("classifier", "score")
"""What PEFT lists in `modules_to_save` of every classifier, whether it has such a module or not."""

SHOWN = 5
"""Names that one line lists before it only counts."""


def listed(names: Sequence[str]) -> str:
    """Return the first of the names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def target_problems(
    parts: Collection[str], config: PeftConfig, layers: Mapping[str, Layer]
) -> tuple[list[str], list[str]]:
    """Return what is wrong where the layers that the settings name are not those of the file.

    Args:
        parts: Paths of the layers that the file has an adapter for.
        config: The adapter's settings.
        layers: All layers that can have one, by path.

    Returns:
        What the file lacks, and what it has although the settings do not name it.
    """
    if config.targets is None or not parts:
        return [], []
    named = choose_layers(layers, config.targets, lambda path: ()).adapted
    absent = [path for path in named if path not in parts]
    extra = [path for path in layers if path in parts and path not in named]
    return (
        [f"target_modules: no adapter in the file for {listed(absent)}"] if absent else [],
        [f"target_modules: the file has an adapter for {listed(extra)}, too"] if extra else [],
    )


def absent_biases(
    others: Mapping[str, Tensor], parts: Collection[str], config: PeftConfig, shapes: Shapes
) -> list[str]:
    """Return what is wrong where biases are trained by the settings and not in the file."""
    if config.bias == "none":
        return []
    owners = [name.removesuffix(".bias") for name in shapes if name.endswith(".bias")]
    declared = [owner for owner in owners if config.bias == "all" or owner in parts]
    # Those of modules trained in full are looked at beside their weights.
    absent = [
        f"{owner}.bias"
        for owner in declared
        if f"{owner}.bias" not in others and f"{owner}.weight" not in others
    ]
    if not absent:
        return []
    return [f"bias: {config.bias}, but {len(absent)} biases are not in the file: {listed(absent)}"]


def unsaved(others: Mapping[str, Tensor], config: PeftConfig) -> list[str]:
    """Return the modules of `modules_to_save` that the file lacks."""
    owners = [f".{name.rpartition('.')[0]}." for name in others]
    return [
        f"modules_to_save: {module} is not in the file"
        for module in config.modules_to_save
        if module not in PEFTS_HEADS and not any(f"{module}." in path for path in owners)
    ]
