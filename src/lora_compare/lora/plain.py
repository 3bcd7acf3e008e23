"""The layers that adapters go on, each as a linear map with a weight W of shape (d_out, d_in)."""

import copy
import sys
from typing import Any

import torch
from torch import Tensor, nn

from lora_compare.params import Layer


def is_adaptable(module: nn.Module) -> bool:
    """Whether `module` is a Linear layer, one in 4 bit, transformers' Conv1D, or an Embedding."""
    return isinstance(module, nn.Linear | nn.Embedding) or is_conv1d(module)


def is_conv1d(layer: nn.Module) -> bool:
    """Whether `layer` is transformers' Conv1D, a linear layer whose weight is stored transposed.

    One in 4 bit is what it was before.
    """
    return _is_conv1d_class(source_class(layer))


def _is_conv1d_class(kind: type) -> bool:
    # Where nobody has imported transformers, nothing is one of its layers.
    known = sys.modules.get("transformers.pytorch_utils")
    return known is not None and issubclass(kind, known.Conv1D)


def describe(module: nn.Module) -> Layer:
    """Return what an adapter must know of a layer that is adaptable."""
    if isinstance(module, nn.Embedding):
        return Layer("embedding", (module.num_embeddings, module.embedding_dim))
    if isinstance(module, nn.Linear):
        return Layer("linear", (module.in_features, module.out_features))
    d_in, d_out = dense_weight(module).shape
    return Layer("linear", (d_in, d_out))


def matrix(layer: nn.Module) -> Tensor:
    """Return the W of an adaptable layer, shape (d_out, d_in), dequantised; a view if it can be.

    An embedding is the linear layer over one-hot vectors that it is: its W is the table
    transposed.
    """
    weight = dense_weight(layer)
    turned = isinstance(layer, nn.Embedding) or _is_conv1d_class(source_class(layer))
    return weight.T if turned else weight


def output_scale(layer: nn.Module) -> Tensor | float:
    """Return the factor (unitless) by which a layer's output is more than W x; 1 for most.

    Some models multiply what they look up in their table (Gemma, BART).
    """
    scale: Tensor | float = getattr(layer, "embed_scale", 1.0)
    return scale


def with_weight(layer: nn.Module, weight: Tensor) -> nn.Module:
    """Return a plain layer like `layer` with another weight and the same bias.

    Args:
        layer: An adaptable layer, in 4 bit or not.
        weight: W, shape (d_out, d_in).
    """
    kind = source_class(layer)
    stored = weight
    if issubclass(kind, nn.Embedding) or _is_conv1d_class(kind):
        stored = weight.T.contiguous()
    frozen = nn.Parameter(stored, requires_grad=False)
    if is_quantized(layer):
        return _unlike_quantized(layer, kind, frozen)
    twin: nn.Module = copy.copy(layer)
    # The shallow copy would share the dictionary of parameters, not only the parameters.
    twin._parameters = {**layer._parameters, "weight": frozen}
    return twin


def _unlike_quantized(layer: nn.Module, kind: type[Any], weight: nn.Parameter) -> nn.Module:
    assert isinstance(layer, nn.Linear)
    sides = (layer.in_features, layer.out_features)
    with torch.device("meta"):
        plain: nn.Module = kind(*(sides[::-1] if _is_conv1d_class(kind) else sides))
    plain.register_parameter("weight", weight)
    plain.register_parameter("bias", layer.bias)
    return plain.train(layer.training)


def is_quantized(layer: nn.Module) -> bool:
    """Whether `layer` holds its weight in 4 bit."""
    return hasattr(getattr(layer, "weight", None), "quant_state")


def source_class(layer: nn.Module) -> type[Any]:
    """Return the class of `layer`, or of the layer that it was before it was quantised."""
    if not is_quantized(layer):
        return type(layer)
    # The attribute's name is the one that transformers uses for the same purpose.
    return getattr(layer, "source_cls", nn.Linear)


def dense_weight(layer: nn.Module) -> Tensor:
    """Return the weight of a layer as its class stores it, dequantised where it is quantised.

    Args:
        layer: The layer; one in 4 bit stands for the layer that it was.

    Returns:
        W of a Linear layer, shape (d_out, d_in), W transposed of a Conv1D, the table of an
        Embedding.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if not is_quantized(layer):
        return weight
    import bitsandbytes

    state = getattr(weight, "quant_state")  # noqa: B009 (a Tensor has none for mypy)
    dense: Tensor = bitsandbytes.functional.dequantize_4bit(weight.data, state)
    return dense.T if _is_conv1d_class(source_class(layer)) else dense


def numel(parameter: Tensor) -> int:
    """Return how many weights `parameter` stands for; two of them share a byte in 4 bit."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())
