"""torch's optimizers without torch's compiler, and AdamW for weights held in bfloat16."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import unwrap
from typing import Any

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

    Checked by tests/unit/test_optimizers.py::test_steps_equal_those_of_torchs_adamw.
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

    Checked by tests/unit/test_optimizers.py against autocast of float32 weights, bit for bit.
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
