"""Linear layers of one input as one operation, their low-rank updates included."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


@dataclass(frozen=True)
class Adapted:
    """A frozen linear layer with a trained low-rank update: x W^T + b + scale * x A^T B^T.

    Attributes:
        weight: W, shape (d_out, d_in).
        bias: b, shape (d_out,), or None.
        a: A, shape (r, d_in).
        b: B, shape (d_out, r).
        scale: Unitless factor of the update.
    """

    weight: Tensor
    bias: Tensor | None
    a: Tensor
    b: Tensor
    scale: float


@runtime_checkable
class Adaptable(Protocol):
    """A layer that may be a frozen linear layer with a low-rank update."""

    def adapted(self) -> Adapted | None:
        """Return what the layer computes now, if it is just that."""


def project(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """Return the outputs of several layers with the same input.

    Where all of them are adapted, their frozen weights are multiplied at once.

    Args:
        x: The input, shape (..., d_in).
        layers: Layers from d_in to any width.
    """
    parts = [layer.adapted() if isinstance(layer, Adaptable) else None for layer in layers]
    adapted = [part for part in parts if part is not None]
    if len(adapted) < len(parts):
        return tuple(layer(x) for layer in layers)
    return adapted_linear(x, adapted)


def adapted_linear(x: Tensor, layers: Sequence[Adapted]) -> tuple[Tensor, ...]:
    """Return the outputs of adapted layers with the same input, as one operation.

    Kept for the backward pass are the input and its projections by A, of width r; frozen
    tensors get no gradient. The arithmetic is that of autocast where it is on.

    Args:
        x: The input, shape (..., d_in).
        layers: k layers.

    Returns:
        k outputs, each of shape (..., d_out of the layer).

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
    Checked by tests/unit/compute/test_linear.py against the plain formulation and by gradcheck.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    scales = [layer.scale for layer in layers]
    tensors = [t for layer in layers for t in (layer.weight, layer.bias, layer.a, layer.b)]
    outputs: tuple[Tensor, ...] = _AdaptedLinear.apply(x, dtype, scales, *tensors)  # type: ignore[no-untyped-call]
    return outputs


class _AdaptedLinear(torch.autograd.Function):
    """k layers of one input; `tensors` are weight, bias, A and B of each."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dtype: torch.dtype, scales: list[float], *tensors: Any
    ) -> tuple[Tensor, ...]:
        weights, biases, downs, ups = (tensors[i::4] for i in range(4))
        ctx.scales, ctx.shape = scales, x.shape
        ctx.ranks, ctx.widths = [len(a) for a in downs], [len(w) for w in weights]
        x = x.reshape(-1, x.shape[-1]).to(dtype)  # (n, d_in)
        down, ups = torch.cat(downs).to(dtype), tuple(up.to(dtype) for up in ups)
        projected = x @ down.T  # (n, sum of the ranks)
        weight = together(weights).to(dtype)
        ctx.save_for_backward(x, projected, weight, down, *ups)
        bias = _joined(biases, ctx.widths, like=weight)
        outputs = F.linear(x, weight, bias).split(ctx.widths, dim=1)
        for output, u, up, scale in zip(
            outputs, projected.split(ctx.ranks, dim=1), ups, scales, strict=True
        ):
            output.addmm_(u, up.T, alpha=scale)
        return tuple(output.unflatten(0, ctx.shape[:-1]) for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, projected, weight, down, *ups = ctx.saved_tensors
        needed = ctx.needs_input_grad
        each = [g.reshape(-1, width) for g, width in zip(grads, ctx.widths, strict=True)]
        inner = torch.cat(
            [(g @ up).mul_(scale) for g, up, scale in zip(each, ups, ctx.scales, strict=True)],
            dim=1,
        )  # of the projections, (n, sum of the ranks)
        of_downs = (inner.T @ x).split(ctx.ranks)
        of_ups = [
            (g.T @ u).mul_(scale)
            for g, u, scale in zip(each, projected.split(ctx.ranks, dim=1), ctx.scales, strict=True)
        ]
        of_biases = [g.sum(dim=0) if needed[4 + 4 * i] else None for i, g in enumerate(each)]
        of_x = None
        if needed[0]:
            every = each[0] if len(each) == 1 else torch.cat(each, dim=1)
            of_x = (every @ weight).addmm_(inner, down).view(ctx.shape)
        tensors = zip([None] * len(each), of_biases, of_downs, of_ups, strict=True)
        return of_x, None, None, *(tensor for layer in tensors for tensor in layer)


def together(weights: Sequence[Tensor]) -> Tensor:
    """Return frozen weights as one matrix, moving them next to each other in memory.

    They stay the same tensors with the same values; from then on the matrix is a view of them.

    Args:
        weights: Matrices of the same width.
    """
    first = weights[0]
    if len(weights) == 1:
        return first
    rows = sum(len(weight) for weight in weights)
    if not _adjacent(weights):
        # A tensor made in inference mode could never be trained on again.
        with torch.inference_mode(False):
            parts = torch.cat([w.detach() for w in weights]).split([len(w) for w in weights])
        for weight, part in zip(weights, parts, strict=True):
            weight.data = part
    return first.as_strided((rows, first.shape[1]), first.stride())


def _adjacent(weights: Sequence[Tensor]) -> bool:
    ends = [w.data_ptr() + w.numel() * w.element_size() for w in weights]
    return all(w.is_contiguous() for w in weights) and all(
        w.data_ptr() == end
        and w.untyped_storage().data_ptr() == weights[0].untyped_storage().data_ptr()
        for w, end in zip(weights[1:], ends, strict=False)
    )


def _joined(biases: Sequence[Tensor | None], widths: Sequence[int], like: Tensor) -> Tensor | None:
    """Return the biases of all layers as one, zeros where a layer has none."""
    if all(bias is None for bias in biases):
        return None
    pairs = zip(biases, widths, strict=True)
    return torch.cat([like.new_zeros(width) if b is None else b.to(like) for b, width in pairs])
