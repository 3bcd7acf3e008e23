"""Classifiers of transformers: logits in float32, however texts are padded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lora_compare.models.classifier import TextClassifier, predict_logits, untuned
from parity.conftest import Parity
from tiny_bases import CLASSES, EVERY, HEAD, NAME, SEED, TEXTS, examples, load, project
from tiny_models import CONTEXT

RELATIVE = ("gpt_neox", "llama", "qwen3", "gemma", "mistral")
"""Which know no absolute place: transformers itself may pad them on the left."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


class Reference:
    """transformers' own classifier and tokenizer of the same folder, under the same head."""

    def __init__(self, folder: Path, ours: TextClassifier) -> None:
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(CLASSES))
        for path in ours.model.head:
            theirs = model.get_submodule(path.removeprefix("model."))
            theirs.load_state_dict(ours.model.get_submodule(path).state_dict())
        self.model: Any = model.eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.model.config.pad_token_id = self.tokenizer.pad_token_id

    @torch.no_grad()
    def logits(self, texts: list[str], side: str = "right") -> np.ndarray:
        self.tokenizer.padding_side = side
        inputs = self.tokenizer(
            texts, padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt"
        )
        inputs.pop("token_type_ids", None)
        found: Tensor = self.model(**inputs).logits
        return found.numpy()


@pytest.mark.parametrize("architecture", EVERY)
def test_logits_are_those_of_transformers_however_texts_are_padded(
    architecture: str, root: Path, parity: Parity
) -> None:
    base = load(architecture, root)
    ours = untuned(base, CLASSES, HEAD, SEED)
    reference = Reference(project(architecture, root) / NAME, ours)
    found = predict_logits(ours.model, ours.fit(examples(base))[0])
    assert np.std(found, axis=0).max() > 0.1
    order = np.arange(len(TEXTS))[::-2]
    others = predict_logits(ours.model, ours.fit(examples(base).take(order))[0])
    expected = {
        "texts one by one": np.concatenate([reference.logits([text]) for text in TEXTS]),
        "padded on the right": reference.logits(TEXTS),
    }
    if architecture in RELATIVE:
        expected["padded on the left"] = reference.logits(TEXTS, "left")
    for how, logits in expected.items():
        parity(f"{architecture}: {how}", "transformers", 1e-5, abs(found - logits).max())
    parity(f"{architecture}: beside other texts", "itself", 1e-5, abs(others - found[order]).max())
