"""LoRA for `nn.Linear`: inject, freeze, merge and unload; knows nothing of GPT."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_compare.errors import ParamsError

Bias = Literal["none", "all", "lora_only"]


def lora_delta(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return the (d_out, d_in) matrix that merging one adapter adds to W.

    Args:
        a: Down-projection, shape (r, d_in).
        b: Up-projection, shape (d_out, r); all zeros before the first step.
        scale: Unitless factor, lora_alpha / r.

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
    Checked by tests/unit/test_lora.py::test_merged_layer_computes_what_the_adapter_does.
    """
    return scale * (b @ a)


class LoRALinear(nn.Module):
    """A frozen Linear layer plus a trained low-rank update of its weight.

    The output is `linear(x) + scale * B A dropout(x)`. B starts at zero, so that training
    starts from exactly what the frozen layer computes.

    Args:
        linear: The layer to adapt, weight of shape (d_out, d_in); it is frozen.
        r: Rank of the update.
        lora_alpha: Unitless numerator of the scale lora_alpha / r.
        lora_dropout: Probability of zeroing an input of the adapter while training.

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
    """

    def __init__(self, linear: nn.Linear, r: int, lora_alpha: float, lora_dropout: float) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.scale = lora_alpha / r
        self.dropout = nn.Dropout(lora_dropout) if lora_dropout > 0 else nn.Identity()
        weight = linear.weight
        self.lora_A = nn.Parameter(weight.new_empty(r, linear.in_features))
        self.lora_B = nn.Parameter(weight.new_zeros(linear.out_features, r))
        # a = sqrt(5) gives the uniform bound 1/sqrt(d_in) that nn.Linear itself starts with.
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapted layer's output, shape (..., d_out) for `x` of (..., d_in)."""
        down = F.linear(self.dropout(x), self.lora_A)  # (..., r)
        y: Tensor = self.linear(x) + self.scale * F.linear(down, self.lora_B)
        return y

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the wrapped Linear layer with the update added to its weight, in place."""
        self.linear.weight += lora_delta(self.lora_A, self.lora_B, self.scale)
        return self.linear


def linear_names(model: nn.Module) -> list[str]:
    """Return the dotted paths of the model's Linear layers, adapted ones excluded."""
    inside = tuple(f"{name}." for name, _ in adapted_layers(model))
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(inside)
    ]


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Yield the dotted path and the module of every adapted layer."""
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def select(names: Sequence[str], target_modules: str | Sequence[str]) -> list[str]:
    """Return those of `names` that `target_modules` means, in their order.

    Args:
        names: Dotted paths of Linear layers.
        target_modules: `all-linear`, or ends of paths: `q_proj` or `mlp.c_proj`.

    Raises:
        ParamsError: A target matches no layer; the message lists the names there are.
    """
    if target_modules == "all-linear":
        return list(names)
    targets = [target_modules] if isinstance(target_modules, str) else list(target_modules)
    unknown = [t for t in targets if not any(_ends_with(name, t) for name in names)]
    if unknown:
        raise ParamsError(
            f"No Linear layer is called {', '.join(unknown)}.",
            where="lora.target_modules",
            expected="all-linear, or some of "
            + ", ".join(sorted({n.split(".")[-1] for n in names})),
            actual=", ".join(targets),
        )
    return [name for name in names if any(_ends_with(name, t) for t in targets)]


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def inject(
    model: nn.Module,
    r: int,
    lora_alpha: float,
    lora_dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    bias: Bias = "none",
) -> list[str]:
    """Freeze `model` and wrap its targeted Linear layers in adapters, in place.

    Afterwards the adapters, and the biases that `bias` names, are all that is trained.

    Args:
        model: Any module that contains Linear layers.
        r: Rank, at most the larger side of each adapted weight.
        lora_alpha: Unitless numerator of the scale lora_alpha / r.
        lora_dropout: Probability of zeroing an adapter's input while training.
        target_modules: `all-linear`, or ends of the layers' dotted paths.
        bias: Which biases are trained too: `none`, `all`, or `lora_only` (adapted layers').

    Returns:
        The dotted paths of the adapted layers, in the model's order.

    Raises:
        ParamsError: A target matches no layer, or a layer has no room for rank r.
    """
    chosen = select(linear_names(model), target_modules)
    for name in chosen:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        _check_rank(name, linear, r)
    model.requires_grad_(False)
    for name in chosen:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        model.set_submodule(name, LoRALinear(linear, r, lora_alpha, lora_dropout))
    _train_biases(model, bias)
    return chosen


def _check_rank(name: str, linear: nn.Linear, r: int) -> None:
    # The head of a two-class model has a side of 2. A rank above it is wasteful but harmless
    # there, and the published parameter counts include it; a rank above both sides is not LoRA.
    if r > max(linear.in_features, linear.out_features):
        raise ParamsError(
            f"The rank is larger than the layer {name}.",
            where="lora.r",
            expected=f"at most {max(linear.in_features, linear.out_features)}",
            actual=str(r),
        )


def _train_biases(model: nn.Module, bias: Bias) -> None:
    if bias == "all":
        for name, parameter in model.named_parameters():
            if name.split(".")[-1] == "bias":
                parameter.requires_grad_(True)
    elif bias == "lora_only":
        for _, layer in adapted_layers(model):
            if layer.linear.bias is not None:
                layer.linear.bias.requires_grad_(True)


def merge_and_unload(model: nn.Module) -> nn.Module:
    """Add every adapter to its layer's weight and put the plain Linear layers back, in place.

    Returns:
        The same model object, without adapters; its weights cannot be told apart from a
        fully fine-tuned model's.
    """
    for name, layer in list(adapted_layers(model)):
        model.set_submodule(name, layer.merged())
    return model
