"""Adapters on a whole model: put on, counted, switched, merged, taken off, read and written."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from lora_compare.errors import ParamsError
from lora_compare.lora.copies import add_copy, forget_copies, use_copies
from lora_compare.lora.layer import LoRALayer, LowRank
from lora_compare.lora.plain import numel
from lora_compare.lora.start import start_embedding_factors, start_factors
from lora_compare.lora.targets import Target, find_targets
from lora_compare.params import FROM_WEIGHT, Aliases, LoraParams

DEFAULT = "default"
"""The name of an adapter that was given none."""


def _no_aliases(_: str) -> tuple[str, ...]:
    return ()


def inject(
    model: nn.Module,
    settings: LoraParams,
    name: str = DEFAULT,
    aliases: Aliases = _no_aliases,
    initialise: bool = True,
) -> list[str]:
    """Freeze `model`, put an adapter on its targeted layers, in place, and activate it.

    Afterwards the adapter, the biases that `settings.bias` names and `modules_to_save` are
    all that is trained. Other adapters stay, inactive.

    Args:
        model: Any module that contains Linear, Conv1D or Embedding layers.
        settings: What the adapter is; `quantization` is the caller's to apply before.
        name: The adapter's name.
        aliases: Returns other dotted paths under which settings may name a module.
        initialise: False leaves the factors as they come, for a state that is loaded next.

    Returns:
        The dotted paths of the adapted layers, in the model's order.

    Raises:
        ParamsError: The settings do not fit the model; nothing was changed.
    """
    _check_name(model, name)
    unmerge(model)
    targets, saved = find_targets(model, settings, aliases)
    if not adapter_names(model):
        model.requires_grad_(False)
    for target in targets:
        _add(model, target, settings, name, initialise)
    adapted = [target.path for target in targets]
    for path in _trained_in_full(model, settings, saved, adapted):
        owner, _, parameter = path.rpartition(".")
        add_copy(model.get_submodule(owner), parameter, name)
    activate(model, name)
    return adapted


def _check_name(model: nn.Module, name: str) -> None:
    taken = name in adapter_names(model)
    if taken or "." in name or not name or hasattr(nn.ModuleDict, name):
        raise ParamsError(
            f"An adapter cannot be called {name!r}.",
            expected="a name without a dot that is no other adapter's and no word of PyTorch",
            actual="there is one of this name" if taken else name,
        )


def _add(
    model: nn.Module, target: Target, settings: LoraParams, name: str, initialise: bool
) -> None:
    layer = model.get_submodule(target.path)
    if not isinstance(layer, LoRALayer):
        layer = LoRALayer(layer)
        model.set_submodule(target.path, layer)
    weight = layer.weight
    root = target.r**0.5 if settings.use_rslora else target.r
    scale = target.lora_alpha / root
    start = settings.init_lora_weights
    if not initialise:
        a, b = weight.new_zeros(target.r, weight.shape[1]), weight.new_zeros(len(weight), target.r)
    elif isinstance(target.module, nn.Embedding):
        a, b = start_embedding_factors(weight, target.r)
    else:
        a, b = start_factors(weight, target.r, scale, start)
    adapter = LowRank(a, b, scale, settings.lora_dropout, subtract_start=start in FROM_WEIGHT)
    if settings.use_dora:
        adapter.start_magnitude(weight)
    layer.adapters[name] = adapter.train(layer.training)


def _trained_in_full(
    model: nn.Module, settings: LoraParams, saved: list[str], adapted: list[str]
) -> list[str]:
    """Return the paths of the parameters that get a copy: saved modules' and chosen biases'."""
    within = tuple(f"{path}." for path in saved)
    biases = {f"{path}.base_layer.bias" for path in adapted} if settings.bias == "lora_only" else ()
    return [
        path
        for path, _ in model.named_parameters()
        if ".adapters." not in path
        and (
            path.startswith(within)
            or path in biases
            or (settings.bias == "all" and path.endswith(".bias"))
        )
    ]


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, LoRALayer]]:
    """Yield the dotted path and the module of every adapted layer."""
    for path, module in model.named_modules():
        if isinstance(module, LoRALayer):
            yield path, module


def adapter_names(model: nn.Module) -> list[str]:
    """Return the names of the adapters on `model`, sorted."""
    return sorted({name for _, layer in adapted_layers(model) for name in layer.adapters})


def active_adapter(model: nn.Module) -> str | None:
    """Return the name of the adapter in use, or None."""
    return next((layer.active for _, layer in adapted_layers(model)), None)


def activate(model: nn.Module, name: str | None) -> None:
    """Use and train the adapter `name` and no other, in place; None uses the bare base.

    A merged model is unmerged first.

    Raises:
        ParamsError: There is no such adapter.
    """
    known = adapter_names(model)
    if name is not None and name not in known:
        raise ParamsError(
            f"There is no adapter {name!r}.", expected=", ".join(known) or "none", actual=name
        )
    unmerge(model)
    for _, layer in adapted_layers(model):
        layer.active = name
        for other in layer.adapters:
            layer.adapters[other].requires_grad_(other == name)
    use_copies(model, name)


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Compute what the bare base computes, bit for bit, within the block."""
    name = active_adapter(model)
    activate(model, None)
    try:
        yield
    finally:
        activate(model, name)


@dataclass(frozen=True)
class Count:
    """How much of a model is trained; its text is in PEFT's wording.

    Attributes:
        trainable: Parameters that require a gradient.
        total: All parameters, adapters included; 4-bit ones count like others.
    """

    trainable: int
    total: int

    @property
    def percent(self) -> float:
        """The share of trainable parameters, in percent."""
        return 100 * self.trainable / self.total

    def __str__(self) -> str:
        """Return the line that PEFT's `print_trainable_parameters` prints."""
        return (
            f"trainable params: {self.trainable:,d} || all params: {self.total:,d} || "
            f"trainable%: {self.percent:.4f}"
        )


def count(model: nn.Module) -> Count:
    """Return the numbers of trainable and of all parameters of `model`."""
    sizes = [(numel(p), p.requires_grad) for p in model.parameters()]
    return Count(sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes))


def merge(model: nn.Module) -> None:
    """Let the active adapter's updates become part of the weights, in place.

    The model computes the same, to rounding, without the price of an adapter. The base's own
    weights are kept aside for `unmerge`.
    """
    for _, layer in adapted_layers(model):
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Undo `merge`, in place: the base's weights are back bit for bit."""
    for _, layer in adapted_layers(model):
        layer.unmerge()


def unload(model: nn.Module) -> nn.Module:
    """Take all adapters off, in place: the base as it was before the first `inject`, frozen.

    Returns:
        The same model object, its own layers back in their places.
    """
    activate(model, None)
    return _remove_layers(model)


def merge_and_unload(model: nn.Module) -> nn.Module:
    """Keep the active adapter's effect and take all adapters off, in place.

    Returns:
        The same model object with plain layers; its weights cannot be told apart from those
        of a fully fine-tuned model.
    """
    merge(model)
    return _remove_layers(model)


def _remove_layers(model: nn.Module) -> nn.Module:
    for path, layer in list(adapted_layers(model)):
        model.set_submodule(path, layer.base_layer)
    forget_copies(model)
    return model


def parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, loraplus_lr_ratio: float | None
) -> list[dict[str, Any]]:
    """Return the trained parameters in groups for an optimizer.

    With LoRA+, every B, bias and magnitude moves `loraplus_lr_ratio` times as fast; both
    factors of an embedding keep the plain rate.

    Args:
        model: The model.
        learning_rate: The rate of A and of everything that is not named here.
        weight_decay: Decoupled weight decay of all groups.
        loraplus_lr_ratio: The ratio, unitless; None for one group.

    Source: Hayou et al. 2024, arXiv:2402.12354, section 3; the groups are PEFT's.
    """
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    plain = {"lr": learning_rate, "weight_decay": weight_decay}
    if loraplus_lr_ratio is None:
        return [{"params": list(trained.values()), **plain}]
    embedding = {
        id(parameter)
        for _, layer in adapted_layers(model)
        if isinstance(layer.base_layer, nn.Embedding)
        for parameter in layer.adapters.parameters()
    }
    fast = [
        p
        for n, p in trained.items()
        if id(p) not in embedding and (n.endswith(".lora_B") or p.ndim == 1)
    ]
    fast_ids = {id(p) for p in fast}
    slow = [p for p in trained.values() if id(p) not in fast_ids]
    return [
        {"params": slow, **plain},
        {"params": fast, **plain, "lr": learning_rate * loraplus_lr_ratio},
    ]
