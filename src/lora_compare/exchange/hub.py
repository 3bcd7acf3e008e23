"""A classifier of transformers in the files that transformers itself writes."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from lora_compare.errors import ExportError
from lora_compare.exchange.counterpart import Counterpart, label_settings, truncation_side
from lora_compare.exchange.peft.hub import HubLayout
from lora_compare.models.hub.network import HubClassifier
from lora_compare.models.hub.settings import transformers
from lora_compare.models.hub.tokenizer import HubTokenizer
from lora_compare.project.progress import without_warnings


class HubCounterpart(Counterpart):
    """The classifier itself: this project wraps one of transformers, and changes no name."""

    @property
    def model(self) -> HubClassifier:
        """The network here."""
        model = self.classifier.model
        assert isinstance(model, HubClassifier), type(model)
        return model

    @property
    def layout(self) -> HubLayout:
        """The classifier as PEFT knows it."""
        return HubLayout(self.model, self.classifier.decision)

    def write_model(self, folder: Path) -> None:
        """Write config.json and weights of the whole classifier, an adapter merged."""
        self._write(self.model.model, folder, self.layout.state())

    def write_base(self, folder: Path) -> None:
        """Write config.json and weights of the base, in which the head is missing."""
        self._write(self.model.model.base_model, folder, self.base)

    def _write(self, model: Any, folder: Path, state: Mapping[str, Tensor]) -> None:
        labels = label_settings(self.classifier.classes)
        model.config.id2label = {int(row): name for row, name in labels["id2label"].items()}
        model.config.label2id = labels["label2id"]
        model.config.problem_type = self.classifier.targets.problem_type
        with _quietly():
            model.save_pretrained(folder, state_dict=dict(state))

    def write_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        tokenizer = self.classifier.tokenizer
        assert isinstance(tokenizer, HubTokenizer), type(tokenizer)
        fast = copy.deepcopy(tokenizer.fast)
        settings = {
            "model_max_length": self.classifier.max_length,
            "padding_side": "right",
            "truncation_side": truncation_side(self.classifier),
            # A special token inside a text is text like any other, here too.
            "split_special_tokens": True,
        }
        for name, value in settings.items():
            setattr(fast, name, value)
        # What its save_pretrained writes; how it was loaded here is no part of it.
        loaded = ("is_local", "local_files_only")
        kept = {name: value for name, value in fast.init_kwargs.items() if name not in loaded}
        fast.init_kwargs = kept | settings
        with _quietly():
            fast.save_pretrained(folder)

    def write_onnx(self, folder: Path) -> None:  # noqa: ARG002 (nothing is written)
        """Refuse: each of transformers' architectures would need an export of its own.

        Raises:
            ExportError: Always.
        """
        raise ExportError(
            f"A model of transformers ({self.model.model_type}) is not written as ONNX here.",
            where="--format onnx",
            expected="--format merged, from which Hugging Face's Optimum makes it",
            next="lora-compare export --format merged, then with optimum[onnxruntime] installed:\n"
            "  optimum-cli export onnx --model FOLDER --task text-classification ONNX_FOLDER",
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep back the bars and notes with which transformers writes files."""
    logging = transformers().utils.logging
    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with without_warnings("transformers"):
            yield
    finally:
        if had_bars:
            logging.enable_progress_bar()
