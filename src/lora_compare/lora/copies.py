"""Base parameters that an adapter trains in full: biases, and whole modules like a head.

Every adapter has a copy of its own. Activating it puts the copy where the base's parameter
was; the base's parameter is kept beside it and comes back, untouched, with any other choice.
"""

from collections.abc import Iterator

from torch import nn

BASE = ""
"""The key of the base's own parameter; no adapter has an empty name."""

_ATTRIBUTE = "lora_copies"

Copies = dict[str, dict[str, nn.Parameter]]
"""For each parameter of a module, the base's own and the adapters' copies, by adapter."""


def add_copy(owner: nn.Module, parameter: str, adapter: str) -> None:
    """Give `adapter` a copy of one of the parameters of `owner` itself.

    Args:
        owner: The module that holds the parameter, not one that contains it deeper.
        parameter: Name of the parameter in `owner`.
        adapter: Name of the adapter.
    """
    copies: Copies = owner.__dict__.setdefault(_ATTRIBUTE, {})
    current = owner.get_parameter(parameter)
    known = copies.setdefault(parameter, {BASE: current})
    known[adapter] = nn.Parameter(known[BASE].detach().clone(), requires_grad=False)


def owners(model: nn.Module) -> Iterator[tuple[str, nn.Module, Copies]]:
    """Yield every module with copies: its dotted path, itself, and the copies."""
    for path, module in model.named_modules():
        if copies := module.__dict__.get(_ATTRIBUTE):
            yield path, module, copies


def use_copies(model: nn.Module, adapter: str | None) -> None:
    """Let `adapter` train its copies in place of the base's parameters; None: the base's."""
    for _, owner, copies in owners(model):
        for name, known in copies.items():
            current = owner.get_parameter(name)
            chosen = known.get(adapter or BASE, known[BASE])
            # The model may have moved while this one was aside.
            chosen.data = chosen.data.to(current.device, current.dtype)
            chosen.requires_grad_(chosen is not known[BASE])
            setattr(owner, name, chosen)


def forget_copies(model: nn.Module) -> None:
    """Keep the parameters that are in use now, and drop all others."""
    for _, owner, _ in list(owners(model)):
        del owner.__dict__[_ATTRIBUTE]
