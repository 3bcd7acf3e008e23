"""What a recording does beside playing: one set of gradients, and no trace of its making."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lora_compare.compute.graphs import Play, Recorded


class Repeated:
    """Stands for a GPU's graphs: "plays" by doing the work again, and counts recordings."""

    def __init__(self) -> None:
        self.recordings = 0

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Play, Tensor]:
        self.recordings += 1
        loss = torch.zeros(())

        def play() -> None:
            loss.copy_(work())

        return play, loss


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def recorded(model: nn.Linear, capture: Repeated, dropout: bool = False) -> Recorded:
    unused = nn.Parameter(torch.ones(2))

    def work(x: Tensor) -> Tensor:
        loss = model(nn.functional.dropout(x) if dropout else x).square().sum()
        loss.backward()
        return loss.detach()

    return Recorded(work, [*model.parameters(), unused], capture)


@pytest.mark.parametrize("dropout", [False, True])
def test_losses_and_gradients_are_those_of_the_work(dropout: bool) -> None:
    model, twin, capture = layer(), layer(), Repeated()
    played = recorded(model, capture, dropout)
    shapes = [(2, 3), (4, 3), (2, 3), (4, 3)]
    inputs = [torch.randn(shape) for shape in shapes]
    torch.manual_seed(1)
    found = []
    for x in inputs:
        model.zero_grad(set_to_none=True)
        found.append((played(x), *(p.grad.clone() for p in model.parameters())))
    torch.manual_seed(1)  # dropout as if nothing had been recorded
    for x, (loss, *gradients) in zip(inputs, found, strict=True):
        twin.zero_grad(set_to_none=True)
        expected = twin(nn.functional.dropout(x) if dropout else x).square().sum()
        expected.backward()
        assert loss == expected
        for own, other in zip(gradients, twin.parameters(), strict=True):
            assert torch.equal(own, other.grad)
    assert capture.recordings == (0 if dropout else 2)


def test_gradients_add_up_between_two_zeroings_and_stay_where_they_are() -> None:
    model, capture = layer(), Repeated()
    played, x = recorded(model, capture), torch.ones(2, 3)
    played(x)
    places = [p.grad.data_ptr() for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    torch.manual_seed(2)
    played(x)
    one = model.weight.grad.clone()
    played(torch.ones(5, 3))  # recorded in the middle of a step
    two = model.weight.grad - one
    model.zero_grad(set_to_none=True)
    torch.manual_seed(2)
    played(x)
    played(torch.ones(5, 3))
    torch.testing.assert_close(model.weight.grad, one + two)
    assert [p.grad.data_ptr() for p in model.parameters()] == places


def test_recordings_end_when_they_are_closed_and_are_made_anew() -> None:
    model, capture = layer(), Repeated()
    played, x = recorded(model, capture), torch.ones(2, 3)
    played(x)
    played.close()
    played(x)
    played(x)
    assert capture.recordings == 2


def test_a_parameter_without_a_gradient_keeps_none() -> None:
    unused = nn.Parameter(torch.ones(2))
    used = nn.Parameter(torch.ones(2))

    def work(x: Tensor) -> Tensor:
        loss = (used * x).sum()
        loss.backward()
        return loss.detach()

    played = Recorded(work, [unused, used], Repeated())
    for _ in range(2):
        played(torch.ones(2))
    assert unused.grad is None
    assert used.grad.tolist() == [2.0, 2.0]
