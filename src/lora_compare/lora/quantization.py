"""QLoRA's 4-bit base: frozen Linear layers held in NormalFloat4."""

import logging
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from lora_compare.errors import ParamsError


def quantize(model: nn.Module, keep: Collection[str] = ()) -> list[str]:
    """Hold the Linear layers of `model` in 4-bit NormalFloat, in place, and return their paths.

    The quantisation constants are quantised too. A layer computes in float32 (bfloat16 on a
    GPU that has it) with its weight dequantised block by block. A layer in 4 bit stays as it is.

    Args:
        model: A module with Linear layers; it may be on any device.
        keep: Dotted paths of Linear layers that stay as they are.

    Raises:
        ParamsError: The library bitsandbytes is not installed.

    Source: Dettmers et al. 2023, arXiv:2305.14314, section 3.
    """
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name not in keep and not is_quantized(module)
    }
    for name, linear in linears.items():
        model.set_submodule(name, _nf4(linear))
    return list(linears)


def _nf4(linear: nn.Linear) -> nn.Module:
    bitsandbytes = _bitsandbytes()
    device = linear.weight.device
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
    layer = bitsandbytes.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=torch.bfloat16 if fast else torch.float32,
        quant_type="nf4",
        device="meta",
    )
    layer.weight = bitsandbytes.nn.Params4bit(
        linear.weight.detach().clone(), requires_grad=False, quant_type="nf4", module=layer
    )
    layer.bias = linear.bias
    # Evaluation on a CPU with fast bfloat16 would repack the weight and round what it computes:
    # the same layer would give other outputs than in training.
    layer.support_avx512bf16_for_cpu = False
    # The weight is quantised by the move to a device, also to the one where it is.
    layer.weight = layer.weight.to(device)
    return layer.train(linear.training)  # type: ignore[no-any-return]


def _bitsandbytes() -> Any:
    # It recommends faster kernels from the network at the first use on a CPU.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes
    except ImportError as error:
        raise ParamsError(
            "Quantisation needs the library bitsandbytes.",
            where="lora.quantization",
            actual=str(error),
            next='pip install "lora-compare[qlora]" (here: pip install -e ".[qlora]"),\n'
            "or remove quantization from the method in params.yaml",
        ) from error
    return bitsandbytes


def is_quantized(layer: nn.Module) -> bool:
    """Whether `layer` holds its weight in 4 bit."""
    return hasattr(getattr(layer, "weight", None), "quant_state")


def dense_weight(layer: nn.Module) -> Tensor:
    """Return the weight of a Linear layer, dequantised where it is quantised.

    Args:
        layer: The layer.

    Returns:
        W, shape (d_out, d_in).
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if not is_quantized(layer):
        return weight
    state = getattr(weight, "quant_state")  # noqa: B009 (a Tensor has none for mypy)
    dense: Tensor = _bitsandbytes().functional.dequantize_4bit(weight.data, state)
    return dense


def numel(parameter: Tensor) -> int:
    """Return how many weights `parameter` stands for; two of them share a byte in 4 bit."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())
