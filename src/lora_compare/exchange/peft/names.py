"""PEFT's adapter files for transformers' GPT-2: tensor names, layers, ranks and scales."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

CONFIG_FILE = "adapter_config.json"
TENSORS_FILE = "adapter_model.safetensors"

PREFIX = "base_model.model."
"""What PEFT puts before every name of the model that it wraps."""

EMBEDDINGS = ("transformer.wte", "transformer.wpe")

Value = TypeVar("Value", int, float)


@dataclass(frozen=True)
class Layer:
    """The adapter of one layer whose weight W has shape (d_out, d_in), as PEFT has it.

    Attributes:
        a: Shape (r, d_in).
        b: Shape (d_out, r).
        scale: Unitless factor of the update B A.
        magnitude: Norms of the adapted W's rows, shape (d_out,); None without DoRA.
    """

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None = None

    @property
    def r(self) -> int:
        """The rank."""
        return len(self.a)

    def alpha(self, use_rslora: bool) -> float:
        """Return the `lora_alpha` that gives the scale."""
        alpha = self.scale * (math.sqrt(self.r) if use_rslora else self.r)
        # 16 rather than 16.0, where the scale was an integer over the rank.
        return round(alpha) if math.isclose(alpha, round(alpha), rel_tol=1e-12) else alpha


@dataclass(frozen=True)
class PeftAdapter:
    """The content of an adapter's folder.

    Attributes:
        config: adapter_config.json.
        tensors: adapter_model.safetensors.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]


def scale_of(alpha: float, r: int, use_rslora: bool) -> float:
    """Return the unitless factor of an update of rank `r`."""
    return alpha / (math.sqrt(r) if use_rslora else r)


def tensor_names(path: str) -> dict[str, str]:
    """Return the names of the tensors `a`, `b` and `magnitude` of a layer in PEFT's file.

    Args:
        path: The layer in transformers, such as `transformer.h.0.attn.c_attn`.
    """
    kind = ("lora_embedding_A", "lora_embedding_B")
    if path not in EMBEDDINGS:
        kind = ("lora_A.weight", "lora_B.weight")
    keys = dict(zip(("a", "b", "magnitude"), (*kind, "lora_magnitude_vector"), strict=True))
    return {part: f"{PREFIX}{path}.{key}" for part, key in keys.items()}


def leaf_modules(names: Collection[str]) -> list[str]:
    """Return the modules that own the tensors of these names, each once, in order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names))


def short_names(chosen: Collection[str], among: Collection[str]) -> list[str]:
    """Return the shortest ends of paths that mean all of `chosen` and no other of `among`.

    PEFT, and `LoraParams` here, name modules by the end of their paths.
    """
    names = []
    for path in chosen:
        parts = path.split(".")
        # `h.0.mlp`, not `0.mlp`: a block's number alone says little.
        starts = [i for i, part in enumerate(parts) if not part.isdigit()]
        ends = (".".join(parts[start:]) for start in reversed(starts))
        names.append(next(e for e in ends if all(p in chosen for p in among if p.endswith(e))))
    return list(dict.fromkeys(names))


def with_pattern(values: Mapping[str, Value]) -> tuple[Value, dict[str, Value]]:
    """Return the commonest of the values by path, and a pattern for the paths with others.

    A pattern's key is a regular expression for the end of a path, as in `rank_pattern`.
    """
    default = Counter(values.values()).most_common(1)[0][0]
    pattern: dict[str, Value] = {}
    for value in dict.fromkeys(values.values()):
        if value != default:
            paths = [path for path, other in values.items() if other == value]
            pattern |= dict.fromkeys(short_names(paths, values), value)
    return default, pattern


def joined(parts: list[Layer | None], weights: list[Tensor]) -> Layer:
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
        return Layer(a, b, scale)
    rows = [
        torch.linalg.vector_norm(weight, dim=1) if part is None else part.magnitude
        for part, weight in zip(parts, weights, strict=True)
    ]
    return Layer(a, b, scale, torch.cat([row for row in rows if row is not None]))


def _share_a(one: Layer, other: Layer) -> bool:
    return one.scale == other.scale and torch.equal(one.a, other.a)


def parted(layer: Layer, n: int) -> list[Layer]:
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
        Layer(layer.a[kept].clone(), block[:, kept].clone(), layer.scale, magnitude)
        for kept, block, magnitude in zip(columns, blocks, magnitudes, strict=True)
    ]
