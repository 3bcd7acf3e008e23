"""Adapted layers as one operation: the plain formulation's values and gradients."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_compare.compute.linear import Adapted, adapted_linear, project, together
from lora_compare.lora import LoRALayer, inject
from lora_settings import lora_settings

RANKS, WIDTHS = (2, 3, 1), (4, 5, 4)


def layers(bias: bool = True, dtype: torch.dtype = torch.float64) -> list[Adapted]:
    torch.manual_seed(0)
    found = []
    for r, width in zip(RANKS, WIDTHS, strict=True):
        a = torch.randn(r, 6, dtype=dtype, requires_grad=True)
        b = torch.randn(width, r, dtype=dtype, requires_grad=True)
        offset = torch.randn(width, dtype=dtype, requires_grad=True) if bias else None
        found.append(Adapted(torch.randn(width, 6, dtype=dtype), offset, a, b, 0.5 * r))
    return found


def plain(x: Tensor, layer: Adapted) -> Tensor:
    return F.linear(x, layer.weight, layer.bias) + layer.scale * (x @ layer.a.T @ layer.b.T)


def leaves(x: Tensor, every: list[Adapted]) -> list[Tensor]:
    found = [x, *(t for layer in every for t in (layer.bias, layer.a, layer.b))]
    return [t for t in found if t is not None]


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_the_plain_formulation(bias: bool) -> None:
    every, x = layers(bias), torch.randn(2, 7, 6, dtype=torch.float64, requires_grad=True)
    outputs, expected = adapted_linear(x, every), [plain(x, layer) for layer in every]
    pairs = list(zip(outputs, expected, strict=True))
    for output, other in pairs:
        torch.testing.assert_close(output, other, rtol=0, atol=1e-12)
    ups = [torch.randn_like(output) for output in outputs]
    found = torch.autograd.grad(outputs, leaves(x, every), ups)
    wanted = torch.autograd.grad(expected, leaves(x, every), ups)
    for gradient, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [1, 3])
def test_gradcheck(count: int) -> None:
    every, x = layers()[:count], torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def outputs(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        again = [
            Adapted(layer.weight, next(given), next(given), next(given), layer.scale)
            for layer in every
        ]
        return adapted_linear(x, again)

    assert torch.autograd.gradcheck(outputs, leaves(x, every))


def test_only_the_input_and_the_projections_are_kept() -> None:
    every, x = layers(), torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    own = {t.untyped_storage().data_ptr() for layer in every for t in (layer.weight, layer.b)}
    shapes = []

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            shapes.append(tuple(tensor.shape))
        return tensor

    together([layer.weight for layer in every])
    own |= {layer.weight.untyped_storage().data_ptr() for layer in every}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        adapted_linear(x, every)
    # The input, its projections by all A, and the A themselves, joined.
    assert sorted(shapes) == sorted([(7, 6), (7, sum(RANKS)), (sum(RANKS), 6)])


def test_an_input_without_a_gradient_gets_none() -> None:
    every, x = layers(), torch.randn(3, 6, dtype=torch.float64)
    sum(output.sum() for output in adapted_linear(x, every)).backward()
    assert x.grad is None
    assert all(layer.a.grad is not None for layer in every)


def test_frozen_weights_come_together_without_changing() -> None:
    weights = [torch.randn(width, 6) for width in WIDTHS]
    before = [weight.clone() for weight in weights]
    matrix = together(weights)
    assert torch.equal(matrix, torch.cat(before))
    ends = [w.data_ptr() + w.numel() * 4 for w in weights]
    assert all(w.data_ptr() == end for w, end in zip(weights[1:], ends, strict=False))
    assert together(weights).data_ptr() == matrix.data_ptr() == weights[0].data_ptr()
    assert all(torch.equal(w, other) for w, other in zip(weights, before, strict=True))


def test_layers_of_one_input_share_their_product_where_all_are_adapted() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(6, 6) for name in "qkv"})
    plain_layers, x = [*model.values()], torch.randn(5, 6)
    expected = [layer(x) for layer in plain_layers]
    for output, other in zip(project(x, plain_layers), expected, strict=True):
        assert torch.equal(output, other)
    inject(model, lora_settings())
    adapted = [*model.values()]
    assert all(isinstance(layer, LoRALayer) for layer in adapted)
    for output, other in zip(project(x, adapted), expected, strict=True):
        torch.testing.assert_close(output, other)
    pointers = [layer.base_layer.weight.data_ptr() for layer in adapted]
    assert {b - a for a, b in pairwise(pointers)} == {6 * 6 * 4}


def test_bfloat16_arithmetic_leaves_what_is_trained_in_float32() -> None:
    every, x = layers(dtype=torch.float32), torch.randn(7, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = adapted_linear(x, every)
    assert {output.dtype for output in outputs} == {torch.bfloat16}
    for output, layer in zip(outputs, every, strict=True):
        torch.testing.assert_close(output.float(), plain(x, layer), rtol=0.02, atol=0.1)
    sum(output.float().sum() for output in outputs).backward()
    assert {t.grad.dtype for t in leaves(x, every)} == {torch.float32}
