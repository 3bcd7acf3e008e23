"""An adapter of this project as PEFT's, for transformers' GPT-2."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from lora_compare import lora
from lora_compare.errors import ExportError
from lora_compare.exchange.peft.names import (
    PREFIX,
    Layer,
    PeftAdapter,
    joined,
    leaf_modules,
    short_names,
    tensor_names,
    with_pattern,
)
from lora_compare.exchange.transformers import HEAD, classifier_state
from lora_compare.lora import LoRALayer, LowRank
from lora_compare.models.gpt.network import Classifier
from lora_compare.models.gpt.weights import QKV
from lora_compare.params import LoraParams, gpt2_paths

LAST_NORM = "transformer.ln_f"


def to_peft(
    model: Classifier,
    settings: LoraParams,
    base: Mapping[str, Tensor],
    base_name: str,
    revision: str | None = None,
) -> PeftAdapter:
    """Return the adapter of `model` in PEFT's format.

    The head goes along merged, and with its bias in the last norm; so do other modules that
    were trained in full. Separate adapters of query, key and value become one.

    Args:
        model: A classifier with an adapter, not merged.
        settings: What the adapter is.
        base: The weights of the bare GPT, before any quantisation.
        base_name: The name or path under which transformers finds the base.
        revision: The base's revision on the hub.

    Raises:
        ExportError: PEFT and transformers cannot hold the adapter; the message says why.

    Checked by tests/parity/test_export.py.
    """
    stored = classifier_state(model)
    modules = leaf_modules(stored)
    saved = _saved_modules(model)
    layers = {path: layer for path, layer in _layers(model, base).items() if path not in saved}
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
        names = tensor_names(path)
        tensors |= {names[key]: tensor for key, tensor in parts.items() if tensor is not None}
    for name, tensor in stored.items():
        if name.rpartition(".")[0] in saved:
            tensors[PREFIX + name] = tensor
    tensors |= _biases(stored, settings.bias, layers, saved)
    config = _config(settings, layers, saved, modules)
    return PeftAdapter({**config, **_base_settings(base_name, revision)}, tensors)


def _base_settings(name: str, revision: str | None) -> dict[str, Any]:
    return {"base_model_name_or_path": name, "revision": revision}


def _saved_modules(model: Classifier) -> set[str]:
    """Return the modules of transformers' model that go along whole."""
    saved = {HEAD, LAST_NORM} if model.bias else {HEAD}
    for name in lora.adapter_tensors(model):
        # A bias alone may be trained too; a module trained in full has its weight here.
        if name.endswith(".weight"):
            saved.update(gpt2_paths(name.removesuffix(".weight")))
    return saved


def _layers(model: Classifier, base: Mapping[str, Tensor]) -> dict[str, Layer]:
    """Return the adapters of the layers of transformers' model by path, without the head."""
    own = {path: _layer(layer) for path, layer in lora.adapted_layers(model) if path != HEAD}
    layers = {}
    for path in own:
        (target,) = gpt2_paths(path)
        siblings = _siblings(path)
        if len(siblings) == 1:
            layers[target] = own[path]
        elif target not in layers:
            weights = [base[f"{name.removeprefix('gpt.')}.weight"] for name in siblings]
            layers[target] = joined([own.get(name) for name in siblings], weights)
    return layers


def _siblings(path: str) -> list[str]:
    """Return the paths of the layers here that are one in transformers with that of `path`."""
    block, _, name = path.rpartition(".")
    return [f"{block}.{part}" for part in QKV] if name in QKV else [path]


def _layer(layer: LoRALayer) -> Layer:
    adapter = layer.adapter(lora.DEFAULT)
    assert isinstance(adapter, LowRank)
    with torch.no_grad():
        a, b = adapter.lora_A.detach(), adapter.lora_B.detach()
        if adapter.initial_A is not None and adapter.initial_B is not None:
            # PEFT would take what is subtracted from its own decomposition of the base.
            a, b = torch.cat([a, adapter.initial_A]), torch.cat([b, -adapter.initial_B], dim=1)
    magnitude = adapter.lora_magnitude
    return Layer(a, b, adapter.scale, None if magnitude is None else magnitude.detach())


def _biases(
    stored: Mapping[str, Tensor], bias: str, layers: Collection[str], saved: Collection[str]
) -> dict[str, Tensor]:
    """Return the biases that are trained without the rest of their module."""
    chosen = {}
    for name, tensor in stored.items():
        owner, _, kind = name.rpartition(".")
        wanted = bias == "all" or (bias == "lora_only" and owner in layers)
        if kind == "bias" and wanted and owner not in saved:
            inner = ".base_layer" if owner in layers else ""
            chosen[f"{PREFIX}{owner}{inner}.bias"] = tensor
    return chosen


def _config(
    settings: LoraParams, layers: Mapping[str, Layer], saved: Collection[str], modules: list[str]
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
        # transformers keeps the weights of GPT-2's linear layers as (d_in, d_out).
        "fan_in_fan_out": True,
        "init_lora_weights": True,
    }
