"""An adapter that PEFT trained on transformers' GPT-2 as one of this project."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lora_compare.exchange.peft.config import PeftConfig, parse_config
from lora_compare.exchange.peft.contents import (
    Contents,
    classifier_shapes,
    read_contents,
    require_family,
)
from lora_compare.exchange.peft.names import Layer, PeftAdapter, parted, short_names, with_pattern
from lora_compare.models.gpt.network import GPT
from lora_compare.models.gpt.weights import QKV, from_gpt2
from lora_compare.params import LoraParams


@dataclass(frozen=True)
class Imported:
    """An adapter of PEFT in this project's terms.

    Attributes:
        settings: What it adapts, and how.
        tensors: Its tensors by the names of `lora.adapter_tensors`; biases that it does not
            change are missing.
        trainable: Numbers that PEFT trained, the head's among them.
        factors: Those of them that come beside the base's weights, not in their place.
    """

    settings: LoraParams
    tensors: dict[str, Tensor]
    trainable: int
    factors: int


def from_peft(adapter: PeftAdapter, base: GPT, classes: Sequence[str]) -> Imported:
    """Return an adapter of PEFT for a `gpt.Classifier` whose head has no bias.

    Its layer `c_attn` becomes adapters of query, key and value.

    Args:
        adapter: The adapter.
        base: The network for which it was trained.
        classes: Names of the classes, in any order.

    Raises:
        CheckpointError: The adapter does not fit; every difference is named.

    Checked by tests/parity/test_import.py.
    """
    require_family(adapter, base)
    config = parse_config(adapter.config)
    contents = read_contents(adapter.tensors, config, base, classes)
    layers = {
        path: part
        for target, layer in contents.layers.items()
        for path, part in zip(_paths(target), parted(layer, len(_paths(target))), strict=True)
    }
    shapes = classifier_shapes(base.config, len(classes))
    modules = [
        p for n in shapes if n.endswith(".weight") for p in _paths(n.removesuffix(".weight"))
    ]
    return Imported(
        _settings(config, contents, layers, modules),
        {**_factors(layers), **_replacements(contents.others)},
        contents.trainable,
        contents.factors,
    )


def _paths(path: str) -> list[str]:
    """Return the paths here of what is one layer at `path` in transformers."""
    inside = path.removeprefix("transformer.")
    if inside == path:
        return [path]
    block, _, name = f"gpt.{inside}".rpartition(".")
    return [f"{block}.{part}" for part in (QKV if name == "c_attn" else [name])]


def _factors(layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path, layer in layers.items():
        tensors |= {f"{path}.lora_A": layer.a, f"{path}.lora_B": layer.b}
        if layer.magnitude is not None:
            tensors[f"{path}.lora_magnitude"] = layer.magnitude
    return tensors


def _replacements(others: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, tensor in others.items():
        inside = name.removeprefix("transformer.")
        prefix = "" if inside == name else "gpt."
        tensors |= {f"{prefix}{key}": part for key, part in from_gpt2(inside, tensor).items()}
    return tensors


def _settings(
    config: PeftConfig, contents: Contents, layers: Mapping[str, Layer], modules: Sequence[str]
) -> LoraParams:
    r, ranks = with_pattern({path: layer.r for path, layer in layers.items()})
    alpha, alphas = with_pattern(
        {path: layer.alpha(config.use_rslora) for path, layer in layers.items()}
    )
    whole = [n.removesuffix(".weight") for n in contents.others if n.endswith(".weight")]
    return LoraParams(
        r=r,
        lora_alpha=alpha,
        lora_dropout=config.lora_dropout,
        target_modules=short_names(list(layers), modules),
        bias=config.bias,
        modules_to_save=short_names([p for path in whole for p in _paths(path)], modules),
        rank_pattern=ranks,
        alpha_pattern=alphas,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
    )
