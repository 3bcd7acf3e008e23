"""The fitted TF-IDF, read from its files: no pickle, and no scikit-learn to classify."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from lora_compare.models.answers.decision import PLAIN, Decision, read_decision
from lora_compare.models.answers.targets import (
    ONE_CLASS,
    FloatArray,
    SeveralLabels,
    Targets,
    targets_of_config,
)
from lora_compare.project.checksums import read_verified
from lora_compare.project.paths import require

CONFIG_FILE, VOCABULARY_FILE, TENSORS_FILE = "config.json", "vocabulary.json", "model.safetensors"
"""How a text becomes terms and what the classes are; the terms; the arrays."""

STAGE = "baseline"
"""The stage that writes them."""


@dataclass(frozen=True)
class TfidfClassifier:
    """TF-IDF and logistic regression, as scikit-learn computes them.

    Attributes:
        classes: Names of the classes.
        analyzer: What a term is: `word`, or `char_wb` for runs of characters within words.
        ngram_range: The least and most characters of a run.
        places: The place of each term in the arrays.
        idf: Inverse document frequency of each term, shape (n_terms,).
        coefficients: Shape (n_classes, n_terms); of two classes the second's alone, (1, n_terms).
        intercepts: Shape (n_classes,), or (1,).
        targets: What the scores stand for.
        decision: How its probabilities become answers, of one class a text.
    """

    classes: list[str]
    analyzer: str
    ngram_range: tuple[int, int]
    places: dict[str, int]
    idf: FloatArray
    coefficients: FloatArray
    intercepts: FloatArray
    targets: Targets = ONE_CLASS
    decision: Decision = PLAIN

    def probabilities(self, texts: Sequence[str]) -> FloatArray:
        """Return the probability of each class for each text, shape (n, n_classes).

        It is what `decision` makes of the regression's own; its `answers` turn it into classes.
        """
        scores = np.stack([self._score(text) for text in texts])
        if isinstance(self.targets, SeveralLabels):
            return np.asarray(np.exp(-np.logaddexp(0, -scores)), dtype=np.float64)
        if scores.shape[1] == 1:
            # The first class is where the score counts from.
            scores = np.hstack([np.zeros_like(scores), scores])
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        result: FloatArray = chances / chances.sum(axis=1, keepdims=True)
        return self.decision.probabilities(result)

    def _score(self, text: str) -> FloatArray:
        terms = TERMS[self.analyzer](text.lower(), *self.ngram_range)
        counts = Counter(self.places[term] for term in terms if term in self.places)
        found = np.fromiter(counts.keys(), np.int64, len(counts))
        weights = np.fromiter(counts.values(), np.float64, len(counts)) * self.idf[found]
        # A text without any known term has length 0, and the intercepts alone.
        weights /= np.linalg.norm(weights) or 1.0
        score: FloatArray = self.coefficients[:, found] @ weights + self.intercepts
        return score


def _words(text: str, *_: int) -> Iterator[str]:
    """Yield the words of two characters or more."""
    yield from re.findall(r"\b\w\w+\b", text)


def _runs_of_characters(text: str, least: int, most: int) -> Iterator[str]:
    """Yield the runs of `least` to `most` characters of each word with a space on both sides."""
    for word in text.split():
        padded = f" {word} "
        for length in range(least, most + 1):
            for start in range(max(len(padded) - length, 0) + 1):
                yield padded[start : start + length]
            if len(padded) <= length:
                break  # a short word counts once


TERMS: dict[str, Callable[..., Iterator[str]]] = {"word": _words, "char_wb": _runs_of_characters}
"""What finds the terms of a text in lower case, by scikit-learn's name.

Checked by tests/unit/evaluation/test_tfidf.py, which compares the probabilities.
"""


def load_tfidf(folder: Path, decision: Path | None = None) -> TfidfClassifier:
    """Return the classifier that `baselines.save_tfidf` wrote to `folder`.

    Args:
        folder: The folder.
        decision: As for `models.methods.load_method`.

    Raises:
        MissingArtifactError: A file is missing.
        IntegrityError: A file has changed since it was written.
        CheckpointError: The decision is of other weights.
    """
    require(folder, STAGE)
    config: dict[str, Any] = json.loads(read_verified(folder / CONFIG_FILE, STAGE))
    vocabulary = json.loads(read_verified(folder / VOCABULARY_FILE, STAGE))
    return TfidfClassifier(
        classes=config["classes"],
        analyzer=config["analyzer"],
        ngram_range=(config["ngram_range"][0], config["ngram_range"][1]),
        places={term: place for place, term in enumerate(vocabulary)},
        **load(read_verified(folder / TENSORS_FILE, STAGE)),
        targets=targets_of_config(config),
        decision=read_decision(decision, folder / TENSORS_FILE, config["classes"], STAGE),
    )
