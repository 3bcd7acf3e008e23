"""Seconds of a step on a BERT and a Llama, beside transformers with PEFT on the same batches."""

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
import peft
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from benchmarks.jobs import SEED
from lora_compare import lora
from lora_compare.compute.optimizers import MasterAdamW
from lora_compare.models.batches import Batch, Examples, collate
from lora_compare.models.hub.network import HubClassifier
from lora_compare.models.methods import Trained, choose_trainable
from lora_compare.params import ClassifierParams, LoraParams
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

Step = Callable[[Batch], Any]


def batches(n: int) -> list[Batch]:
    """Return n batches of random texts of unequal length; about a third of each is padding."""
    rng = np.random.default_rng(SEED)
    found = []
    for _ in range(n):
        lengths = rng.integers(SHORTEST, LONGEST, BATCH)
        texts = [rng.integers(5, VOCABULARY, length).astype(np.int64) for length in lengths]
        found.append(collate(Examples(texts, np.arange(BATCH) % 2)))
    return found


def model(name: str) -> Any:
    """Return transformers' classifier of a family, the same each time."""
    torch.manual_seed(SEED)
    config = AutoConfig.for_model(name, **COMMON, **SHAPES[name])
    auto: Any = AutoModelForSequenceClassification
    return auto.from_config(config).train()


def ours(name: str, method: str, data: list[Batch]) -> Iterator[float]:
    """Yield the CPU seconds of each step of this project."""
    network = HubClassifier(model(name), ClassifierParams(position="last_token", bias=True))
    trained = Trained("lora", LORA) if method == "lora" else Trained("all")
    choose_trainable(network, trained, SEED)
    every = Examples([np.arange(VOCABULARY)], np.zeros(1, dtype=np.int64))
    with seen_rows(network, [every]):
        optimizer = MasterAdamW(lora.parameter_groups(network, RATE, 0.0, None), {})
        yield from _timed(lambda batch: optimizer_step(network, [batch], optimizer), data)


def theirs(name: str, method: str, data: list[Batch]) -> Iterator[float]:
    """Yield those of transformers with PEFT: padded, masked, fused AdamW, as its Trainer."""
    network = model(name)
    if method == "lora":
        values = LORA.model_dump(include={"r", "lora_alpha", "target_modules"})
        network = peft.get_peft_model(network, peft.LoraConfig(task_type="SEQ_CLS", **values))
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, fused=True)

    def step(batch: Batch) -> None:
        texts = batch.texts.tokens.split(batch.texts.lengths)
        ids = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
        network(input_ids=ids, attention_mask=(ids > 0).long(), labels=batch.labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    yield from _timed(step, data)


def _timed(step: Step, data: list[Batch]) -> Iterator[float]:
    for batch in data:
        start = time.process_time()
        step(batch)
        yield time.process_time() - start


def rows(steps: int, rounds: int = 2) -> Iterator[str]:
    """Yield the lines of a table; the two take turns, and the first step of each does not count.

    Args:
        steps: Steps that count in each round.
        rounds: Turns of each.
    """
    torch.set_num_threads(1)
    data = batches(steps + 1)
    yield "| model | method | lora-compare | transformers with PEFT | times as fast |"
    yield "|---|---|---|---|---|"
    for name in SHAPES:
        for method in ("lora", "full"):
            found: dict[str, list[float]] = {"ours": [], "theirs": []}
            for _ in range(rounds):
                for who, run in (("ours", ours), ("theirs", theirs)):
                    found[who] += list(run(name, method, data))[1:]
            own, other = median(found["ours"]), median(found["theirs"])
            times = f"{own * 1000:.0f} ms | {other * 1000:.0f} ms | {other / own:.2f}"
            yield f"| {name} | {method} | {times} |"
