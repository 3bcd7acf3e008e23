"""lora-compare as a contender: the one place here that uses its training interface."""

from contextlib import ExitStack
from functools import cache

import numpy as np
import torch

from benchmarks.jobs import LEARNING_RATES, SEED, WEIGHT_DECAY, Contender, Job, Text
from lora_compare import lora
from lora_compare.compute.device import keep_freed_memory
from lora_compare.compute.optimizers import MasterAdamW
from lora_compare.compute.precision import choose_precision, lower_frozen, trained_in_float32
from lora_compare.compute.seeding import seeded
from lora_compare.models.batches import Examples, collate
from lora_compare.models.classifier import Padding, predict_logits
from lora_compare.models.gpt.network import GPT, Classifier, GPTConfig, initialise
from lora_compare.models.losses import RecordedLoss
from lora_compare.models.methods import Trained, choose_trainable
from lora_compare.params import LoraParams
from lora_compare.training.embeddings import seen_rows
from lora_compare.training.ranks.steps import optimizer_step


def trained(method: str, rank: int) -> Trained:
    """Return what `full` or `lora` trains, with an adapter of that rank on every Linear layer."""
    if method != "lora":
        return Trained("all")
    adapter = LoraParams(
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        bias="none",
    )
    return Trained("lora", adapter)


def build(job: Job) -> Contender:
    """Return this project's classifier with the steps of `training.train`."""
    keep_freed_memory()
    device = torch.device(job.device)
    dtype = choose_precision(job.precision, device, job.shape["n_embd"])
    with seeded(SEED):
        model = Classifier(initialise(GPT(GPTConfig(**job.shape))), 2, "last_token")
    choose_trainable(model, trained(job.method, job.rank), SEED)
    model.to(device)
    if job.task == "train":
        lower_frozen(model, dtype, keep=(model.score,))
    padding = Padding(job.pad_token, job.width)
    held = ExitStack()  # until the process ends
    whole_split = [list(job.vocabulary), *job.texts]

    def examples(texts: list[Text], labels: list[int]) -> Examples:
        tokens = [padding.pad(np.array(text, dtype=np.int64)) for text in texts]
        return Examples(tokens, np.array(labels))

    @cache
    def passes() -> RecordedLoss | None:
        return RecordedLoss(model, job.padded_length, dtype) if job.recorded else None

    @cache
    def optimizer() -> torch.optim.Optimizer:
        tokens = [np.array(t, dtype=np.int64) for t in whole_split if t]
        seen = Examples(tokens, np.zeros(len(tokens), dtype=np.int64))
        held.enter_context(seen_rows(model, [seen]))
        rate = LEARNING_RATES[job.method]
        masters = held.enter_context(trained_in_float32(model, dtype, keep=(model.score,)))
        return MasterAdamW(lora.parameter_groups(model, rate, WEIGHT_DECAY, None), masters)

    def step(texts: list[Text], labels: list[int]) -> float:
        batch = collate(examples(texts, labels))
        chosen = optimizer()  # first, since it decides what is trained
        return optimizer_step(model, [batch], chosen, dtype=dtype, passes=passes()).item()

    def predict(texts: list[Text]) -> None:
        lora.merge(model)
        predict_logits(model, examples(texts, [0] * len(texts)), dtype=dtype)
        lora.unmerge(model)

    return Contender(model, step, predict)
