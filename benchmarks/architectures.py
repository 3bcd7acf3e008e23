"""Seconds and memory of steps on a BERT and a Llama, beside transformers' Trainer with PEFT."""

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import peft
import psutil
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.jobs import SEED
from benchmarks.machine import peak_memory_bytes
from lora_compare import lora
from lora_compare.comparison.formats import size
from lora_compare.compute.device import keep_freed_memory
from lora_compare.compute.optimizers import MasterAdamW
from lora_compare.models.batches import Examples, collate
from lora_compare.models.hub.network import HubClassifier
from lora_compare.models.methods import Trained, choose_trainable
from lora_compare.params import ClassifierParams, LoraParams
from lora_compare.project.progress import SILENT, Progress, without_warnings
from lora_compare.training.embeddings import seen_rows
from lora_compare.training.ranks.steps import optimizer_step

SHAPES: dict[str, dict[str, Any]] = {
    "bert": {"intermediate_size": 2048, "vocab_size": 30_522},
    "llama": {"intermediate_size": 1376, "vocab_size": 32_000, "num_key_value_heads": 4},
}
"""Six layers of width 512; the sizes of feed-forward part and vocabulary are the families'."""

COMMON = {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "pad_token_id": 0}

LORA = LoraParams(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", bias="none")
BATCH, SHORTEST, LONGEST, VOCABULARY = 8, 16, 64, 5000
RATE = 1e-4


def texts(n: int) -> Examples:
    """Return texts for n steps, of unequal length; about a third of a padded batch is padding."""
    rng = np.random.default_rng(SEED)
    lengths = rng.integers(SHORTEST, LONGEST, n * BATCH)
    tokens = [rng.integers(5, VOCABULARY, length).astype(np.int64) for length in lengths]
    return Examples(tokens, np.arange(len(tokens)) % 2)


def network(name: str, **changes: Any) -> Any:
    """Return transformers' classifier of a family, the same each time."""
    torch.manual_seed(SEED)
    config = AutoConfig.for_model(name, **{**COMMON, **SHAPES[name], **changes})
    auto: Any = AutoModelForSequenceClassification
    return auto.from_config(config).train()


def ours(model: Any, method: str, data: Examples) -> list[float]:
    """Train a classifier of transformers here, and return the CPU seconds of each step."""
    keep_freed_memory()
    classifier = HubClassifier(model, ClassifierParams(position="last_token", bias=True))
    trained = Trained("lora", LORA) if method == "lora" else Trained("all")
    choose_trainable(classifier, trained, SEED)
    every = Examples([np.arange(VOCABULARY)], np.zeros(1, dtype=np.int64))
    with seen_rows(classifier, [every]):
        optimizer = MasterAdamW(lora.parameter_groups(classifier, RATE, 0.0, None), {})
        ends = [time.process_time()]
        for first in range(0, len(data), BATCH):
            batch = collate(data.take(np.arange(first, first + BATCH)))
            optimizer_step(classifier, [batch], optimizer)
            ends.append(time.process_time())
    return [end - start for start, end in pairwise(ends)]


def theirs(model: Any, method: str, data: Examples) -> list[float]:
    """Train it with transformers' Trainer, adapted by PEFT for `lora`; return the same.

    Optimizer (fused AdamW) and attention are its defaults. What has no counterpart in the steps
    of `ours` is off: clipping, logging, saving.
    """
    if method == "lora":
        values = LORA.model_dump(include={"r", "lora_alpha", "target_modules"})
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", **values))
    rows = [
        {"input_ids": torch.from_numpy(tokens), "labels": int(label)}
        for tokens, label in zip(data.tokens, data.labels, strict=True)
    ]
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(
            model, arguments, data_collator=_padded, train_dataset=rows, callbacks=[clock]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [end - start for start, end in pairwise(clock.ends)]


class _Clock(TrainerCallback):
    """Notes the CPU time when training begins and at the end of each step."""

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        self.ends = [time.process_time()]

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        self.ends.append(time.process_time())


def _padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    ids = pad_sequence([row["input_ids"] for row in rows], batch_first=True)
    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


WHO = {"ours": ours, "theirs": theirs}


def measure(who: str, name: str, method: str, steps: int) -> tuple[list[float], int]:
    """Return the CPU seconds of each step but the first, and the bytes that training added.

    For a process of its own: the bytes are its peak less what it held with the model.
    """
    torch.set_num_threads(1)
    data, model = texts(steps + 1), network(name)
    held = psutil.Process().memory_info().rss
    with without_warnings("transformers"):
        seconds = WHO[who](model, method, data)[1:]
    return seconds, peak_memory_bytes("cpu") - held


def rows(steps: int, rounds: int = 3, progress: Progress = SILENT) -> Iterator[str]:
    """Yield the lines of a table; the two take turns, each time in a new process.

    Args:
        steps: Steps that count in each round.
        rounds: Turns of each.
        progress: Where to report.
    """
    yield "| model | method | lora-compare | Trainer | times as fast | memory here | Trainer's |"
    yield "|---|---|---|---|---|---|---|"
    pool = ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
    )
    pairs = [(name, method) for name in SHAPES for method in ("lora", "full")]
    with pool, progress.task("benchmark", len(pairs) * rounds * len(WHO)) as advance:
        for name, method in pairs:
            seconds: dict[str, list[float]] = {who: [] for who in WHO}
            memory: dict[str, list[int]] = {who: [] for who in WHO}
            for _ in range(rounds):
                for who in WHO:
                    found, added = pool.submit(measure, who, name, method, steps).result()
                    seconds[who] += found
                    memory[who].append(added)
                    advance(1, f"{name}, {method}, {who}")
            own, other = (median(seconds[who]) for who in WHO)
            times = f"{own * 1000:.0f} ms | {other * 1000:.0f} ms | {other / own:.2f}"
            held = " | ".join(size(int(median(memory[who]))) for who in WHO)
            yield f"| {name} | {method} | {times} | {held} |"
