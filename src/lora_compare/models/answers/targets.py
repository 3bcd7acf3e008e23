"""What logits stand for: one class of a text, or for each label whether a text has it.

Training, evaluation and serving ask here for loss, probabilities and answers, and know neither.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from lora_compare.models.answers.decision import PLAIN, Decision
from lora_compare.project.corpus import label_text

if TYPE_CHECKING:  # to read TF-IDF's answers needs no torch, which takes a second
    from torch import Tensor

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Reduction = Literal["sum", "mean"]

EVEN = 0.5
"""Threshold of a label where nothing says another."""


class Targets(ABC):
    """What the logits of a classifier stand for.

    In the shapes below b or n is the number of texts, k that of classes or labels. The labels of
    texts are class indices, shape (n,), of one class each; of several labels 0 and 1, shape (n, k).
    """

    problem_type: ClassVar[str]

    @abstractmethod
    def loss(
        self,
        logits: "Tensor",
        labels: "Tensor",
        class_weights: "Tensor | None" = None,
        reduction: Reduction = "sum",
    ) -> "Tensor":
        """Return the loss in nats, shape ().

        Args:
            logits: Shape (b, k).
            labels: Of the texts.
            class_weights: Of each class, shape (k,); None weighs all alike.
            reduction: Whether it is summed over the texts, or their mean.
        """

    @abstractmethod
    def probabilities(self, logits: FloatArray) -> FloatArray:
        """Return the probability of each class or label; both arrays have shape (n, k)."""

    @abstractmethod
    def answers(self, probabilities: FloatArray, decision: Decision = PLAIN) -> IntArray:
        """Return the answers to texts in the form of labels.

        Args:
            probabilities: Shape (n, k).
            decision: How they become answers, of one class a text.
        """

    @abstractmethod
    def certainty(self, probabilities: FloatArray, answers: IntArray) -> FloatArray:
        """Return the probability of each answer, shape (n,).

        Args:
            probabilities: Shape (n, k).
            answers: In the form of labels.
        """

    @abstractmethod
    def texts(self, answers: IntArray, classes: Sequence[str]) -> list[str]:
        """Return answers, or labels, as files have them.

        Args:
            answers: In the form of labels.
            classes: Names of the classes or labels.
        """

    @abstractmethod
    def fitted(self, probabilities: FloatArray, labels: IntArray) -> "Targets":
        """Return the same with what is chosen on validation.

        Args:
            probabilities: Of the validation split, shape (n, k).
            labels: Its labels.
        """

    @abstractmethod
    def settings(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return what a config.json keeps of it; nothing of one class a text."""


@dataclass(frozen=True)
class OneClass(Targets):
    """A text has one class: softmax, cross-entropy, the most probable."""

    problem_type = "single_label_classification"

    def loss(
        self,
        logits: "Tensor",
        labels: "Tensor",
        class_weights: "Tensor | None" = None,
        reduction: Reduction = "sum",
    ) -> "Tensor":
        """Return the cross-entropy."""
        from torch.nn import functional as F

        return F.cross_entropy(logits, labels, class_weights, reduction=reduction)

    def probabilities(self, logits: FloatArray) -> FloatArray:
        """Return the softmax."""
        import torch

        result: FloatArray = torch.from_numpy(logits).softmax(dim=1).numpy()
        return result

    def answers(self, probabilities: FloatArray, decision: Decision = PLAIN) -> IntArray:
        """Return the class of each text that `decision` makes of its probabilities."""
        return decision.answers(probabilities)

    def certainty(self, probabilities: FloatArray, answers: IntArray) -> FloatArray:
        """Return the probability of each answer's class."""
        return probabilities[np.arange(len(answers)), answers]

    def texts(self, answers: IntArray, classes: Sequence[str]) -> list[str]:
        """Return the names of the classes."""
        return [classes[i] for i in answers]

    def fitted(self, probabilities: FloatArray, labels: IntArray) -> "OneClass":  # noqa: ARG002
        """Return itself: nothing is chosen."""
        return self

    def settings(self, classes: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002 (none is named)
        """Return nothing."""
        return {}


ONE_CLASS = OneClass()


@dataclass(frozen=True)
class SeveralLabels(Targets):
    """A text has any number of labels: a sigmoid, binary cross-entropy and a threshold for each.

    Attributes:
        thresholds: Probability from which a text has a label, k of them; where there are none, 0.5.
    """

    thresholds: tuple[float, ...] = ()
    problem_type = "multi_label_classification"

    def loss(
        self,
        logits: "Tensor",
        labels: "Tensor",
        class_weights: "Tensor | None" = None,
        reduction: Reduction = "sum",
    ) -> "Tensor":
        """Return the binary cross-entropy, of each text the mean over its labels."""
        from torch.nn import functional as F

        assert class_weights is None, "refused with the parameters"
        # Below 0 are those of a text without part in the loss, as for torch's cross-entropy.
        truth, counts = labels.clamp(min=0).to(logits.dtype), (labels >= 0).to(logits.dtype)
        found = F.binary_cross_entropy_with_logits(logits, truth, counts, reduction=reduction)
        return found if reduction == "mean" else found / logits.shape[1]

    def probabilities(self, logits: FloatArray) -> FloatArray:
        """Return the sigmoid."""
        import torch

        result: FloatArray = torch.from_numpy(logits).sigmoid().numpy()
        return result

    def answers(
        self,
        probabilities: FloatArray,
        decision: Decision = PLAIN,  # noqa: ARG002 (it is of one class)
    ) -> IntArray:
        """Return 1 for each label that reaches its threshold, and 0 for the others."""
        return (probabilities >= np.array(self.thresholds or EVEN)).astype(np.int64)

    def certainty(self, probabilities: FloatArray, answers: IntArray) -> FloatArray:
        """Return the product of the probabilities of the decisions: a sigmoid has them apart."""
        return np.asarray(np.where(answers, probabilities, 1 - probabilities).prod(axis=1))

    def texts(self, answers: IntArray, classes: Sequence[str]) -> list[str]:
        """Return the names of each text's labels as a list in JSON."""
        return [label_text(compress(classes, row)) for row in answers]

    def fitted(self, probabilities: FloatArray, labels: IntArray) -> "SeveralLabels":
        """Return the same with the threshold of each label that gives it the highest F1.

        Source: Fan and Lin 2007, A study on threshold selection for multi-label classification,
        section 2 (SCut, of Lewis 1996).
        """
        pairs = zip(probabilities.T, labels.T, strict=True)
        return SeveralLabels(tuple(best_threshold(scores, truth) for scores, truth in pairs))

    def settings(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the threshold of each label by its name."""
        thresholds = self.thresholds or (EVEN,) * len(classes)
        return {"thresholds": dict(zip(classes, thresholds, strict=True))}


def best_threshold(scores: FloatArray, truth: IntArray) -> float:
    """Return the threshold with the highest F1 of one label, half-way between two scores.

    Of equally good ones it is the one nearest to 0.5; so it is 0.5 where nothing has the label.

    Args:
        scores: Probability of each text, shape (n,).
        truth: 1 of a text that has the label, else 0, shape (n,).

    Checked by tests/unit/models/test_targets.py against scikit-learn's precision_recall_curve.
    """
    if not truth.any():
        return EVEN
    known, place = np.unique(scores, return_inverse=True)
    taken = np.cumsum(np.bincount(place)[::-1])[::-1]
    hits = np.cumsum(np.bincount(place, truth)[::-1])[::-1]
    f1 = 2 * hits / (taken + truth.sum())
    # Each threshold may lie anywhere above the next lower score: far from both is steadiest.
    lower = np.append(0.0, known[:-1])
    best = np.flatnonzero(f1 == f1.max())
    within = (lower[best] < EVEN) & (known[best] > EVEN)
    middle = np.where(within, EVEN, (lower[best] + known[best]) / 2)
    return float(middle[np.abs(middle - EVEN).argmin()])


def targets_of(labels: "IntArray | Tensor") -> Targets:
    """Return what logits are to stand for, by the labels of the texts to learn from."""
    return ONE_CLASS if labels.ndim == 1 else SeveralLabels()


def targets_of_config(config: Mapping[str, Any]) -> Targets:
    """Return what the config.json of a classifier says, by `Targets.settings`."""
    if "thresholds" not in config:
        return ONE_CLASS
    return SeveralLabels(tuple(config["thresholds"][name] for name in config["classes"]))


def are_right(answers: IntArray, labels: IntArray) -> npt.NDArray[np.bool_]:
    """Return which answers are right, of several labels a text in all of them.

    Args:
        answers: Shape (..., n), or with an axis of labels behind it as `labels` has.
        labels: Shape (n,) or (n, k).
    """
    same = answers == labels
    return np.asarray(same if labels.ndim == 1 else same.all(axis=-1), dtype=np.bool_)


def sum_by_class(labels: IntArray, values: npt.ArrayLike, n_classes: int) -> FloatArray:
    """Return the sum of `values` over the texts of each class or label, shape (k,).

    Args:
        labels: Of n texts.
        values: One of each text, shape (n,).
        n_classes: k.
    """
    if labels.ndim == 1:
        return np.asarray(np.bincount(labels, values, n_classes), dtype=np.float64)
    return np.asarray(np.asarray(values) @ labels, dtype=np.float64)
