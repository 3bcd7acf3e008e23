"""An adapter that PEFT trained on a model of transformers as one of this project."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lora_compare.exchange.peft.config import PeftConfig, parse_config
from lora_compare.exchange.peft.contents import Contents, read_contents, require_family
from lora_compare.exchange.peft.layout import Layout
from lora_compare.exchange.peft.names import Adapter, PeftAdapter, short_names, with_pattern
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


def from_peft(adapter: PeftAdapter, layout: Layout, classes: Sequence[str]) -> Imported:
    """Return an adapter of PEFT for the classifier of `layout`.

    Args:
        adapter: The adapter.
        layout: The classifier, without an adapter, as PEFT knows it.
        classes: Names of the classes, in any order.

    Raises:
        CheckpointError: The adapter does not fit; every difference is named.

    Checked by tests/parity/test_import.py.
    """
    require_family(adapter, layout)
    config = parse_config(adapter.config)
    contents = read_contents(adapter.tensors, config, layout, classes)
    layers = {
        path: part
        for target, layer in contents.layers.items()
        for path, part in layout.parts(target, layer).items()
    }
    others: dict[str, Tensor] = {}
    for name, tensor in contents.others.items():
        others |= layout.replacements(name, tensor)
    return Imported(
        _settings(config, contents, layers, layout),
        {**_factors(layers), **others},
        contents.trainable,
        contents.factors,
    )


def _factors(layers: Mapping[str, Adapter]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path, layer in layers.items():
        tensors |= {f"{path}.lora_A": layer.a, f"{path}.lora_B": layer.b}
        if layer.magnitude is not None:
            tensors[f"{path}.lora_magnitude"] = layer.magnitude
    return tensors


def _settings(
    config: PeftConfig, contents: Contents, layers: Mapping[str, Adapter], layout: Layout
) -> LoraParams:
    r, ranks = with_pattern({path: layer.r for path, layer in layers.items()})
    alpha, alphas = with_pattern(
        {path: layer.alpha(config.use_rslora) for path, layer in layers.items()}
    )
    whole = [n.removesuffix(".weight") for n in contents.others if n.endswith(".weight")]
    saved = [path for module in whole for path in layout.paths(module)]
    return LoraParams(
        r=r,
        lora_alpha=alpha,
        lora_dropout=config.lora_dropout,
        target_modules=short_names(list(layers), layout.modules),
        bias=config.bias,
        modules_to_save=short_names(saved, layout.modules),
        rank_pattern=ranks,
        alpha_pattern=alphas,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
    )
