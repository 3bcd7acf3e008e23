"""The same for a model of transformers: a Llama's shape, beside transformers with PEFT."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.gpu.rows import row
from benchmarks.gpu.steps import BATCH, TOKENS, WARMUP, Step, described, timed
from benchmarks.jobs import LEARNING_RATES, RANK, SEED, WEIGHT_DECAY
from benchmarks.workload import random_texts
from lora_compare import lora
from lora_compare.compute.optimizers import MasterAdamW
from lora_compare.compute.precision import lower_frozen
from lora_compare.models.batches import Batch, Examples, collate
from lora_compare.models.hub.network import HubClassifier
from lora_compare.models.losses import RecordedLoss
from lora_compare.models.methods import Trained, choose_trainable
from lora_compare.params import ClassifierParams, LoraParams
from lora_compare.training.embeddings import seen_rows
from lora_compare.training.ranks.steps import optimizer_step

SHAPES: dict[str, dict[str, int]] = {
    "llama-1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
    },
    "llama-tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 1000,
    },
}
"""Llama 3.2 1B's shape, and one for trying this out."""

ADAPTER = LoraParams(
    r=RANK, lora_alpha=RANK, lora_dropout=0.0, target_modules="all-linear", bias="none"
)


def run(device: str, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield seconds and memory of a step by method and implementation, as they become known.

    Args:
        device: Where to train.
        settings: `model`, a name of SHAPES, and `steps`, how many are timed.
    """
    model, steps = settings["model"], settings["steps"]
    batches = _batches(SHAPES[model]["vocab_size"], WARMUP + steps)
    rows: list[dict[str, Any]] = []
    for method in ("lora", "full"):
        given = (model, method, device, batches)
        makers: dict[str, Callable[[], Step]] = {}
        if device == "cuda":
            makers["lora-compare, recorded"] = partial(_ours, *given, recorded=True)
        makers["lora-compare"] = partial(_ours, *given, recorded=False)
        makers["transformers"] = partial(_theirs, *given)
        for name, make in makers.items():
            rows.append(row(method, name, partial(timed, device, make, steps)))
            yield described(rows)


def _batches(vocabulary: int, n: int) -> list[Batch]:
    texts = [np.array(text) for text in random_texts(BATCH * n, TOKENS, vocabulary)]
    labels = np.arange(BATCH) % 2
    return [collate(Examples(texts[i : i + BATCH], labels)) for i in range(0, len(texts), BATCH)]


def _network(model: str, device: str) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(SEED)
    config = AutoConfig.for_model("llama", **SHAPES[model], pad_token_id=0, use_cache=False)
    auto: Any = AutoModelForSequenceClassification
    with torch.device(device):
        return auto.from_config(config).train()


def _ours(model: str, method: str, device: str, batches: list[Batch], recorded: bool) -> Step:
    head = ClassifierParams(position="last_token", bias=True)
    network = HubClassifier(_network(model, device), head)
    choose_trainable(
        network, Trained("lora", ADAPTER) if method == "lora" else Trained("all"), SEED
    )
    network.to(device)
    lower_frozen(network, torch.bfloat16, keep=network.head_modules())
    everything = Examples(
        [batch.texts.tokens.numpy() for batch in batches], np.zeros(len(batches), np.int64)
    )
    kept = seen_rows(network, [everything])
    kept.__enter__()
    groups = lora.parameter_groups(network, LEARNING_RATES[method], WEIGHT_DECAY, None)
    optimizer = MasterAdamW(groups, {})
    passes = RecordedLoss(network, TOKENS, torch.bfloat16) if recorded else None

    def step(i: int) -> float:
        assert kept is not None  # the embedding is the rows that are seen for as long as this is
        loss = optimizer_step(network, [batches[i]], optimizer, dtype=torch.bfloat16, passes=passes)
        return loss.item()

    return step


def _theirs(model: str, method: str, device: str, batches: list[Batch]) -> Step:
    network = _network(model, device)
    if method == "lora":
        import peft

        values = ADAPTER.model_dump(include={"r", "lora_alpha", "target_modules"})
        network = peft.get_peft_model(network, peft.LoraConfig(task_type="SEQ_CLS", **values))
    network.to(device)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=LEARNING_RATES[method], weight_decay=WEIGHT_DECAY, fused=True
    )

    def step(i: int) -> float:
        ids = batches[i].texts.tokens.view(BATCH, TOKENS).to(device)
        with torch.autocast(device, torch.bfloat16):
            logits = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        loss = F.cross_entropy(logits.float(), batches[i].labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
