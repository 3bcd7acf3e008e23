"""Bases of all architectures of `tiny_models`, made once, for tests of what is done with them."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_compare.models.base import Base, load_base, make_base, save_base
from lora_compare.models.batches import Examples
from lora_compare.models.tokens import tokenize
from lora_compare.params import ClassifierParams, ModelParams
from tiny_models import ARCHITECTURES, make_model, sample_texts

FEW = ("bert", "gpt2", "t5")
"""An encoder, a decoder, and both: what the fast tests take."""

EVERY = [
    pytest.param(name, marks=[] if name in FEW else [pytest.mark.slow]) for name in ARCHITECTURES
]

NAME = "inputs/models/tiny"
CPU = torch.device("cpu")
CLASSES = ["ham", "spam", "urgent"]
HEAD = ClassifierParams(position="last_token", bias=True)
TEXTS = [*sample_texts(10), "x", "word " * 100]
LABELS = [i % 3 for i in range(len(TEXTS))]
SEED = 3


@cache
def project(architecture: str, root: Path) -> Path:
    """Return a folder of the architecture and the base made of it below `root`.

    Both are written where they are not there: other processes read what the first has written.
    """
    found = root / architecture
    if not (found / "base").exists():
        make_model(found / NAME, architecture)
        save_base(make_base(model_params(), [], CPU, root=found), found / "base")
    return found


def model_params(**changes: Any) -> ModelParams:
    return ModelParams.model_validate({"name": NAME, "weights": "pretrained", **changes})


def load(architecture: str, root: Path) -> Base:
    return load_base(project(architecture, root) / "base")


def examples(base: Base) -> Examples:
    return tokenize(base.tokenizer, {"Text": TEXTS, "Label": LABELS})
