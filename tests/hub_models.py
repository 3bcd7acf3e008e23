"""Small bases of transformers as this project keeps them, and classifiers on them, for tests."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lora_compare import lora
from lora_compare.compute.seeding import seeded
from lora_compare.exchange.export import Source
from lora_compare.models.base import Base, load_base, make_base, save_base
from lora_compare.models.classifier import TextClassifier, predict_logits, untuned
from lora_compare.models.methods import Trained, adapt, choose_trainable
from lora_compare.params import ClassifierParams, LoraParams, ModelParams
from tiny_models import make_model

CLASSES = ["ham", "spam", "urgent"]
TEXTS = ["now", "claim your prize now call 42", "see you at home", "내일 회의 das Über"]
HEAD = ClassifierParams(position="last_token", bias=True)


def make_hub_base(project: Path, architecture: str, **changes: Any) -> Base:
    """Write a tiny checkpoint into a project, and the base that is made from it; return that."""
    name = f"inputs/models/{architecture}"
    make_model(project / name, architecture, **changes)
    model = ModelParams(name=name, weights="pretrained")
    base = make_base(model, [], torch.device("cpu"), root=project)
    return save_base(base, project / "models" / "base")


def make_hub_source(project: Path, settings: LoraParams | None, trainable: str = "lora") -> Source:
    """Return a method of a project's base, ready to be exported, changed as if it were trained."""
    base = load_base(project / "models" / "base")
    original = {name: tensor.clone() for name, tensor in base.network.state_dict().items()}
    classifier = untuned(base, CLASSES, HEAD, seed=2, max_length=30)
    if settings is None:
        choose_trainable(classifier.model, Trained(trainable), seed=2)
        trained: list[torch.Tensor] = [p for p in classifier.model.parameters() if p.requires_grad]
    else:
        with seeded(3):
            adapt(classifier.model, settings)
        tensors = lora.adapter_tensors(classifier.model).values()
        trained = [tensor for tensor in tensors if isinstance(tensor, nn.Parameter)]
    with seeded(4), torch.no_grad():
        for tensor in trained:
            tensor += 0.1 * torch.randn_like(tensor)
    return Source("m", 1, classifier, settings, original, base.description, "0" * 64)


def logits(classifier: TextClassifier) -> np.ndarray:
    """Return our logits of TEXTS, shape (n, n_classes)."""
    examples, _ = classifier.examples(TEXTS, [0] * len(TEXTS))
    return predict_logits(classifier.model.eval(), examples)


def padded(classifier: TextClassifier) -> dict[str, torch.Tensor]:
    """Return TEXTS as transformers takes them, `input_ids` and `attention_mask`, padded right."""
    examples, _ = classifier.examples(TEXTS, [0] * len(TEXTS))
    rows = [torch.from_numpy(tokens) for tokens in examples.tokens]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=classifier.tokenizer.pad)
    places = torch.arange(ids.shape[1])
    mask = torch.stack([places < len(row) for row in rows]).long()
    return {"input_ids": ids, "attention_mask": mask}


def reference_logits(model: Any, classifier: TextClassifier) -> np.ndarray:
    """Return the logits of transformers' (or PEFT's) model for TEXTS, shape (n, n_classes)."""
    with torch.no_grad():
        return model.eval()(**padded(classifier)).logits.double().numpy()
