"""Figures of one classifier on one split, from labels and probabilities alone.

A figure that needs a class which the split does not hold is None (null in JSON), and so is a
macro average over such figures: averaging what is left would compare unequal things.

The definitions are scikit-learn's; importing it would take longer than all that is computed here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.errors import DataError
from lora_compare.evaluation.calibration import (
    Labels,
    Probabilities,
    expected_calibration_error,
    expected_error_when_calibrated,
)
from lora_compare.evaluation.scores import Task
from lora_compare.evaluation.statistics import wilson_interval, worth_of_groups

CLASS_FIGURES = ("f1", "precision", "recall", "auroc", "average_precision")

Array = npt.NDArray[np.float64]


def evaluate_predictions(
    labels: Labels,
    probabilities: Probabilities,
    classes: Sequence[str],
    positive: int = 1,
    weights: Array | None = None,
    groups: Sequence[str] = (),
    predicted: npt.NDArray[np.int64] | None = None,
    costs: Array | None = None,
) -> dict[str, Any]:
    """Return every figure of one split as plain JSON values, unrounded.

    With two classes `f1`, `precision`, `recall`, `auroc` and `average_precision` are those of
    the positive class, and `false_alarms_per_1000` and `misses_per_1000` count the messages, of a
    thousand, that are wrongly taken for it and for the other. With more classes they are macro
    averages (one class against the rest), and `per_class` holds each class's own with its number
    of messages `n`. `macro_f1` is the mean over the classes with two as well, and
    `balanced_accuracy` that of their recalls.

    `log_loss` is in nats. `brier` is half the mean squared distance between probabilities and
    truth, which for two classes is the usual (p - y)^2; it lies in 0..1 for any number.
    `confusion_matrix[i][j]` counts messages of class i that were taken for class j, `n` all of
    them, and `ece` bins them; every other figure takes each message for what it weighs.
    `ece_expected` is what `ece` would be in the mean were the probabilities right.

    Args:
        labels: Index of each message's class, shape (n,).
        probabilities: Of each class, shape (n, n_classes); rows sum to 1.
        classes: Names of the classes in the order of the columns, at least two.
        positive: Index of the positive class where there are two.
        weights: Of the messages, shape (n,), above 0; None weighs all alike. The interval of the
            accuracy is then that of as many equal messages as they are worth (Kish 1965).
        groups: Name of each message's group, where the data has groups: the interval is then that
            of as many independent messages as they are worth.
        predicted: Index of the class that each message was taken for, shape (n,); None: its most
            probable one.
        costs: Cost by class and answer, shape (n_classes, n_classes): `expected_cost` is then the
            mean of a message.

    Raises:
        DataError: There is no message.

    Checked by tests/unit/evaluation/test_metrics.py against scikit-learn and by hand.
    """
    chances = _normalised(labels, probabilities, len(classes))
    weighing = np.ones(len(labels)) if weights is None else weights
    predicted = predicted_classes(probabilities) if predicted is None else predicted
    ones = np.ones(len(labels))
    matrix = Task(classes, labels, weighing, positive).confusion(predicted)
    counts = Task(classes, labels, ones, positive).confusion(predicted).astype(np.int64)
    # Of the scores as they are: dividing them by their sum breaks ties.
    per_class = _class_figures(matrix, counts, labels, probabilities, weighing, classes)
    binary = len(classes) == 2
    figures = per_class[classes[positive]] if binary else _macro(list(per_class.values()))
    accuracy = float(matrix.trace() / matrix.sum())
    worth = float(weighing.sum() ** 2 / (weighing @ weighing))
    if groups:
        worth = worth_of_groups(predicted == labels, groups, weighing)
    return {
        "accuracy": accuracy,
        "accuracy_ci95": list(wilson_interval(accuracy * worth, worth)),
        "n": len(labels),
        "balanced_accuracy": average(per_class, "recall"),
        "macro_f1": average(per_class, "f1"),
        **{name: figures[name] for name in CLASS_FIGURES},
        **(_rates(matrix, positive) if binary else {}),
        **({} if costs is None else {"expected_cost": float(np.average(costs, weights=matrix))}),
        "log_loss": _log_loss(labels, chances, weighing),
        "brier": _brier(labels, chances, weighing),
        "ece": expected_calibration_error(labels, probabilities),
        "ece_expected": expected_error_when_calibrated(probabilities),
        "confusion_matrix": counts.tolist(),
        **({} if binary else {"per_class": per_class}),
    }


def predicted_classes(probabilities: Probabilities) -> npt.NDArray[np.int64]:
    """Return the most probable class of each row, shape (n,); the lowest index wins a tie."""
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def _normalised(labels: Labels, probabilities: Probabilities, n_classes: int) -> Array:
    if not len(labels):
        raise DataError("There is no message to evaluate.", next="give the split more messages")
    assert probabilities.shape == (len(labels), n_classes)
    assert n_classes >= 2
    assert labels.min() >= 0
    assert labels.max() < n_classes
    chances = probabilities.astype(np.float64)
    totals = chances.sum(axis=1, keepdims=True)
    assert np.isfinite(chances).all()
    assert chances.min() >= 0
    assert np.allclose(totals, 1.0, atol=1e-3)
    # A float32 softmax sums to 1 within 1e-7 only.
    return np.asarray(chances / totals, dtype=np.float64)


def _log_loss(labels: Labels, chances: Array, weights: Array) -> float:
    """Return the mean surprise at the true classes, in nats; certainty is off by an epsilon."""
    eps = np.finfo(np.float64).eps
    of_truth = np.clip(chances[np.arange(len(labels)), labels], eps, 1 - eps)
    # numpy's logarithm depends on the processor in its last bit; the C library's does not.
    return float(np.average([-math.log(chance) for chance in of_truth], weights=weights))


def _brier(labels: Labels, chances: Array, weights: Array) -> float:
    truth = np.eye(chances.shape[1])[labels]
    return float(0.5 * np.average(((truth - chances) ** 2).sum(axis=1), weights=weights))


def _rates(matrix: Array, positive: int) -> dict[str, float | None]:
    """Return the wrong answers of either kind in a thousand messages; None without such ones."""
    wrong = 1000 * matrix / matrix.sum()
    held = matrix.sum(axis=1) > 0
    other = 1 - positive
    return {
        "false_alarms_per_1000": float(wrong[other, positive]) if held[other] else None,
        "misses_per_1000": float(wrong[positive, other]) if held[positive] else None,
    }


def _class_figures(
    matrix: Array,
    counts: npt.NDArray[np.int64],
    labels: Labels,
    scores: Probabilities,
    weights: Array,
    classes: Sequence[str],
) -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(classes):
        hits, held = float(matrix[index, index]), float(matrix[index].sum())
        taken, n = float(matrix[:, index].sum()), int(counts[index].sum())
        figures[name] = {
            "n": n,
            "f1": 2 * hits / (held + taken) if n else None,
            # Where a class occurs but is never predicted, its precision is 0 by convention.
            "precision": (hits / taken if taken else 0.0) if n else None,
            "recall": hits / held if n else None,
            **ranking_figures(labels == index, scores[:, index], weights),
        }
    return figures


def ranking_figures(
    positive: npt.NDArray[np.bool_], scores: Probabilities, weights: Array
) -> dict[str, float | None]:
    """Return how well the scores rank the positive messages above the others.

    `auroc` is the area under the ROC curve by trapezoids; `average_precision` is the sum of
    precisions weighted by the gains in recall, without interpolation. Messages of one score
    are one step of both curves.
    """
    hits, misses = _taken(positive, scores, weights)
    area = average = None
    if hits[-1] and misses[-1]:
        # Only the curve's corners: more points on its straight parts would round differently.
        bent = np.diff(hits, 2).astype(bool) | np.diff(misses, 2).astype(bool)
        corners = np.flatnonzero(np.concatenate([[True], bent, [True]])[: len(hits)])
        heights = np.append(0.0, hits[corners]) / hits[-1]
        area = float(np.trapezoid(heights, np.append(0.0, misses[corners]) / misses[-1]))
    if hits[-1]:
        gains = np.diff(hits / hits[-1], prepend=0.0)
        average = float(np.sum((gains * (hits / (hits + misses)))[::-1]))
    return {"auroc": area, "average_precision": average}


def _taken(
    positive: npt.NDArray[np.bool_], scores: Probabilities, weights: Array
) -> tuple[Array, Array]:
    """Return the weight of rightly and of wrongly taken messages from each score on, falling."""
    order = np.argsort(-scores, kind="stable")
    steps = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weighted, known = weights[order], positive[order]
    hits, misses = (np.cumsum(weighted * kind)[steps] for kind in (known, ~known))
    return hits, misses


def precision_recall_curve(
    positive: npt.NDArray[np.bool_], scores: Probabilities, weights: Array
) -> tuple[Array, Array]:
    """Return recall and precision from each score on that finds more, the highest score first.

    Args:
        positive: Whether each message is of the class, shape (n,), at least one.
        scores: Probability of the class, shape (n,).
        weights: Of the messages, shape (n,), above 0.

    Checked by tests/unit/evaluation/test_metrics.py against scikit-learn.
    """
    hits, misses = _taken(positive, scores, weights)
    more = np.diff(hits, prepend=0.0) > 0
    return (hits / hits[-1])[more], (hits / (hits + misses))[more]


def _macro(per_class: list[dict[str, Any]]) -> dict[str, float | None]:
    return {name: average(dict(enumerate(per_class)), name) for name in CLASS_FIGURES}


def average(per_class: Mapping[Any, Mapping[str, Any]], name: str) -> float | None:
    """Return the mean of a figure over the classes; None where one of them does not have it."""
    values = [figures[name] for figures in per_class.values()]
    return None if None in values else float(np.mean(values))
