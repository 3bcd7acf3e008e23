"""The optimizer Muon: steps whose update of a matrix is orthogonal."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lora_compare.compute.optimizers import Uncompiled

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that drives singular values towards 1, as steep as it can be at zero."""

ITERATIONS = 5


class Muon(Uncompiled):
    """Momentum whose update of every matrix is made orthogonal, for matrices inside a network.

    A matrix's update gets singular values near 1, so that rare directions are learned as fast
    as common ones. torch.optim.Muon does the same in bfloat16, which takes twenty times as long
    on processors without it; here it is float32, and matrices of one shape go together.

    Args:
        matrices: Parameters of two dimensions.
        lr: Learning rate, the spectral norm of a square matrix's step.
        weight_decay: Decoupled weight decay.
        momentum: Share of the past in the moving average of the gradients (Nesterov's).

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    Checked by tests/unit/test_muon.py::test_steps_equal_those_of_torchs_muon.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        assert all(p.ndim == 2 for group in self.param_groups for p in group["params"])

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step along the gradients; `closure` is not supported."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for (rows, columns), parameters in by_shape.items():
                updates = orthogonal(self._averages(parameters, group["momentum"]))
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update, alpha=rate)

    def _averages(self, parameters: list[Tensor], momentum: float) -> Tensor:
        """Return the gradients' moving averages, a step ahead, stacked: (n, rows, columns)."""
        ahead = []
        for parameter in parameters:
            assert parameter.grad is not None
            average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
            average.lerp_(parameter.grad, 1 - momentum)
            ahead.append(parameter.grad.lerp(average, momentum))
        return torch.stack(ahead)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return matrices of the same singular vectors with all singular values near 1.

    Args:
        matrices: Shape (n, rows, columns).

    Source: as `Muon`; Newton-Schulz iterations instead of a singular value decomposition.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result
