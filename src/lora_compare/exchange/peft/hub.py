"""A classifier of transformers as PEFT knows it: the names are transformers' own."""

from functools import cached_property

from torch import Tensor

from lora_compare import lora
from lora_compare.errors import ExportError
from lora_compare.exchange.peft.layout import (
    Layout,
    Shapes,
    adapter_of,
    merged_state,
    output_path,
    trained_in_full,
)
from lora_compare.exchange.peft.names import Adapter
from lora_compare.lora.plain import describe
from lora_compare.models.answers.decision import PLAIN, Decision
from lora_compare.models.hub.network import INSIDE, HubClassifier
from lora_compare.params import Layer


class HubLayout(Layout):
    """A `hub.HubClassifier`, in which transformers' classifier lies as it is.

    Args:
        model: The classifier.
        decision: How its probabilities become answers, which becomes part of its head.

    Checked by tests/parity/test_hub_exchange.py.
    """

    def __init__(self, model: HubClassifier, decision: Decision = PLAIN) -> None:
        self.model, self.decision = model, decision
        self.family = model.model_type
        self.head = tuple(map(_there, model.head))
        adaptable = {_there(path): layer for path, layer in lora.adaptable(model).items()}
        below = {path: layer for path, layer in adaptable.items() if not self._in_head(path)}
        self.layers: dict[str, Layer] = {path: describe(layer) for path, layer in below.items()}
        self.tables = {
            p: layer.get_parameter("weight") for p, layer in below.items() if self.is_embedding(p)
        }
        self.fan_in_fan_out = any(map(lora.is_conv1d, below.values()))
        self.output = _there(output_path(model))

    def _in_head(self, path: str) -> bool:
        return self.owner(f"{path}.") in self.head

    @cached_property
    def shapes(self) -> Shapes:
        """The shapes of the tensors of transformers' model, by name."""
        return {_there(n): tuple(t.shape) for n, t in lora.bare_state_dict(self.model).items()}

    @property
    def modules(self) -> list[str]:
        """The paths of the modules here that own a tensor."""
        return [
            path
            for path, module in self.model.named_modules()
            if any(True for _ in module.parameters(recurse=False))
        ]

    def paths(self, path: str) -> list[str]:
        """Return the path here."""
        return [INSIDE + path]

    def parts(self, path: str, layer: Adapter) -> dict[str, Adapter]:
        """Return the adapter under the path here."""
        return {INSIDE + path: layer}

    def replacements(self, name: str, tensor: Tensor) -> dict[str, Tensor]:
        """Return the tensor under its name here."""
        return {INSIDE + name: tensor}

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of transformers' model, an adapter and a decision merged into them.

        Raises:
            ExportError: The decision adds to the logits, and the head has no bias.
        """
        state = merged_state(self.model, self.decision)
        found = {_there(name): tensor for name, tensor in state.items()}
        if extra := found.keys() - self.shapes:
            raise ExportError(
                "The head has no bias, which would hold the prior and the threshold.",
                where="params.yaml: data.prior, classifier.threshold",
                expected=f"a head with {', '.join(sorted(extra))}, which "
                f"transformers' {self.model.model_type} has not",
                next="use lora-compare classify or the registered model, which have them; or set\n"
                "data.prior: null and classifier.threshold: argmax, then dvc repro, and export",
            )
        return found

    def adapters(self) -> dict[str, Adapter]:
        """Return the adapters of all layers but the head's."""
        found = {_there(path): layer for path, layer in lora.adapted_layers(self.model)}
        return {p: adapter_of(layer) for p, layer in found.items() if not self._in_head(p)}

    def saved(self) -> set[str]:
        """Return the parts of the head, and the modules that are trained in full."""
        whole = (_there(path) for path in trained_in_full(self.model))
        return {*self.head, *(path for path in whole if not self._in_head(path))}


def _there(path: str) -> str:
    return path.removeprefix(INSIDE)
