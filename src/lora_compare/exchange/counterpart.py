"""A fine-tuned classifier as other programs have it: what every kind of model can be written as."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lora_compare.exchange.peft.layout import Layout
from lora_compare.models.answers.targets import ONE_CLASS, Targets
from lora_compare.models.classifier import TextClassifier

TORCH = {"format": "pt"}
"""The one entry of metadata without which transformers does not read a safetensors file."""


def label_settings(classes: list[str]) -> dict[str, Any]:
    """Return the names of the classes as transformers' settings `id2label` and `label2id`."""
    return {
        "id2label": {str(index): name for index, name in enumerate(classes)},
        "label2id": {name: index for index, name in enumerate(classes)},
    }


def problem_settings(targets: Targets) -> dict[str, str]:
    """Return what makes transformers take logits for those of several labels, if they are."""
    return {} if targets == ONE_CLASS else {"problem_type": targets.problem_type}


def truncation_side(classifier: TextClassifier) -> str:
    """Return on which side transformers' tokenizer has to cut longer texts.

    It cannot keep both ends, as `head_tail` does: then it keeps the first tokens.
    """
    return "left" if classifier.truncation == "tail" else "right"


class Counterpart(ABC):
    """transformers' model that computes what a classifier here does.

    Args:
        classifier: The classifier, its adapter not merged. It is as before after every method.
        base: The base's weights before fine-tuning and quantisation, by name.
    """

    def __init__(self, classifier: TextClassifier, base: Mapping[str, Tensor]) -> None:
        self.classifier, self.base = classifier, base

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """The classifier as PEFT knows it."""

    @abstractmethod
    def write_model(self, folder: Path) -> None:
        """Write config.json and weights of the whole classifier, an adapter merged.

        Raises:
            ExportError: transformers cannot compute that.
        """

    @abstractmethod
    def write_base(self, folder: Path) -> None:
        """Write config.json and weights of the base, in which the head is missing."""

    @abstractmethod
    def write_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files: they give the ids that the classifier reads."""

    @abstractmethod
    def write_onnx(self, folder: Path) -> None:
        """Write model.onnx and config.json for ONNX runtimes.

        Raises:
            ExportError: This kind of model is not written as ONNX, or the libraries are missing.
        """
