"""The SMS experiment: whole trainings of one method as `finetune` does them, timed."""

import time
from functools import partial
from typing import Any

import tiktoken
import torch

from benchmarks.gpu.rows import Watched, row
from benchmarks.jobs import LEARNING_RATES, RANK, SEED, WEIGHT_DECAY
from benchmarks.ours import trained
from benchmarks.workload import bundled_splits
from lora_compare.compute.device import Machine
from lora_compare.compute.seeding import make_deterministic
from lora_compare.models.batches import Examples
from lora_compare.models.gpt.base import GPTBase, GPTTokenizer
from lora_compare.models.gpt.network import CONFIGS, GPT, initialise
from lora_compare.params import ClassifierParams, MethodParams, TrainingParams
from lora_compare.training.finetuning import Training, finetune

CLASSES = ["ham", "spam"]
HEAD = ClassifierParams(position="last_token", bias=True)
BATCH, EVERY, LOOKED_AT = 8, 50, 40
"""Messages a step, and how often how many are evaluated: the book's."""


def run(device: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return seconds and memory of trainings in bfloat16, with recorded steps on a GPU.

    Args:
        device: Where to train.
        settings: `model`, `method`, `epochs`, and `messages`, how many of each split, null for
            all; and `plain`, whether to train for one epoch without recording, too.
    """
    make_deterministic(SEED, threads=None if device == "cuda" else 1)
    splits, encoding = bundled_splits()
    if settings["messages"]:
        splits = {name: e.take(range(settings["messages"])) for name, e in splits.items()}
    rows, method, given = [], settings["method"], (device, settings, splits, encoding)
    if device == "cuda":
        recorded = partial(_train, *given, settings["epochs"], recorded=True)
        rows.append(row(method, "lora-compare, recorded", recorded))
    if settings["plain"]:
        rows.append(row(method, "lora-compare", partial(_train, *given, 1, recorded=False)))
    return {"precision": "bfloat16", "batch_size": BATCH, "rows": rows}


def _train(
    device: str,
    settings: dict[str, Any],
    splits: dict[str, Examples],
    encoding: tiktoken.Encoding,
    epochs: int,
    recorded: bool,
) -> dict[str, Any]:
    method, place = settings["method"], torch.device(device)
    torch.manual_seed(SEED)
    with place:
        network = initialise(GPT(CONFIGS[settings["model"]]))
    shared = TrainingParams(
        epochs=epochs,
        batch_size=BATCH,
        seeds=[SEED],
        eval_every=EVERY,
        eval_examples=LOOKED_AT,
        compile=recorded,
    )
    chosen = MethodParams(
        trainable="lora" if method == "lora" else "all",
        learning_rate=LEARNING_RATES[method],
        weight_decay=WEIGHT_DECAY,
        lora=trained(method, RANK).lora,
    )
    base = GPTBase(network, GPTTokenizer(encoding), {})
    machine = Machine(place, torch.bfloat16, torch.get_num_threads())
    watched, start = Watched(device), time.perf_counter()
    training = Training(f"seed {SEED}", chosen, SEED, shared)
    _, result = finetune(base, CLASSES, splits, HEAD, training, machine)
    watched.wait()
    steps = epochs * shared.steps_per_epoch(len(splits["train"]))
    return {
        "epochs": epochs,
        "messages": len(splits["train"]),
        "steps": steps,
        "seconds": time.perf_counter() - start,
        "step_seconds": result.seconds / steps,
        "losses": [result.history[0].train_loss, result.history[-1].train_loss],
        "memory_bytes": watched.peak(),
    }
