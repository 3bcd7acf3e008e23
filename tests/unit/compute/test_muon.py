"""Muon: as torch's, with exact orthogonal updates."""

import pytest
import torch
from torch import nn

from lora_compare.compute.optimizers import Muon, orthogonal

SHAPES = [(8, 8), (8, 8), (32, 8), (8, 32)]


def matrices() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def test_steps_equal_those_of_torchs_muon() -> None:
    """To the precision of bfloat16, in which torch's computes."""
    ours, theirs = matrices(), matrices()
    rate = 0.02
    own = Muon(ours, lr=rate, weight_decay=0.1)
    other = torch.optim.Muon(theirs, lr=rate, weight_decay=0.1)
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        own.step()
        other.step()
    for start, a, b in zip(matrices(), ours, theirs, strict=True):
        moved = (b - start).norm()
        assert (a - b).norm() < 0.02 * moved


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 4, 9), (2, 9, 4)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    x = torch.randn(shape, dtype=torch.float64)
    result = orthogonal(x)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.25
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    inside = u.mT @ result @ vh.mT
    off_diagonal = inside - torch.diag_embed(torch.diagonal(inside, dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < 1e-9
    assert s.max() / s.min() > 2


def test_a_matrix_without_gradient_stays_as_it_is() -> None:
    first, second = matrices()[:2]
    before = second.detach().clone()
    first.grad = torch.ones_like(first)
    Muon([first, second], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(second, before)
