"""PEFT's adapter files: tensor names, layers, ranks and scales."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

CONFIG_FILE = "adapter_config.json"
TENSORS_FILE = "adapter_model.safetensors"

PREFIX = "base_model.model."
"""What PEFT puts before every name of the model that it wraps."""

Value = TypeVar("Value", int, float)


@dataclass(frozen=True)
class Adapter:
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


def tensor_names(path: str, is_embedding: bool) -> dict[str, str]:
    """Return the names of the tensors `a`, `b` and `magnitude` of a layer in PEFT's file.

    Args:
        path: The layer in transformers, such as `transformer.h.0.attn.c_attn`.
        is_embedding: Whether it is one.
    """
    kind = ("lora_A.weight", "lora_B.weight")
    if is_embedding:
        kind = ("lora_embedding_A", "lora_embedding_B")
    keys = dict(zip(("a", "b", "magnitude"), (*kind, "lora_magnitude_vector"), strict=True))
    return {part: f"{PREFIX}{path}.{key}" for part, key in keys.items()}


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
