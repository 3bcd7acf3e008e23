"""QLoRA's 4-bit base: frozen Linear layers held in NormalFloat4."""

import logging
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from lora_compare.errors import ParamsError
from lora_compare.lora.plain import describe, is_conv1d, is_quantized, matrix


def quantize(model: nn.Module, keep: Collection[str] = ()) -> list[str]:
    """Hold the linear layers of `model` in 4-bit NormalFloat, in place, and return their paths.

    The quantisation constants are quantised too. A layer computes in float32 (bfloat16 on a
    GPU that has it) with its weight dequantised block by block. A layer in 4 bit stays as it is.

    Args:
        model: A module with Linear or Conv1D layers; it may be on any device.
        keep: Dotted paths of modules in which all layers stay as they are.

    Raises:
        ParamsError: The library bitsandbytes is not installed.

    Source: Dettmers et al. 2023, arXiv:2305.14314, section 3.
    """
    paths = quantizable(model, keep)
    for path in paths:
        model.set_submodule(path, _nf4(model.get_submodule(path)))
    return paths


def quantizable(model: nn.Module, keep: Collection[str] = ()) -> list[str]:
    """Return the paths of the layers that `quantize` would hold in 4 bit.

    Those are left out of which the model's own code reads more than the output, as transformers
    leaves them out: T5 converts its states to the type of the weight of `wo`.

    Args:
        model: As for `quantize`.
        keep: As for `quantize`.
    """
    exact = {
        name
        for module in model.modules()
        for name in getattr(module, "_keep_in_fp32_modules", None) or ()
    }
    kept = tuple(f"{path}." for path in keep)
    return [
        path
        for path, module in model.named_modules()
        if (isinstance(module, nn.Linear) or is_conv1d(module))
        and not is_quantized(module)
        and not f"{path}.".startswith(kept)
        and exact.isdisjoint(path.split("."))
    ]


def _nf4(plain: nn.Module) -> nn.Module:
    bitsandbytes = _bitsandbytes()
    weight, bias = matrix(plain).detach(), plain.bias
    device = weight.device
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
    layer = bitsandbytes.nn.Linear4bit(
        *describe(plain).sides,
        bias=bias is not None,
        compute_dtype=torch.bfloat16 if fast else torch.float32,
        quant_type="nf4",
        device="meta",
    )
    layer.weight = bitsandbytes.nn.Params4bit(
        weight.clone(memory_format=torch.contiguous_format),
        requires_grad=False,
        quant_type="nf4",
        module=layer,
    )
    layer.bias, layer.source_cls = bias, type(plain)
    # Evaluation on a CPU with fast bfloat16 would repack the weight and round what it computes:
    # the same layer would give other outputs than in training.
    layer.support_avx512bf16_for_cpu = False
    # The weight is quantised by the move to a device, also to the one where it is.
    layer.weight = layer.weight.to(device)
    return layer.train(plain.training)  # type: ignore[no-any-return]


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
