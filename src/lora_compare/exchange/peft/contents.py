"""The tensors in an adapter's file: sorted by what they are, and held against the model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lora_compare.errors import CheckpointError
from lora_compare.exchange.peft.config import ADVICE, PeftConfig, refusal
from lora_compare.exchange.peft.layout import Layout
from lora_compare.exchange.peft.names import PREFIX, Adapter, PeftAdapter, tensor_names
from lora_compare.exchange.peft.presence import absent_biases, listed, target_problems, unsaved

OF_CLASSES = (
    "choose the data that the adapter was trained on (data.source, data.label_column), or train\n"
    "the adapter with as many labels as the data has classes"
)
SAVE_AGAIN = (
    "save the adapter again where it was trained, with a version of PEFT that keeps everything\n"
    "that its settings name; without it the answers would be others"
)


@dataclass
class Contents:
    """What an adapter's file holds.

    Attributes:
        layers: The adapter of each adapted layer, by its path in transformers' model.
        others: Tensors that take the place of the model's, by their names there: the head, the
            modules trained in full, biases.
    """

    layers: dict[str, Adapter] = field(default_factory=dict)
    others: dict[str, Tensor] = field(default_factory=dict)

    @property
    def factors(self) -> int:
        """Trained numbers that come beside the base's weights, not in their place."""
        parts = [p for layer in self.layers.values() for p in (layer.a, layer.b, layer.magnitude)]
        return sum(part.numel() for part in parts if part is not None)

    @property
    def trainable(self) -> int:
        """Trained numbers, as PEFT counts them."""
        return self.factors + sum(tensor.numel() for tensor in self.others.values())


def read_contents(
    tensors: Mapping[str, Tensor], config: PeftConfig, layout: Layout, classes: Sequence[str]
) -> Contents:
    """Return the tensors of an adapter's file by what they are.

    Args:
        tensors: The file's tensors.
        config: The adapter's settings.
        layout: The classifier that it shall adapt.
        classes: Names of the classes.

    Raises:
        CheckpointError: They do not fit; every difference is named.
    """
    parts, others, problems = _sorted(tensors, layout)
    _forget_unchanged(others, layout.tables)
    for path, found in parts.items():
        problems += _layer_problems(path, found, config, layout)
    problems += _other_problems(others, parts, config, layout)
    absent, extra = target_problems(parts, config, layout.layers)
    by_advice = {
        ADVICE: problems + extra,
        OF_CLASSES: _class_problems(others, classes, layout),
        SAVE_AGAIN: [
            *absent,
            *absent_biases(others, parts, config, layout.shapes),
            *unsaved(others, config),
            *_head_problems(others, layout),
        ],
    }
    if any(by_advice.values()):
        advice = "\n".join(way for way, found in by_advice.items() if found)
        raise refusal([problem for found in by_advice.values() for problem in found], advice)
    layers = {
        path: Adapter(found["a"], found["b"], config.scale(path), found.get("magnitude"))
        for path, found in parts.items()
    }
    return Contents(layers, others)


def require_family(adapter: PeftAdapter, layout: Layout) -> None:
    """Refuse an adapter of another family of models, before its tensors are named one by one.

    Raises:
        CheckpointError: No adapted layer is of a kind that the base has.
    """
    own = {_kind(key) for key in factor_slots(layout)}
    adapted = [key for key in adapter.tensors if ".lora_" in key]
    if not adapted or any(_kind(key) in own for key in adapted):
        return
    first = adapted[0].removeprefix(PREFIX)
    name = adapter.config.get("base_model_name_or_path")
    # transformers puts most models into a module that is called as their family is.
    family = first.partition(".")[0]
    made_for = str(name or "another model") if family in ("model", "transformer") else family
    named = f"base_model_name_or_path: {name}\n" if name else ""
    known = sorted({path.rpartition(".")[2] for path in layout.layers})
    raise CheckpointError(
        f"The adapter was made for {made_for}; this base is {layout.family}.",
        expected=f"layers such as {', '.join(known)}",
        actual=f"{named}{len(adapted)} tensors such as {first}",
        kept="nothing was written",
        next=f"import an adapter that was trained on {layout.family} of the size of model.name",
    )


def _kind(key: str) -> str:
    """Return the name of a tensor without the number of its block."""
    return re.sub(r"\.\d+\.", ".N.", key)


def factor_slots(layout: Layout) -> dict[str, tuple[str, str]]:
    """Return the layer and the part of it that each key of a factor in a file means."""
    return {
        key: (path, part)
        for path in layout.layers
        for part, key in tensor_names(path, layout.is_embedding(path)).items()
    }


def _sorted(
    tensors: Mapping[str, Tensor], layout: Layout
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor], list[str]]:
    """Return each layer's parts, the other tensors by plain name, and what neither is."""
    slots = factor_slots(layout)
    parts: dict[str, dict[str, Tensor]] = {}
    others: dict[str, Tensor] = {}
    problems = []
    for key, tensor in tensors.items():
        name = _plain_name(key)
        if key in slots:
            path, part = slots[key]
            parts.setdefault(path, {})[part] = tensor
        elif name is not None and name not in layout.shapes:
            problems.append(f"{key}: no part of an adapter of this model")
        elif name is not None and not torch.equal(others.setdefault(name, tensor), tensor):
            problems.append(f"{key}: another value than the other one for {name}")
    return parts, others, problems


def _plain_name(key: str) -> str | None:
    """Return the name in transformers' model of what takes a parameter's place.

    None stands for the base's own values, which PEFT saves beside those trained in full; a key
    without PEFT's prefix is no name there.
    """
    if ".original_module." in key:
        return None
    if not key.startswith(PREFIX):
        return ""
    name = re.sub(r"\.modules_to_save(\.default)?\.", ".", key.removeprefix(PREFIX))
    # Older versions of PEFT write no base_layer.
    return name.replace(".base_layer.", ".")


def _forget_unchanged(others: dict[str, Tensor], tables: Mapping[str, Tensor]) -> None:
    """Drop the base's own embeddings, which PEFT may save beside an adapter of theirs."""
    for path, table in tables.items():
        stored = others.get(f"{path}.weight")
        if stored is not None and torch.equal(stored, table):
            del others[f"{path}.weight"]


def _layer_problems(
    path: str, parts: Mapping[str, Tensor], config: PeftConfig, layout: Layout
) -> list[str]:
    """Return what is wrong with one layer's factors."""
    d_in, d_out = layout.layers[path].sides
    r = config.rank(path)
    wanted: dict[str, tuple[int, ...]] = {"a": (r, d_in), "b": (d_out, r)}
    if config.use_dora:
        wanted["magnitude"] = (d_out,)
    names = tensor_names(path, layout.is_embedding(path))
    problems = [f"{names[part]}: missing" for part in wanted if part not in parts]
    problems += [f"{names[part]}: use_dora is false" for part in parts if part not in wanted]
    return problems + [
        f"{names[part]}: shape {tuple(parts[part].shape)}, rank and model ask for {wanted[part]}"
        for part in wanted
        if part in parts and tuple(parts[part].shape) != wanted[part]
    ]


def _class_problems(
    others: Mapping[str, Tensor], classes: Sequence[str], layout: Layout
) -> list[str]:
    weight = f"{layout.output}.weight"
    head = others.get(weight)
    if head is None:
        return [f"{weight}: missing; without a trained head there are no classes"]
    if head.ndim and len(head) != len(classes):
        mine = f"the data has {len(classes)} ({listed(classes)})"
        return [f"{weight}: {len(head)} classes, {mine}"]
    return []


def _head_problems(others: Mapping[str, Tensor], layout: Layout) -> list[str]:
    """Return the parts of the head below its last layer that the file lacks."""
    return [
        f"{name}: missing; PEFT stores this part of a head where modules_to_save names it"
        for name in layout.shapes
        if layout.owner(name) in layout.head
        and name != f"{layout.output}.weight"
        and name not in others
    ]


def _other_problems(
    others: Mapping[str, Tensor],
    adapted: Mapping[str, object],
    config: PeftConfig,
    layout: Layout,
) -> list[str]:
    """Return what is wrong with the modules trained in full, and with the biases."""
    problems = [] if adapted else ["no layer is adapted"]
    for name, tensor in others.items():
        # The number of the head's rows is that of the classes, and looked at elsewhere.
        first = 1 if name.rpartition(".")[0] == layout.output else 0
        wanted = layout.shapes[name]
        if tuple(tensor.shape)[first:] != wanted[first:]:
            problems.append(f"{name}: shape {tuple(tensor.shape)}, the model's is {wanted}")
    below = [name for name in others if layout.owner(name) not in layout.head]
    for owner in dict.fromkeys(name.rpartition(".")[0] for name in below):
        problems += _owner_problems(owner, others, owner in adapted, config.bias, layout)
    return problems


def _owner_problems(
    owner: str, others: Mapping[str, Tensor], adapted: bool, bias: str, layout: Layout
) -> list[str]:
    """Return what is wrong with the tensors of one module of the base as a whole."""
    weight, own_bias = f"{owner}.weight", f"{owner}.bias"
    if weight not in others:
        alone = bias == "all" or (bias == "lora_only" and adapted)
        return [] if alone else [f"{own_bias}: not trained with bias: {bias}"]
    if adapted:
        return [f"{weight}: its layer has an adapter as well"]
    complete = own_bias in others or own_bias not in layout.shapes
    return [] if complete else [f"{own_bias}: missing beside {weight}"]
