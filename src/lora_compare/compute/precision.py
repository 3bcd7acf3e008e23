"""Which arithmetic a device is good at, and computing in it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

Precision = Literal["auto", "float32", "bfloat16"]

NARROW = 512
"""Width of a residual stream below which casts cost more than bfloat16 products save.

LoRA takes 1.6 times as long in bfloat16 at a width of 128, and 0.6 times at 768
(docs/decisions/0007).
"""


def choose_precision(name: Precision, device: torch.device, width: int) -> torch.dtype:
    """Return the type of the arithmetic, for `auto` the fastest that costs no accuracy here.

    Args:
        name: The setting `training.precision`.
        device: Where the arithmetic is done.
        width: Width of the network's residual stream.
    """
    if name == "auto":
        fast = width >= NARROW and has_fast_bfloat16(device)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 matrices in hardware.

    Elsewhere every product is emulated, on CPUs twenty times slower than in float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        known = torch.cpu.get_capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return False


def computing_in(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Return a context in which matrices are multiplied in bfloat16, if that is `dtype`."""
    lower = dtype == torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=lower)


def lower_frozen(model: nn.Module, dtype: torch.dtype, keep: tuple[nn.Module, ...] = ()) -> None:
    """Hold the frozen weights of Linear layers in `dtype`, in place: half the memory in bfloat16.

    Args:
        model: The model; what it trains stays as it is.
        dtype: Type of the arithmetic.
        keep: Modules that stay as they are, with all that is in them.
    """
    for layer in _linear_layers(model, keep):
        for parameter in layer.parameters(recurse=False):
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)


@contextmanager
def trained_in_float32(
    model: nn.Module, dtype: torch.dtype, keep: tuple[nn.Module, ...] = ()
) -> Iterator[Mapping[nn.Parameter, nn.Parameter]]:
    """Hold the trained weights of Linear layers in bfloat16 within the block, if that is `dtype`.

    Autocast casts such a weight in every forward pass and its gradient in every backward pass.
    Here the optimizer does both where it reads and writes them anyway (`MasterAdamW`), to the
    same numbers. On devices other than CPUs, whose memory is fast, autocast does it.

    Args:
        model: The model, changed in place; after the block it has what was trained.
        dtype: Type of the arithmetic.
        keep: Modules that stay as they are, with all that is in them.

    Yields:
        The float32 weights to train, by the parameters that the model computes with.

    Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.1 (master weights).
    """
    masters: dict[nn.Parameter, nn.Parameter] = {}
    if dtype == torch.bfloat16:
        for layer in _linear_layers(model, keep):
            weight: nn.Parameter = layer.weight  # type: ignore[assignment]
            if weight.requires_grad and weight.device.type == "cpu" and weight not in masters:
                masters[weight] = nn.Parameter(weight.data)
                weight.data = weight.data.to(dtype)
    try:
        yield masters
    finally:
        for weight, master in masters.items():
            weight.data = master.data


def _linear_layers(model: nn.Module, keep: tuple[nn.Module, ...]) -> Iterator[nn.Linear]:
    kept = {id(inner) for module in keep for inner in module.modules()}
    for module in model.modules():
        if type(module) is nn.Linear and id(module) not in kept:
            yield module
