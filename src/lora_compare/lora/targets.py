"""The layers of a model that an adapter's settings mean."""

from dataclasses import dataclass

from torch import nn

from lora_compare.errors import ParamsError
from lora_compare.lora.layer import LoRALayer
from lora_compare.lora.plain import describe, is_adaptable
from lora_compare.params import Aliases, Layer, LoraParams, choose_layers


@dataclass(frozen=True)
class Target:
    """A layer to adapt.

    Attributes:
        path: Its dotted path.
        module: The layer itself.
        r: Rank of its adapter.
        lora_alpha: Numerator of its adapter's scale.
    """

    path: str
    module: nn.Module
    r: int
    lora_alpha: float


def adaptable(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of `model` that can be adapted by path; adapted ones too, unwrapped."""
    found: dict[str, nn.Module] = {}
    inside: tuple[str, ...] = ()
    for path, module in model.named_modules():
        if path.startswith(inside) and inside:
            continue
        if isinstance(module, LoRALayer):
            inside = (*inside, f"{path}.")
            found[path] = module.base_layer
        elif path and is_adaptable(module):
            found[path] = module
    return found


def describe_modules(model: nn.Module) -> dict[str, Layer | None]:
    """Return every module of `model` by path as settings see it; None: it cannot be adapted."""
    layers = adaptable(model)
    return {
        path: describe(layers[path]) if path in layers else None
        for path, _ in model.named_modules()
        if path and ".adapters" not in f".{path}"
    }


def find_targets(
    model: nn.Module, settings: LoraParams, aliases: Aliases
) -> tuple[list[Target], list[str]]:
    """Return the layers to adapt, and the paths of the modules to train in full.

    Both are in the model's order.

    Args:
        model: Any module.
        settings: Which layers, and their ranks.
        aliases: Other names of a module.

    Raises:
        ParamsError: A name or pattern matches nothing, a block does not exist, a rank does not
            fit its layer, or a layer shares its weight with another.
    """
    layers = adaptable(model)
    choice = choose_layers(describe_modules(model), settings, aliases)
    if choice.mistakes:
        raise choice.mistakes[0]
    _refuse_tied(model, "target_modules", choice.adapted)
    _refuse_tied(model, "modules_to_save", choice.saved)
    targets = [
        Target(path, layers[path], choice.ranks[path], choice.alphas[path])
        for path in choice.adapted
    ]
    return targets, choice.saved


def _refuse_tied(model: nn.Module, key: str, paths: list[str]) -> None:
    """Refuse modules of which a parameter is another module's too.

    What is learned for one would not reach the other, and that may be the one that is used: T5
    has one table of embeddings in three places. An adapter may go on a table that the output layer
    of a language model shares: the layer then keeps the frozen weight, as with PEFT.
    """
    users: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        users.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    for path in paths:
        for parameter in model.get_submodule(path).parameters():
            tied = users[id(parameter)]
            if key == "target_modules":
                tied = [user for user in tied if _is_table(model, user) == _is_table(model, path)]
            if len(tied) > 1:
                first, *others = tied
                raise ParamsError(
                    f"{first} shares its weight with {', '.join(others)}.",
                    where=f"lora.{key}",
                    expected="modules with weights of their own",
                    actual=path,
                    next=f"leave {path} out of lora.{key}",
                )


def _is_table(model: nn.Module, path: str) -> bool:
    module = model.get_submodule(path)
    return isinstance(getattr(module, "base_layer", module), nn.Embedding)
