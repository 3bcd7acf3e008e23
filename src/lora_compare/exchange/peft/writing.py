"""An adapter of this project as PEFT's, for a model of transformers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from lora_compare.errors import ExportError
from lora_compare.exchange.peft.layout import Layout
from lora_compare.exchange.peft.names import (
    PREFIX,
    Adapter,
    PeftAdapter,
    short_names,
    tensor_names,
    with_pattern,
)
from lora_compare.params import LoraParams


def to_peft(
    layout: Layout, settings: LoraParams, base_name: str, revision: str | None = None
) -> PeftAdapter:
    """Return the adapter of a classifier in PEFT's format.

    The head goes along merged; so do other modules that were trained in full.

    Args:
        layout: The classifier with an adapter, not merged, as PEFT knows it.
        settings: What the adapter is.
        base_name: The name or path under which transformers finds the base.
        revision: The base's revision on the hub.

    Raises:
        ExportError: PEFT and transformers cannot hold the adapter; the message says why.

    Checked by tests/parity/test_export.py.
    """
    stored = layout.state()
    owners = {name: layout.owner(name) for name in stored}
    saved = layout.saved()
    layers = {path: layer for path, layer in layout.adapters().items() if path not in saved}
    if not layers:
        raise ExportError(
            "There is no low-rank update for PEFT to hold: only the head has one, or the modules "
            "that have one are trained in full as well.",
            where="lora.target_modules",
            next="export with --format merged",
        )
    tensors: dict[str, Tensor] = {}
    for path, layer in layers.items():
        parts = {"a": layer.a, "b": layer.b, "magnitude": layer.magnitude}
        names = tensor_names(path, layout.is_embedding(path))
        tensors |= {names[key]: tensor for key, tensor in parts.items() if tensor is not None}
    tensors |= {PREFIX + name: t for name, t in stored.items() if owners[name] in saved}
    biases = {n: t for n, t in stored.items() if n.endswith(".bias") and owners[n] not in saved}
    tensors |= _biases(biases, settings.bias, layers)
    # Among these a name must be the only one: PEFT looks at every module, inside the head, too.
    leaves = (name.rpartition(".")[0] for name in stored)
    modules = list(dict.fromkeys([*owners.values(), *leaves]))
    config = _config(layout, settings, layers, saved, modules)
    base = {"base_model_name_or_path": base_name, "revision": revision}
    return PeftAdapter({**config, **base}, tensors)


def _biases(biases: Mapping[str, Tensor], bias: str, layers: Collection[str]) -> dict[str, Tensor]:
    """Return the biases that are trained without the rest of their module, by PEFT's names."""
    chosen = {}
    for name, tensor in biases.items():
        owner = name.removesuffix(".bias")
        if bias == "all" or (bias == "lora_only" and owner in layers):
            inner = ".base_layer" if owner in layers else ""
            chosen[f"{PREFIX}{owner}{inner}.bias"] = tensor
    return chosen


def _config(
    layout: Layout,
    settings: LoraParams,
    layers: Mapping[str, Adapter],
    saved: Collection[str],
    modules: Sequence[str],
) -> dict[str, Any]:
    r, ranks = with_pattern({path: layer.r for path, layer in layers.items()})
    alpha, alphas = with_pattern(
        {path: layer.alpha(settings.use_rslora) for path, layer in layers.items()}
    )
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "inference_mode": True,
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "lora_dropout": settings.lora_dropout,
        "target_modules": short_names(list(layers), modules),
        "modules_to_save": short_names([m for m in modules if m in saved], modules),
        "bias": settings.bias,
        "use_rslora": settings.use_rslora,
        "use_dora": settings.use_dora,
        "fan_in_fan_out": layout.fan_in_fan_out,
        "init_lora_weights": True,
    }
