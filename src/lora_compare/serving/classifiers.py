"""Several methods over one base in memory; which of them answers is each request's choice."""

import copy
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from lora_compare import lora
from lora_compare.errors import RequestError
from lora_compare.evaluation.tfidf import TfidfClassifier, load_tfidf
from lora_compare.models.answers.decision import FILE
from lora_compare.models.base import load_base
from lora_compare.models.classifier import TextClassifier
from lora_compare.models.methods import load_method, read_method
from lora_compare.project.paths import TFIDF


@dataclass(frozen=True)
class Answer:
    """What a method says of one text.

    Attributes:
        label: The class that it is taken for: the likeliest one, but for a threshold; where a text
            may have several labels, these as a list in JSON.
        probability: The answer's probability.
        probabilities: Those of all classes, by name.
    """

    label: str
    probability: float
    probabilities: dict[str, float]


class Classifiers:
    """Methods by name, ready to answer.

    Choosing one is looking its name up: nothing is activated, copied or merged, so requests for
    different methods may be answered at the same time, from as many threads as there are.

    Args:
        classifiers: The methods, in evaluation mode. They stay in it: a request that put it on
            and off would do so under the others.
    """

    def __init__(self, classifiers: Mapping[str, TextClassifier | TfidfClassifier]) -> None:
        self._classifiers = dict(classifiers)

    @property
    def names(self) -> list[str]:
        """The names of the methods."""
        return list(self._classifiers)

    def choose(self, method: str) -> TextClassifier | TfidfClassifier:
        """Return the classifier of that name.

        Raises:
            RequestError: There is none; the message lists those that there are.
        """
        try:
            return self._classifiers[method]
        except (KeyError, TypeError):
            raise RequestError(
                f"There is no method {reprlib.repr(method)} here.",
                where="method",
                expected=" or ".join(self.names),
                next="name one of these, or none: then the model's own method answers",
            ) from None

    def answer(self, texts: Sequence[str], method: str) -> list[Answer]:
        """Return the method's answers, one a text, as `lora-compare classify` gives them.

        Args:
            texts: The texts; one that is too long is cut as in training.
            method: The method's name.

        Raises:
            RequestError: There is no such method, no text, or one that is empty or no text.
        """
        classifier = self.choose(method)
        _require_texts(texts)
        rows, targets = classifier.probabilities(texts), classifier.targets
        given = targets.answers(rows, classifier.decision)
        named = zip(
            targets.texts(given, classifier.classes),
            targets.certainty(rows, given).tolist(),
            rows.tolist(),
            strict=True,
        )
        return [
            Answer(label, sure, dict(zip(classifier.classes, chances, strict=True)))
            for label, sure, chances in named
        ]


def _require_texts(texts: Sequence[str]) -> None:
    if not texts:
        raise RequestError(
            "There is nothing to classify.", expected="at least one text", next="send texts"
        )
    for number, text in enumerate(texts, start=1):
        where = f"text {number} of {len(texts)}"
        if not isinstance(text, str):
            raise RequestError(
                "Only text can be classified.",
                where=where,
                expected="a string",
                actual=f"{reprlib.repr(text)} ({type(text).__name__})",
                next="send every text as a string",
            )
        if not text.strip():
            raise RequestError(
                "There is nothing to classify in an empty text.", where=where, next="leave it out"
            )


def load_classifiers(
    base_folder: Path, folders: Mapping[str, Path], device: torch.device
) -> Classifiers:
    """Return methods that share the base's weights, each with its own trained ones beside them.

    Args:
        base_folder: What `save_base` wrote. Its model.safetensors may be missing where every
            method has all weights itself, and all of it where the baseline is alone.
        folders: What `save_method` wrote, by the method's name; `TFIDF`: what `save_tfidf` did.
            In it may lie how probabilities become answers, under the name of `decision.FILE`.
        device: Where they answer.

    Raises:
        MissingArtifactError: A file is missing.
        IntegrityError: A file has changed since it was written.
        CheckpointError: A method belongs to another base.

    Checked by tests/unit/serving/test_classifiers.py, which compares the tensors' places in memory.
    """
    loaded = {
        name: load_tfidf(path, path / FILE) for name, path in folders.items() if name == TFIDF
    }
    tuned = {name: path for name, path in folders.items() if name not in loaded}
    fine_tuned = _load_methods(base_folder, tuned, device) if tuned else {}
    return Classifiers({**loaded, **fine_tuned})


def _load_methods(
    base_folder: Path, folders: Mapping[str, Path], device: torch.device
) -> dict[str, TextClassifier]:
    methods = {name: read_method(path, f"finetune@{name}") for name, path in folders.items()}
    shared = any(method.trainable != "all" for method in methods.values())
    base = load_base(base_folder, with_weights=shared)
    if shared:
        base.network.to(device)
    networks: dict[str | None, nn.Module] = {None: base.network}
    classifiers = {}
    for name, folder in folders.items():
        settings = methods[name].lora
        kind = settings.quantization if settings else None
        if kind not in networks:
            networks[kind] = _twin(base.network)
            lora.quantize(networks[kind])
        own = replace(base, network=_twin(networks[kind]))
        classifier = load_method(folder, own, f"finetune@{name}", folder / FILE)
        classifier.model.to(device).eval()
        classifiers[name] = classifier
    return classifiers


def _twin(network: nn.Module) -> nn.Module:
    """Return a network of modules of its own that hold the very tensors of `network`.

    What is put on or between its modules leaves `network` as it is.
    """
    tensors = [*network.parameters(), *network.buffers()]
    states = [t.quant_state for t in tensors if hasattr(t, "quant_state")]
    return copy.deepcopy(network, {id(kept): kept for kept in [*tensors, *states]})
