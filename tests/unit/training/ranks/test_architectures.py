"""Two processes train a classifier of transformers as one does, QLoRA's packed weights too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gangs import in_ranks
from lora_compare.compute.optimizers import Rates
from lora_compare.compute.ranks import ALONE, Ranks
from lora_compare.models.classifier import start
from lora_compare.models.methods import Trained, choose_trainable
from lora_compare.params import TrainingParams
from lora_compare.training.loop import train
from lora_compare.training.ranks.strategies import gather, shard
from lora_settings import lora_settings
from tiny_bases import CLASSES, CPU, EVERY, HEAD, SEED, examples, load

pytestmark = pytest.mark.slow

TRAINING = TrainingParams(epochs=1, batch_size=5, seeds=[1], eval_every=9)

METHODS = {
    "full": Trained("all"),
    "lora": Trained("lora", lora_settings(r=2, target_modules="all-linear")),
    "qlora": Trained("lora", lora_settings(r=2, target_modules="all-linear", quantization="nf4")),
}


def trained(ranks: Ranks, root: Path, name: str, method: str) -> dict[str, torch.Tensor]:
    """Return the trained weights of an architecture, without its dropout."""
    base = load(name, root)
    classifier = start(base, CLASSES, examples(base), HEAD, TRAINING, SEED)
    model, (texts, _) = classifier.model, classifier.fit(examples(base))
    choose_trainable(model, METHODS[method], SEED)
    for module in model.modules():
        for probability in ("p", "dropout", "activation_dropout"):
            if isinstance(getattr(module, probability, None), float):
                setattr(module, probability, 0.0)
    if method != "qlora":
        model.double()
    dtype = torch.float32 if method == "qlora" else torch.float64
    if ranks.strategy == "fsdp":
        shard(model, CPU, dtype)
    train(model, texts, texts, TRAINING, Rates(1e-3, 0.01), SEED, dtype, ranks=ranks)
    gather(model, ranks)
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def all_methods(ranks: Ranks, root: Path, name: str, methods: list[tuple[str, Any]]) -> list[Any]:
    found = [trained(replace(ranks, strategy=s), root, name, m) for m, s in methods]
    return found if ranks.is_first else []


@pytest.mark.parametrize("name", EVERY)
def test_ranks_train_what_one_process_trains(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp(name)
    pairs = [("full", "fsdp"), ("lora", "fsdp"), ("full", "ddp"), ("qlora", "fsdp")]
    alone = all_methods(ALONE, root, name, [(method, "single") for method, _ in pairs])
    ranks = in_ranks(2, "fsdp", all_methods, root, name, pairs)[0]
    for (method, _), found, expected in zip(pairs, ranks, alone, strict=True):
        assert found.keys() == expected.keys()
        for key, weight in expected.items():
            close = 1e-4 if method == "qlora" else 1e-9
            torch.testing.assert_close(found[key], weight, rtol=0, atol=close)
