"""What each of several GPUs holds of a training that they share, by formula."""

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.memory import LORA, Shape, classifier
from lora_compare import lora
from lora_compare.comparison.formats import size
from lora_compare.compute.memory import planned_state
from lora_compare.compute.precision import lower_frozen
from lora_compare.params import customary
from lora_compare.project.progress import SILENT, Progress

METHODS = ("full", "LoRA", "QLoRA")

WORLDS = (1, 2, 4, 8)
"""Numbers of GPUs."""


def _llama(
    name: str, vocab: int, width: int, inner: int, layers: int, heads: int, kv: int
) -> Shape:
    config = {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
    }
    return Shape(f"meta-llama/{name}", "llama", config)


SHAPES = (
    _llama("Llama-3.2-1B", 128_256, 2048, 8192, 16, 32, 8),
    _llama("Llama-3.2-3B", 128_256, 3072, 8192, 28, 24, 8),
    _llama("Llama-2-7b-hf", 32_000, 4096, 11_008, 32, 32, 32),
    _llama("Llama-2-13b-hf", 32_000, 5120, 13_824, 40, 40, 40),
    _llama("Llama-2-70b-hf", 32_000, 8192, 28_672, 80, 64, 8),
)
"""Source: config.json of each on the hub.

Checked by tests/unit/test_sharded_table.py against the published numbers of parameters.
"""


def plan(shape: Shape, method: str) -> tuple[list[int], int]:
    """Return the bytes that each of as many GPUs as WORLDS says holds between two steps.

    Trained weights are float32, frozen ones bfloat16 where `training.precision: auto` has them so.

    Args:
        shape: The model.
        method: One of `METHODS`.

    Returns:
        The bytes by number of GPUs, and those that one needs in addition while it computes: what
        is whole at a time, and of full fine-tuning a block's gradient.
    """
    with torch.device("meta"):
        model = classifier(shape)
        paths = lora.quantizable(model, ["score"]) if method == "QLoRA" else []
        packed = [model.get_submodule(path).get_parameter("weight") for path in paths]
        if method != "full":
            lora.inject(model, customary(LORA, shape.model_type, ["score"]))
        kept = {id(weight) for weight in packed}
        whole = _whole(model, kept, method)
        if method == "LoRA":
            lower_frozen(model, torch.bfloat16, keep=(model.score,))
    state = [sum(planned_state(model, packed, world).values()) for world in WORLDS]
    return state, whole


def _whole(model: Any, packed: set[int], method: str) -> int:
    """Return the bytes of the next two units that are whole: embedding and block, or two blocks."""
    table: int = model.get_input_embeddings().weight.nbytes
    block = 0
    for parameter in model.model.layers[0].parameters():
        if method == "QLoRA":
            block += parameter.numel() // 2 if id(parameter) in packed else parameter.nbytes
        else:
            block += 2 * parameter.numel()  # bfloat16
    return max(table, block) + block * (2 if method == "full" else 1)


def row(shape: Shape, method: str) -> str:
    """Return the line of a model and a method in the table."""
    state, whole = plan(shape, method)
    cells = [shape.name.partition("/")[2], method, *map(size, state), size(whole)]
    return f"| {' | '.join(cells)} |"


def rows(progress: Progress = SILENT) -> Iterator[str]:
    """Yield the lines of all models.

    Args:
        progress: Where to report.
    """
    with progress.task("plan", len(SHAPES) * len(METHODS)) as advance:
        for shape in SHAPES:
            for method in METHODS:
                yield row(shape, method)
                advance(1, shape.name)


_EACH = " | ".join(f"{world} GPUs, each" for world in WORLDS[1:])

HEADER = f"""
| model | method | 1 GPU | {_EACH} | whole at a time |
|{"---|" * (len(WORLDS) + 3)}
"""
