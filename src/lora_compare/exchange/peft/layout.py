"""transformers' classifier of a base: the names of its parts in PEFT's files, and here."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lora_compare import lora
from lora_compare.exchange.peft.names import Adapter
from lora_compare.models.answers.decision import PLAIN, Decision
from lora_compare.models.network import Network
from lora_compare.params import Layer

Shapes = Mapping[str, tuple[int, ...]]


class Layout(ABC):
    """A classifier here, as transformers and PEFT know it.

    Attributes:
        family: What such models are called.
        layers: The layers that may have an adapter, without those of the head, by path; in the
            model's order.
        head: Paths of the modules that the base does not have, of which each has a name by which
            PEFT saves it whole.
        output: Path of the head's last layer, whose weight has a row for each class.
        tables: The base's own embeddings by path.
        fan_in_fan_out: Whether linear layers keep their weight as (d_in, d_out).
    """

    family: str
    layers: Mapping[str, Layer]
    head: tuple[str, ...]
    output: str
    tables: Mapping[str, Tensor]
    fan_in_fan_out: bool

    @property
    @abstractmethod
    def shapes(self) -> Shapes:
        """The shapes of the tensors of transformers' model, by name."""

    @property
    @abstractmethod
    def modules(self) -> list[str]:
        """The paths of the modules here that own a tensor."""

    @abstractmethod
    def paths(self, path: str) -> list[str]:
        """Return the paths here of what is one module at `path` in transformers."""

    @abstractmethod
    def parts(self, path: str, layer: Adapter) -> dict[str, Adapter]:
        """Return the adapter of a layer of transformers by the paths that the layer has here."""

    @abstractmethod
    def replacements(self, name: str, tensor: Tensor) -> dict[str, Tensor]:
        """Return the tensors here that are one in transformers, by name."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return the tensors of a model of transformers that computes what the classifier does.

        An adapter is merged into them. The classifier is unmerged afterwards.

        Raises:
            ExportError: transformers cannot compute that.
        """

    @abstractmethod
    def adapters(self) -> dict[str, Adapter]:
        """Return the classifier's adapter of each layer, but the head's, by its path there."""

    @abstractmethod
    def saved(self) -> set[str]:
        """Return the paths there of the modules that go along whole: head, those trained in full.

        Where a part of the head is the path of several, they are all in it.
        """

    def owner(self, name: str) -> str:
        """Return the module that a tensor of transformers' model is saved with."""
        module = name.rpartition(".")[0]
        return next((h for h in self.head if f"{module}.".startswith(f"{h}.")), module)

    def is_embedding(self, path: str) -> bool:
        """Return whether a layer is one."""
        return self.layers[path].kind == "embedding"


def adapter_of(layer: lora.LoRALayer) -> Adapter:
    """Return the adapter of a layer here, for PEFT, which subtracts no start."""
    adapter = layer.adapter(lora.DEFAULT)
    assert isinstance(adapter, lora.LowRank)
    with torch.no_grad():
        a, b = adapter.lora_A.detach(), adapter.lora_B.detach()
        if adapter.initial_A is not None and adapter.initial_B is not None:
            # PEFT would take what is subtracted from its own decomposition of the base.
            a, b = torch.cat([a, adapter.initial_A]), torch.cat([b, -adapter.initial_B], dim=1)
    magnitude = adapter.lora_magnitude
    return Adapter(a, b, adapter.scale, None if magnitude is None else magnitude.detach())


def trained_in_full(model: nn.Module) -> list[str]:
    """Return the paths of the modules whose weight an adapter replaces; a bias alone is none."""
    names = lora.adapter_tensors(model)
    return [n.removesuffix(".weight") for n in names if n.endswith(".weight")]


def merged_state(model: Network, decision: Decision = PLAIN) -> dict[str, Tensor]:
    """Return the weights of a plain model that computes what `model` does with its adapter.

    The model is unmerged afterwards.

    Args:
        model: The classifier.
        decision: What becomes part of the head's last layer: logits are then as `Decision.affine`
            has them. What that adds stands under the name of the layer's bias, if it has one or
            not.
    """
    lora.merge(model)
    state = lora.bare_state_dict(model)
    lora.unmerge(model)
    scale, added = decision.affine(model.n_classes)
    output = output_path(model)
    weight, bias = state[f"{output}.weight"], state.get(f"{output}.bias")
    if scale != 1.0:
        state[f"{output}.weight"] = (weight.double() * scale).to(weight.dtype)
    if scale != 1.0 or added.any():
        before = weight.new_zeros(model.n_classes) if bias is None else bias
        moved = before.double() * scale + torch.from_numpy(added)
        if bias is not None or moved.any():
            state[f"{output}.bias"] = moved.to(before.dtype)
    return state


def output_path(model: Network) -> str:
    """Return the path of the head's last layer."""
    paths = (str(path) for path, module in model.named_modules() if module is model.output)
    return next(paths)
