"""What training models of up to 8 billion parameters holds in memory, without any of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.initialization import no_init_weights

from lora_compare import lora
from lora_compare.comparison.formats import count, size
from lora_compare.compute.memory import Saved, held_tensors, planned_state
from lora_compare.params import LoraParams, customary
from lora_compare.project.files import write_text
from lora_compare.project.progress import SILENT, Progress
from lora_compare.report.markdown import around

METHODS = ("full", "LoRA", "QLoRA")

BATCH, TOKENS = 8, 128
"""Texts of a step, and tokens of each, for the activations."""

LORA = LoraParams(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", bias="none")


@dataclass(frozen=True)
class Shape:
    """A model on the hub.

    Attributes:
        name: Where it is.
        model_type: transformers' name of its architecture.
        config: The sizes in its config.json that are not the architecture's defaults.
    """

    name: str
    model_type: str
    config: dict[str, Any] = field(default_factory=dict)


SHAPES = (
    Shape("google-bert/bert-base-uncased", "bert"),
    Shape("answerdotai/ModernBERT-base", "modernbert"),
    Shape(
        "FacebookAI/xlm-roberta-large",
        "xlm-roberta",
        {
            "vocab_size": 250_002,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
        },
    ),
    Shape(
        "Qwen/Qwen3-0.6B",
        "qwen3",
        {
            "vocab_size": 151_936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
    ),
    Shape(
        "google/gemma-3-1b-pt",
        "gemma3_text",
        {
            "vocab_size": 262_144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": 26,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
        },
    ),
    Shape(
        "meta-llama/Llama-3.2-1B",
        "llama",
        {
            "vocab_size": 128_256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
        },
    ),
    Shape(
        "mistralai/Mistral-7B-v0.1",
        "mistral",
        {
            "vocab_size": 32_000,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
    ),
    Shape(
        "meta-llama/Llama-3.1-8B",
        "llama",
        {
            "vocab_size": 128_256,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
    ),
)
"""Source: config.json of each on the hub.

Checked by tests/unit/test_memory_table.py against the published numbers of parameters.
"""


def classifier(shape: Shape) -> Any:
    """Return a model under a head for two classes, as transformers makes it, not initialised."""
    with no_init_weights():
        config = AutoConfig.for_model(shape.model_type, pad_token_id=0, **shape.config)
        auto: Any = AutoModelForSequenceClassification
        return auto.from_config(config, dtype=torch.float32)


def plan(shape: Shape, method: str) -> dict[str, int]:
    """Return the parameters and bytes of a training in float32.

    Args:
        shape: The model.
        method: One of `METHODS`.
    """
    with FakeTensorMode():
        model = classifier(shape).train()
        head = [name for name, _ in model.named_children() if name in ("classifier", "score")]
        paths = lora.quantizable(model, head) if method == "QLoRA" else []
        packed = [model.get_submodule(path).get_parameter("weight") for path in paths]
        if method != "full":
            lora.inject(model, customary(LORA, shape.model_type, head))
        figures = {"trained": lora.count(model).trainable, **planned_state(model, packed)}
        if method != "QLoRA":
            figures["activations"] = _activations(model)
    return figures


def _activations(model: torch.nn.Module) -> int:
    ids = torch.ones(BATCH, TOKENS, dtype=torch.int64)
    given = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.zeros(BATCH, dtype=torch.int64),
    }
    with Saved([*held_tensors(model), *given.values()]) as saved:
        model(**given)
    return saved.peak


def row(shape: Shape) -> str:
    """Return a model's line of the table."""
    found = {method: plan(shape, method) for method in METHODS}
    parts = ("weights", "gradients", "optimizer")
    cells = [
        shape.name,
        count(found["full"]["trained"]),
        count(found["LoRA"]["trained"]),
        *(size(sum(figures[part] for part in parts)) for figures in found.values()),
        *(size(found[method]["activations"]) for method in ("full", "LoRA")),
    ]
    return f"| {' | '.join(cells)} |"


HEADER = f"""
| model | parameters | trained by LoRA | full | LoRA | QLoRA | activations of full | of LoRA |
|{"---|" * 8}
"""


def rows(progress: Progress = SILENT) -> Iterator[str]:
    """Yield the lines of all models.

    Args:
        progress: Where to report.
    """
    with progress.task("plan", len(SHAPES)) as advance:
        for shape in SHAPES:
            yield row(shape)
            advance(1, shape.name)


def write_page(path: Path, header: str, lines: Iterable[str]) -> None:
    """Put a table between a page's marks.

    Args:
        path: The page.
        header: The table's first two lines.
        lines: Its others.

    Raises:
        DataError: The page does not have the marks.
    """
    before, after = around(path, "memory")
    write_text(path, before + header + "\n".join(lines) + f"\n\n{after}")
