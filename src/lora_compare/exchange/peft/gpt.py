"""The GPT-2 of this project, as PEFT knows transformers': query, key and value are one layer."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lora_compare import lora
from lora_compare.exchange.peft.layout import Layout, Shapes, adapter_of, trained_in_full
from lora_compare.exchange.peft.names import Adapter
from lora_compare.exchange.transformers import HEAD, classifier_state
from lora_compare.models.answers.decision import PLAIN, Decision
from lora_compare.models.gpt.network import Classifier
from lora_compare.models.gpt.weights import QKV, from_gpt2, gpt2_shapes
from lora_compare.params import Layer, gpt2_paths

LAST_NORM = "transformer.ln_f"


class GPTLayout(Layout):
    """A `gpt.Classifier` as a GPT2ForSequenceClassification, whose head has no bias.

    Args:
        model: The classifier.
        base: The weights of the bare GPT, before any fine-tuning and quantisation.
        decision: How its probabilities become answers, which becomes part of its head.

    Checked by tests/parity/test_export.py and test_import.py.
    """

    family = "GPT-2"
    head = (HEAD,)
    output = HEAD
    fan_in_fan_out = True

    def __init__(
        self, model: Classifier, base: Mapping[str, Tensor], decision: Decision = PLAIN
    ) -> None:
        self.model, self.base, self.decision = model, base, decision
        config = model.gpt.config
        self._shapes = {f"transformer.{n}": shape for n, shape in gpt2_shapes(config).items()}
        self._shapes |= {f"{HEAD}.weight": (model.n_classes, config.n_embd)}
        self.tables = {f"transformer.{name}": base[f"{name}.weight"] for name in ("wte", "wpe")}
        self.layers = {
            path: Layer("embedding" if path in self.tables else "linear", (d_in, d_out))
            for path in self._weights()
            if path != HEAD and ".ln_" not in path
            for d_in, d_out in [self.shapes[f"{path}.weight"]]
        }

    def _weights(self) -> list[str]:
        """Return the paths there of the modules that have a weight."""
        return [n.removesuffix(".weight") for n in self.shapes if n.endswith(".weight")]

    @property
    def shapes(self) -> Shapes:
        """The shapes of the tensors of transformers' model, by name."""
        return self._shapes

    @property
    def modules(self) -> list[str]:
        """The paths of the modules here that own a tensor."""
        return [here for path in self._weights() for here in self.paths(path)]

    def paths(self, path: str) -> list[str]:
        """Return the paths here of what is one module at `path` in transformers."""
        inside = path.removeprefix("transformer.")
        if inside == path:
            return [path]
        block, _, name = f"gpt.{inside}".rpartition(".")
        return [f"{block}.{part}" for part in (QKV if name == "c_attn" else [name])]

    def parts(self, path: str, layer: Adapter) -> dict[str, Adapter]:
        """Return the adapters of query, key and value, or the one of another layer."""
        paths = self.paths(path)
        return dict(zip(paths, parted(layer, len(paths)), strict=True))

    def replacements(self, name: str, tensor: Tensor) -> dict[str, Tensor]:
        """Return the tensors here that are one in transformers, by name."""
        inside = name.removeprefix("transformer.")
        prefix = "" if inside == name else "gpt."
        return {f"{prefix}{key}": part for key, part in from_gpt2(inside, tensor).items()}

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of a GPT2ForSequenceClassification that computes the same."""
        return classifier_state(self.model, self.decision)

    def adapters(self) -> dict[str, Adapter]:
        """Return the adapters of its layers, those of query, key and value joined."""
        own = {p: adapter_of(layer) for p, layer in lora.adapted_layers(self.model) if p != HEAD}
        layers = {}
        for path in own:
            (target,) = gpt2_paths(path)
            siblings = self.paths(target)
            if len(siblings) == 1:
                layers[target] = own[path]
            elif target not in layers:
                weights = [self.base[f"{name.removeprefix('gpt.')}.weight"] for name in siblings]
                layers[target] = joined([own.get(name) for name in siblings], weights)
        return layers

    def saved(self) -> set[str]:
        """Return the head, the norm below it where that takes its bias, and what is trained."""
        whole = (path for own in trained_in_full(self.model) for path in gpt2_paths(own))
        has_bias = self.model.bias or self.decision.affine(self.model.n_classes)[1].any()
        return {HEAD, *([LAST_NORM] if has_bias else []), *whole}


def joined(parts: list[Adapter | None], weights: list[Tensor]) -> Adapter:
    """Return the adapter of layers that lie one below the other in one weight.

    Query, key and value are one layer in transformers. Their A's are stacked, their B's become
    the blocks of a diagonal; differences in scale go into the B's.

    Args:
        parts: The adapter of each layer, None where it has none; not all are None.
        weights: The layers' W, each (d_out, d_in), for the magnitudes of layers without adapter.
    """
    there = [part for part in parts if part is not None]
    scale = there[0].scale
    if all(part is not None for part in parts) and all(_share_a(there[0], p) for p in there):
        a, b = there[0].a, torch.cat([part.b for part in there])
    else:
        blocks = [
            weight.new_zeros(len(weight), 0)
            if part is None
            # Exactly 1 for equal scales: such factors keep their bits.
            else part.b * (part.scale / scale)
            for part, weight in zip(parts, weights, strict=True)
        ]
        a, b = torch.cat([part.a for part in there]), torch.block_diag(*blocks)
    if there[0].magnitude is None:
        return Adapter(a, b, scale)
    rows = [
        torch.linalg.vector_norm(weight, dim=1) if part is None else part.magnitude
        for part, weight in zip(parts, weights, strict=True)
    ]
    return Adapter(a, b, scale, torch.cat([row for row in rows if row is not None]))


def _share_a(one: Adapter, other: Adapter) -> bool:
    return one.scale == other.scale and torch.equal(one.a, other.a)


def parted(layer: Adapter, n: int) -> list[Adapter]:
    """Return the adapters of `n` equally high layers that lie one below the other in `layer`.

    It undoes `joined` where no column of B serves two of them; otherwise each gets all of A.
    A layer that no column serves gets one that does nothing, because it may have a magnitude.
    """
    blocks = layer.b.chunk(n)
    magnitudes = [None] * n if layer.magnitude is None else list(layer.magnitude.chunk(n))
    used = torch.stack([block.any(dim=0) for block in blocks])  # (n, r)
    if used.any() and used.sum(dim=0).max() <= 1:
        first = torch.arange(layer.r) == 0
        columns = [row if row.any() else first for row in used]
    else:
        columns = [torch.ones(layer.r, dtype=torch.bool)] * n
    return [
        Adapter(layer.a[kept].clone(), block[:, kept].clone(), layer.scale, magnitude)
        for kept, block, magnitude in zip(columns, blocks, magnitudes, strict=True)
    ]
