"""The layers of a model that an adapter's settings mean."""

from dataclasses import dataclass

from torch import nn

from lora_compare.lora.layer import LoRALayer
from lora_compare.params import Aliases, Layer, LoraParams, choose_layers


@dataclass(frozen=True)
class Target:
    """A layer to adapt.

    Attributes:
        path: Its dotted path.
        module: The Linear or Embedding layer itself.
        r: Rank of its adapter.
        lora_alpha: Numerator of its adapter's scale.
    """

    path: str
    module: nn.Module
    r: int
    lora_alpha: float


def adaptable(model: nn.Module) -> dict[str, nn.Module]:
    """Return the Linear and Embedding layers of `model` by path; adapted ones too, unwrapped."""
    found: dict[str, nn.Module] = {}
    inside: tuple[str, ...] = ()
    for path, module in model.named_modules():
        if path.startswith(inside) and inside:
            continue
        if isinstance(module, LoRALayer):
            inside = (*inside, f"{path}.")
            found[path] = module.base_layer
        elif path and isinstance(module, nn.Linear | nn.Embedding):
            found[path] = module
    return found


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
        ParamsError: A name or pattern matches nothing, a block does not exist, or a rank does
            not fit its layer.
    """
    layers = adaptable(model)
    modules: dict[str, Layer | None] = {
        path: describe(layers[path]) if path in layers else None
        for path, _ in model.named_modules()
        if path and ".adapters" not in f".{path}"
    }
    choice = choose_layers(modules, settings, aliases)
    if choice.mistakes:
        raise choice.mistakes[0]
    targets = [
        Target(path, layers[path], choice.ranks[path], choice.alphas[path])
        for path in choice.adapted
    ]
    return targets, choice.saved


def describe(module: nn.Module) -> Layer:
    """Return what an adapter must know of a Linear or Embedding layer."""
    if isinstance(module, nn.Embedding):
        return Layer("embedding", (module.num_embeddings, module.embedding_dim))
    assert isinstance(module, nn.Linear)
    return Layer("linear", (module.in_features, module.out_features))
