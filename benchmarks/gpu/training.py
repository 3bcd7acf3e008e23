"""The SMS experiment: whole trainings of one method as `finetune` does them, timed."""

import time
from collections.abc import Iterator
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
from lora_compare.training.history import Reporting

CLASSES = ["ham", "spam"]
HEAD = ClassifierParams(position="last_token", bias=True)
BATCH, EVERY, LOOKED_AT = 8, 50, 40
"""Messages a step, and how often how many are evaluated: the book's."""


AGAIN = "lora-compare, recorded, the second in its process"

PLAIN = 240
"""Messages that the training without recording sees at most: 30 steps."""


def run(device: str, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield seconds and memory of trainings in bfloat16, with recorded steps on a GPU.

    The first training in a process waits for libraries to be loaded; a stage has one for each
    seed, and only its first waits.

    Args:
        device: Where to train.
        settings: `model`, `method`, `epochs`, and `messages`, how many of each split, null for
            all; and `more`, whether to train a second time, and a little without recording.
    """
    make_deterministic(SEED, threads=None if device == "cuda" else 1)
    splits, encoding = bundled_splits()
    if settings["messages"]:
        splits = {name: e.take(range(settings["messages"])) for name, e in splits.items()}
    few = splits | {"train": splits["train"].take(range(min(PLAIN, len(splits["train"]))))}
    given, epochs = (device, settings, encoding), settings["epochs"]
    trainings = {}
    if device == "cuda":
        recorded = partial(_train, *given, splits, epochs, recorded=True)
        trainings = {"lora-compare, recorded": recorded, AGAIN: recorded}
    trainings["lora-compare"] = partial(_train, *given, few, 1, recorded=False)
    rows = []
    for name, train in trainings.items():
        if settings["more"] or name == "lora-compare, recorded":
            rows.append(row(settings["method"], name, train))
            yield {"precision": "bfloat16", "batch_size": BATCH, "rows": rows}


def _train(
    device: str,
    settings: dict[str, Any],
    encoding: tiktoken.Encoding,
    splits: dict[str, Examples],
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
    training, looked = Training(f"seed {SEED}", chosen, SEED, shared), []
    reporting = Reporting(on_evaluation=lambda _: looked.append(time.perf_counter() - start))
    _, result = finetune(base, CLASSES, splits, HEAD, training, machine, reporting)
    watched.wait()
    steps = epochs * shared.steps_per_epoch(len(splits["train"]))
    return {
        "epochs": epochs,
        "messages": len(splits["train"]),
        "steps": steps,
        "seconds": time.perf_counter() - start,
        "step_seconds": result.seconds / steps,
        "seconds_to_first_evaluation": looked[0],
        "evaluations": len(looked),
        "losses": [result.history[0].train_loss, result.history[-1].train_loss],
        "memory_bytes": watched.peak(),
    }
