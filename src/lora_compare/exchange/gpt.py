"""A classifier on GPT-2 as transformers' GPT2ForSequenceClassification, and as ONNX."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lora_compare.exchange.counterpart import (
    TORCH,
    Counterpart,
    label_settings,
    problem_settings,
    truncation_side,
)
from lora_compare.exchange.onnx import write_onnx
from lora_compare.exchange.peft.gpt import GPTLayout
from lora_compare.exchange.peft.layout import merged_state
from lora_compare.exchange.transformers import (
    HEAD,
    classifier_state,
    model_config,
    write_tokenizer,
)
from lora_compare.models import weights
from lora_compare.models.gpt.base import GPTTokenizer
from lora_compare.models.gpt.network import GPT, Classifier
from lora_compare.models.gpt.weights import gpt2_state_dict
from lora_compare.project.files import write_json


class GPTCounterpart(Counterpart):
    """A GPT2ForSequenceClassification."""

    @property
    def model(self) -> Classifier:
        """The network here."""
        model = self.classifier.model
        assert isinstance(model, Classifier), type(model)
        return model

    @property
    def layout(self) -> GPTLayout:
        """The classifier as PEFT knows it."""
        return GPTLayout(self.model, self.base, self.classifier.decision)

    def write_model(self, folder: Path) -> None:
        """Write config.json and weights of the whole classifier, an adapter merged."""
        self._write(folder, classifier_state(self.model, self.classifier.decision))

    def write_base(self, folder: Path) -> None:
        """Write config.json and weights of the base, in which the head is missing."""
        state = {f"transformer.{name}": t for name, t in gpt2_state_dict(self.base).items()}
        self._write(folder, state)

    def _write(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        weights.save_state(folder / "model.safetensors", state, TORCH)
        pad = self.classifier.padding.token
        config = model_config(self.model.gpt.config, self.classifier.classes, pad)
        write_json(folder / "config.json", config | problem_settings(self.classifier.targets))

    def write_tokenizer(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json."""
        tokenizer = self.classifier.tokenizer
        assert isinstance(tokenizer, GPTTokenizer), type(tokenizer)
        side = truncation_side(self.classifier)
        write_tokenizer(folder, tokenizer.encoding, self.classifier.max_length, side)

    def write_onnx(self, folder: Path) -> None:
        """Write model.onnx, and config.json with what its inputs want."""
        classifier = self.classifier
        write_onnx(folder / "model.onnx", self._plain())
        inputs = {
            "id2label": label_settings(classifier.classes)["id2label"],
            "position": self.model.position,
            "pad_token_id": classifier.padding.token,
            "padded_length": classifier.padding.length,
            "max_length": classifier.max_length,
        }
        inputs |= classifier.targets.settings(classifier.classes)
        write_json(folder / "config.json", inputs)

    def _plain(self) -> Classifier:
        """Return a classifier of plain layers in full precision that computes the same."""
        model, state = self.model, merged_state(self.model, self.classifier.decision)
        with torch.device("meta"):
            gpt, has_bias = GPT(model.gpt.config), f"{HEAD}.bias" in state
            plain = Classifier(gpt, model.n_classes, model.position, has_bias)
        plain.load_state_dict(state, assign=True)
        return plain
