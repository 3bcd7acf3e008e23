"""The optimizers: AdamW over float32 masters, Muon for matrices, and a learning rate over time."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import unwrap
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

CHUNK = 2**19
"""Weights that `MasterAdamW` takes at a time: few enough that what it makes of them stays in cache.

For GPT-2 small's on 2 cores a step takes a tenth less than with whole weights, and a fifth to a
third less than with 2**17.
"""


@dataclass(frozen=True)
class Rates:
    """The settings of AdamW that every method has of its own.

    Attributes:
        learning_rate: Its learning rate at the peak.
        weight_decay: Its decoupled weight decay.
        loraplus_lr_ratio: Rate of the adapters' B over that of A; None: the same.
    """

    learning_rate: float
    weight_decay: float
    loraplus_lr_ratio: float | None = None


class Uncompiled(torch.optim.Optimizer):
    """An optimizer whose parameter groups are made and cleared without torch's compiler.

    torch wraps these methods so that a compiled training leaves them out. Nothing here is
    compiled, and the wrapper imports the compiler: a second of every stage that trains.
    """

    add_param_group: Any = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad: Any = unwrap(torch.optim.Optimizer.zero_grad)


class AdamW(Uncompiled, torch.optim.AdamW):
    """torch's AdamW, bit for bit.

    Checked by tests/unit/compute/test_optimizers.py::test_steps_equal_those_of_torchs_adamw.
    """

    step: Any = torch.no_grad()(unwrap(torch.optim.AdamW.step))


class MasterAdamW(AdamW):
    """AdamW of float32 masters of weights that a model holds in bfloat16.

    A step goes through a weight in chunks: the gradient becomes float32, the master moves, and
    its new value goes to the model, while all of them are in the processor's cache.

    Args:
        groups: Parameter groups of the model's own parameters.
        masters: The float32 weights by the model's own; a parameter without one is trained itself.
        settings: As for torch's AdamW, whose fused kernel does the steps.

    Checked bit for bit by tests/unit/compute/test_optimizers.py against autocast.
    """

    def __init__(
        self,
        groups: Iterable[Mapping[str, Any]],
        masters: Mapping[nn.Parameter, nn.Parameter],
        **settings: Any,
    ) -> None:
        self._weights = {master: weight for weight, master in masters.items()}
        own = [{**g, "params": [masters.get(p, p) for p in g["params"]]} for g in groups]
        super().__init__(own, fused=True, **settings)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, those of the model's weights too."""
        super().zero_grad(set_to_none)
        for weight in self._weights.values():
            weight.grad = None

    @torch.no_grad()
    def collect(self) -> None:
        """Add the gradients of the model's weights to those of their masters, in float32.

        Needed where a step sees all gradients at once or adds up those of several batches.
        """
        for master, weight in self._weights.items():
            if weight.grad is not None:
                if master.grad is None:
                    master.grad = weight.grad.to(master.dtype)
                else:
                    master.grad.add_(weight.grad)
                weight.grad = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step along the gradients, collected or not, and give the model its new weights.

        Args:
            closure: Not supported.
        """
        assert closure is None
        super().step()
        for group in self.param_groups:
            for master in group["params"]:
                weight = self._weights.get(master)
                if weight is not None and weight.grad is not None:
                    self._step_in_chunks(group, master, weight, weight.grad)
                    weight.grad = None
                elif weight is not None:
                    weight.copy_(master)

    def _step_in_chunks(
        self, group: Mapping[str, Any], master: Tensor, weight: Tensor, grad: Tensor
    ) -> None:
        state = self.state[master]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state |= {key: torch.zeros_like(master) for key in ("exp_avg", "exp_avg_sq")}
        beta1, beta2 = group["betas"]
        names = ("lr", "weight_decay", "eps", "amsgrad", "maximize")
        settings = {name: group[name] for name in names} | {"beta1": beta1, "beta2": beta2}
        whole = (master, weight, grad, state["exp_avg"], state["exp_avg_sq"])
        for chunks in zip(*(tensor.view(-1).split(CHUNK) for tensor in whole), strict=True):
            high, low, change, mean, square = chunks
            change, step = change.to(high.dtype), state["step"].clone()
            adamw([high], [change], [mean], [square], [], [step], fused=True, **settings)
            low.copy_(high)
        state["step"] += 1

    @torch.no_grad()
    def lower(self) -> None:
        """Give the model's weights the values of their masters."""
        for master, weight in self._weights.items():
            weight.copy_(master)


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
    Checked by tests/unit/compute/test_muon.py::test_steps_equal_those_of_torchs_muon.
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


def rate_factor(
    step: int, steps: int, scheduler: Literal["constant", "linear", "cosine"], warmup_ratio: float
) -> float:
    """Return the learning rate of a step as a fraction of its peak.

    Args:
        step: From 0 to `steps` - 1.
        steps: Optimizer steps of the whole training.
        scheduler: `constant`, or `linear` or `cosine` decay to zero.
        warmup_ratio: Fraction of the steps in which the rate rises linearly to its peak.
    """
    warmup = round(warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / warmup
    remaining = (steps - step) / max(1, steps - warmup)
    return {
        "constant": 1.0,
        "linear": remaining,
        "cosine": 0.5 * (1 - math.cos(math.pi * remaining)),
    }[scheduler]
