"""How the probabilities of a classifier become its answer: temperature, prior, threshold.

All three change the logits z of a text by one number for all classes and one for each,

    z' = z / temperature + shift,

and the answer is the class of the largest z', from which two classes may have a threshold
subtracted. So a head can hold all of it (`Decision.affine`), and nothing here needs the network.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.errors import CheckpointError, DataError
from lora_compare.project.checksums import digest, read_verified
from lora_compare.project.files import sha256, write_json

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer[Any]]

FILE = "decision.json"
"""Where a decision lies beside the weights that it is of."""

COLDEST, HOTTEST = 0.01, 100.0
"""Between which a temperature is looked for: what lies at an end is no temperature, but a model
that is right on all of validation, or knows nothing of it."""

BEYOND = 1.0
"""Nats between the most extreme log-odds on validation and a threshold that no message passes, or
that all do: three times the odds."""

SAME = 1e-12
"""Share within which two values of a target are one but for rounding."""


@dataclass(frozen=True)
class Decision:
    """What makes an answer of a classifier's own probabilities; the default changes nothing.

    Attributes:
        temperature: What the logits are divided by, above 0.
        shift: What is added to each class's logit then, in nats, shape (n_classes,); empty: none.
        positive: Index of the class that the threshold is of.
        threshold: Log-odds of that class, of two, above which a text is taken for it; None: the
            likeliest class is the answer.
    """

    temperature: float = 1.0
    shift: tuple[float, ...] = ()
    positive: int = 1
    threshold: float | None = None

    @property
    def chance(self) -> float | None:
        """The threshold as a probability of the positive class; None without one."""
        return None if self.threshold is None else 1 / (1 + math.exp(-self.threshold))

    def probabilities(self, chances: Array) -> Array:
        """Return the probabilities after temperature and shift.

        Args:
            chances: The classifier's own, shape (n, n_classes).
        """
        if self.temperature == 1.0 and not self.shift:
            return chances
        return _softmax(logarithms(chances) / self.temperature + np.asarray(self.shift or 0.0))

    def answers(self, probabilities: Array) -> npt.NDArray[np.int64]:
        """Return the index of each text's class, shape (n,); the lowest index wins a tie.

        Args:
            probabilities: Those of `probabilities`, shape (n, n_classes).
        """
        scores = probabilities
        if self.threshold is not None:
            scores = logarithms(probabilities)
            scores[:, self.positive] -= self.threshold
        return np.asarray(scores.argmax(axis=1), dtype=np.int64)

    def affine(self, n_classes: int) -> tuple[float, Array]:
        """Return what the logits are multiplied by and what is added, shape (n_classes,).

        The largest of the logits so changed is the answer. Where there is no threshold, their
        softmax is `probabilities`; with one, it is over a half of a class from its threshold on.
        """
        added = np.array(self.shift or [0.0] * n_classes)
        if self.threshold is not None:
            added[self.positive] -= self.threshold
        return 1 / self.temperature, added


PLAIN = Decision()
"""The likeliest class by the classifier's own probabilities."""


def _softmax(logits: Array) -> Array:
    """Return the probabilities of the classes; both arrays have shape (n, n_classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result


def logarithms(chances: Array) -> Array:
    """Return the logits of probabilities, but for what is the same of all classes of a text."""
    result: Array = np.log(np.maximum(chances, np.finfo(np.float64).tiny))
    return result


def prior_shift(before: Sequence[float], after: Sequence[float]) -> tuple[float, ...]:
    """Return what takes logits from one share of the classes to another, in nats.

    Of p(class | text) at the shares `before`, p(class | text) at `after` is proportional to
    p after / before, if texts of a class are the same at both.

    Args:
        before: Share of each class in what the classifier has learnt from, above 0.
        after: Share of each class where it works, above 0.

    Source: Saerens, Latinne and Decaestecker 2002, Neural Computation 14:21, equation 2.4.
    """
    return tuple(math.log(new / old) for old, new in zip(before, after, strict=True))


def fit_temperature(
    chances: Array, labels: Labels, weights: Array, shift: Sequence[float] = ()
) -> float:
    """Return the temperature with which texts have the lowest log loss.

    With b = 1 / temperature the log loss of softmax(b z + shift) is convex in b, and its slope is
    0 at the lowest. 1 where there is none: all answers are right with a margin, or none is.

    Args:
        chances: The classifier's own probabilities, shape (n, n_classes).
        labels: Index of each text's class, shape (n,).
        weights: Of the texts, shape (n,), above 0.
        shift: What is added to the logits after the division.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    Checked by tests/unit/models/test_decision.py against torch's and SciPy's own minimum.
    """
    from scipy.optimize import brentq  # here: to decide, a classifier needs no SciPy

    logits, added = logarithms(chances), np.asarray(shift if len(shift) else 0.0)
    of_truth = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        mean = (_softmax(inverse * logits + added) * logits).sum(axis=1)
        return float(np.average(mean - of_truth, weights=weights))

    coldest, hottest = 1 / COLDEST, 1 / HOTTEST
    if slope(hottest) >= 0 or slope(coldest) <= 0:
        return 1.0
    return float(1 / brentq(slope, hottest, coldest, xtol=1e-12))


def best_threshold(
    chances: Array,
    labels: Labels,
    weights: Array,
    positive: int,
    costs: Array | None = None,
) -> float:
    """Return the log-odds of the positive class from which texts are best taken for it.

    Best is the highest F1; with costs, the lowest cost. Between the log-odds of two texts every
    threshold is as good: the middle is taken, and of several places the one closest to what
    probabilities that are right would want: 0, or the logarithm of what a false alarm costs over
    what a miss costs (Elkan 2001). That itself is kept where nothing is better.

    Args:
        chances: Probabilities after temperature and shift, shape (n, 2).
        labels: Index of each text's class, shape (n,).
        weights: Of the texts, shape (n,), above 0.
        positive: Index of the positive class.
        costs: Cost by class and answer, shape (2, 2); None looks for the highest F1.

    Checked by tests/unit/models/test_decision.py against scikit-learn's curve.
    """
    logits = logarithms(chances)
    odds = logits[:, positive] - logits[:, 1 - positive]
    of_texts = np.unique(odds)
    middles = (of_texts[1:] + of_texts[:-1]) / 2
    wanted = 0.0
    if costs is not None:
        alarm, miss = costs[1 - positive, positive], costs[positive, 1 - positive]
        wanted = math.log(alarm / miss) if alarm > 0 and miss > 0 else 0.0
    ends = [of_texts[0] - BEYOND, of_texts[-1] + BEYOND]
    tried = np.array([wanted, *middles, *ends])
    found = _gains(tried, odds, labels == positive, weights, positive, costs)
    best = np.flatnonzero(found >= found.max() - SAME * abs(found.max()))
    return float(tried[best[np.abs(tried[best] - wanted).argmin()]])


def _gains(
    tried: Array,
    odds: Array,
    is_positive: npt.NDArray[np.bool_],
    weights: Array,
    positive: int,
    costs: Array | None,
) -> Array:
    """Return F1, or the cost below 0, of each threshold that is tried."""
    order = np.argsort(odds)
    place = np.searchsorted(odds[order], tried, side="right")
    missed, spared = (
        np.append(0.0, np.cumsum((weights * kind)[order])) for kind in (is_positive, ~is_positive)
    )
    misses, hits = missed[place], missed[-1] - missed[place]
    alarms = spared[-1] - spared[place]
    if costs is None:
        return np.asarray(2 * hits / (2 * hits + misses + alarms), np.float64)
    lost = misses * costs[positive, 1 - positive] + alarms * costs[1 - positive, positive]
    return np.asarray(-lost, np.float64)


def require_both(labels: Labels, classes: Sequence[str], positive: int) -> None:
    """Refuse to choose a threshold on a validation split that lacks one of two classes.

    Raises:
        DataError: It does.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if missing := [name for name, count in zip(classes, counts, strict=True) if not count]:
        raise DataError(
            "The validation split lacks a class, so that no threshold can be chosen on it.",
            where="params.yaml: classifier.threshold",
            expected=f"messages of both classes; the threshold is one of {classes[positive]}",
            actual=f"none of {missing[0]} among {len(labels):,}",
            kept="every training",
            next="set classifier.threshold: argmax, or a larger split.validation, then dvc repro",
        )


def write_decision(path: Path, decision: Decision, classes: Sequence[str], weights: Path) -> None:
    """Write a decision to `path`, with what it is of.

    Args:
        path: The file.
        decision: The decision.
        classes: Names of the classes.
        weights: The classifier's model.safetensors.
    """
    record = {
        "weights_sha256": sha256(weights),
        "classes": list(classes),
        "temperature": decision.temperature,
        "shift": list(decision.shift),
        "positive": classes[decision.positive],
        "threshold": decision.threshold,
    }
    write_json(path, record)


def read_decision(path: Path | None, weights: Path, classes: Sequence[str], stage: str) -> Decision:
    """Return the decision that `write_decision` wrote; that which changes nothing of no file.

    Args:
        path: The file, in a sealed folder or beside `weights`.
        weights: The classifier's model.safetensors.
        classes: Names of its classes.
        stage: The stage that wrote the weights, for error messages.

    Raises:
        IntegrityError: The file has changed since it was written.
        CheckpointError: It is of another model.
    """
    if path is None or not path.is_file():
        return PLAIN
    sealed = path.parent != weights.parent
    record: Mapping[str, Any] = json.loads(
        read_verified(path, stage.replace("finetune", "evaluate")) if sealed else path.read_bytes()
    )
    expected, actual = record["weights_sha256"], digest(weights, stage)
    if expected != actual or record["classes"] != list(classes):
        raise CheckpointError(
            "Temperature, prior and threshold were chosen for other weights.",
            where=str(path),
            expected=f"{weights.name} with sha256 {expected}",
            actual=f"sha256 {actual}",
            kept="the weights and the file",
            next=f"dvc repro {stage.replace('finetune', 'evaluate')}",
        )
    return Decision(
        record["temperature"],
        tuple(record["shift"]),
        list(classes).index(record["positive"]),
        record["threshold"],
    )
