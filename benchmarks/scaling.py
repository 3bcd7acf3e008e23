"""What LoRA saves beside full fine-tuning at every size of GPT-2: tensors, and time of a step."""

import gc
import warnings
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.jobs import LEARNING_RATES, SEED, WEIGHT_DECAY
from benchmarks.machine import available_memory_bytes, describe_machine, describe_versions
from benchmarks.ours import trained
from benchmarks.workload import random_texts
from lora_compare import lora
from lora_compare.compute.device import Machine, keep_freed_memory
from lora_compare.compute.memory import storage_bytes
from lora_compare.compute.optimizers import MasterAdamW
from lora_compare.compute.seeding import seeded
from lora_compare.models.batches import Batch, Examples, collate
from lora_compare.models.gpt.network import CONFIGS, GPT, Classifier
from lora_compare.models.methods import choose_trainable
from lora_compare.project.progress import SILENT, Progress
from lora_compare.report.scaling import FILE
from lora_compare.training.embeddings import seen_rows
from lora_compare.training.meters import Meter, cost_figures
from lora_compare.training.ranks.steps import optimizer_step

MODELS = ("gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl")
METHODS = ("full", "lora")

MEMORY_SHARE = 0.5
"""Share of the free memory that a training's tensors may take; a larger one is not timed."""

CPU = Machine(torch.device("cpu"), torch.float32, 1)

RESULTS = FILE
"""The file that reports read: it is part of the package."""


@dataclass(frozen=True)
class Settings:
    """What is trained, in float32, with random weights.

    Attributes:
        batch_size: Messages a step.
        tokens: Tokens of each message.
        vocabulary: Tokens that occur in any message; full fine-tuning trains their rows alone.
            In the SMS Spam Collection's balanced training split 4,828 of GPT-2's do.
        rank: Rank and alpha of the adapters, on every linear layer.
    """

    batch_size: int = 8
    tokens: int = 64
    vocabulary: int = 5000
    rank: int = 4


def measure(
    models: tuple[str, ...], steps: int, threads: int, progress: Progress = SILENT
) -> dict[str, Any]:
    """Return the content of the results file.

    Tensors are counted exactly without being made, so for a model of any size. Steps are timed
    where their tensors have room in the memory that is free.

    Args:
        models: Names of networks.
        steps: Timed steps of each training, after two others.
        threads: CPU threads.
        progress: Where to report.
    """
    settings = Settings()
    found: dict[str, dict[str, dict[str, Any]]] = {}
    torch.set_num_threads(threads)
    keep_freed_memory()
    with progress.task("scaling", len(models)) as advance:
        for name in models:
            found[name] = {method: count(name, method, settings) for method in METHODS}
            needed = max(figures["training_state_bytes"] for figures in found[name].values())
            if needed < MEMORY_SHARE * available_memory_bytes("cpu"):
                for method in METHODS:
                    found[name][method] = _timed(name, method, settings, steps)
            advance(1, name)
    versions = describe_versions(("torch",))
    return {
        "machine": {**describe_machine("cpu"), "threads": threads},
        "versions": {key: versions[key] for key in ("python", "torch", "lora-compare")},
        "date": datetime.now(UTC).date().isoformat(),
        "settings": {**asdict(settings), "dtype": "float32", "steps": steps},
        "models": found,
    }


def count(name: str, method: str, settings: Settings) -> dict[str, Any]:
    """Return the bytes of the tensors of one step, none of which is made.

    Args:
        name: A network's name.
        method: `full` or `lora`.
        settings: What is trained.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        # Frozen weights are asked where they lie, which for a fake tensor is nowhere.
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        return _train(name, method, settings, steps=1)


def _timed(name: str, method: str, settings: Settings, steps: int) -> dict[str, Any]:
    try:
        return _train(name, method, settings, steps, warmup=2)
    finally:
        gc.collect()  # the next one needs the room


def _train(
    name: str, method: str, settings: Settings, steps: int, warmup: int = 0
) -> dict[str, Any]:
    """Return what some steps of a training cost, fake ones included."""
    with seeded(SEED):
        model = Classifier(GPT(CONFIGS[name]), 2, "last_token")
    choose_trainable(model, trained(method, settings.rank), SEED)
    size = lora.count(model)
    artifact = storage_bytes(p for p in model.parameters() if p.requires_grad)
    every = Examples([np.arange(settings.vocabulary)], np.zeros(1, dtype=np.int64))
    with seen_rows(model, [every]) as embedding:
        groups = lora.parameter_groups(model, LEARNING_RATES[method], WEIGHT_DECAY, None)
        optimizer = MasterAdamW(groups, {})
        meter = Meter(model, optimizer, embedding.parked)
        for step, batch in enumerate(_batches(settings, steps + warmup)):
            with meter.step(step):
                optimizer_step(model, [batch], optimizer)
    timed = meter.seconds[warmup:] if warmup else ()
    cost = cost_figures(1.0, 0, 0, CPU, timed, meter.state)
    return {
        "trainable_parameters": size.trainable,
        "total_parameters": size.total,
        "artifact_bytes": artifact,
        **{k: v for k, v in cost.items() if k.startswith(("training_state", "step_"))},
    }


def _batches(settings: Settings, steps: int) -> list[Batch]:
    n = settings.batch_size
    texts = random_texts(steps * n, settings.tokens, settings.vocabulary)
    tokens = [np.array(text, dtype=np.int64) for text in texts]
    labels = np.arange(n) % 2
    return [collate(Examples(tokens[i : i + n], labels)) for i in range(0, len(tokens), n)]
