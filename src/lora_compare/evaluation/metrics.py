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
from lora_compare.evaluation.statistics import wilson_interval

CALIBRATION_BINS = 15
"""Equal-width bins of confidence, as in Guo et al. 2017, arXiv:1706.04599, section 3."""

POSITIVE = 1
"""Index of the positive class where there are two: the second name in order (spam)."""

CLASS_FIGURES = ("f1", "precision", "recall", "auroc", "average_precision")

Labels = npt.NDArray[np.integer[Any]]
Probabilities = npt.NDArray[np.floating[Any]]


def evaluate_predictions(
    labels: Labels, probabilities: Probabilities, classes: Sequence[str]
) -> dict[str, Any]:
    """Return every figure of one split as plain JSON values, unrounded.

    With two classes `f1`, `precision`, `recall`, `auroc` and `average_precision` are those of
    the second class. With more they are macro averages (one class against the rest), and
    `per_class` holds each class's own with its number of messages `n`.

    `log_loss` is in nats. `brier` is half the mean squared distance between probabilities and
    truth, which for two classes is the usual (p - y)^2; it lies in 0..1 for any number.
    `confusion_matrix[i][j]` counts messages of class i that were taken for class j.

    Args:
        labels: Index of each message's class, shape (n,).
        probabilities: Of each class, shape (n, n_classes); rows sum to 1.
        classes: Names of the classes in the order of the columns, at least two.

    Raises:
        DataError: There is no message.

    Checked by tests/unit/evaluation/test_metrics.py against scikit-learn and by hand.
    """
    chances = _normalised(labels, probabilities, len(classes))
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(matrix, (labels, predicted_classes(probabilities)), 1)
    correct, n = int(matrix.trace()), len(labels)
    per_class = _class_figures(matrix, labels, chances, classes)
    binary = len(classes) == 2
    figures = per_class[classes[POSITIVE]] if binary else _macro(list(per_class.values()))
    return {
        "accuracy": correct / n,
        "accuracy_ci95": list(wilson_interval(correct, n)),
        "n": n,
        **{name: figures[name] for name in CLASS_FIGURES},
        "log_loss": _log_loss(labels, chances),
        "brier": _brier(labels, chances),
        "ece": expected_calibration_error(labels, probabilities),
        "confusion_matrix": matrix.tolist(),
        **({} if binary else {"per_class": per_class}),
    }


def prior_weights(
    labels: Labels, classes: Sequence[str], prior: Mapping[str, float] | None
) -> npt.NDArray[np.float64]:
    """Return what each message counts where classes are as frequent as `prior` says, shape (n,).

    A message of class c counts prior[c] over the share of c in `labels`; the mean is 1.

    Args:
        labels: Index of each message's class, shape (n,); every class occurs.
        classes: Names of the classes.
        prior: Share of each class, from data.prior; None gives every message 1.
    """
    if prior is None:
        return np.ones(len(labels))
    assert set(prior) == set(classes)
    targets = np.array([prior[name] for name in classes])
    found = np.bincount(labels, minlength=len(classes)) / len(labels)
    assert found.all()
    return np.asarray((targets / targets.sum() / found)[labels], dtype=np.float64)


def predicted_classes(probabilities: Probabilities) -> npt.NDArray[np.int64]:
    """Return the most probable class of each row, shape (n,); the lowest index wins a tie."""
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def calibration_bins(
    labels: Labels, probabilities: Probabilities, bins: int = CALIBRATION_BINS
) -> list[dict[str, Any]]:
    """Return how often the classifier was right at each level of confidence.

    Confidence is the probability of the predicted class. Bin b holds confidences in
    (b / bins, (b + 1) / bins], and the first one 0 too. Each record has the bin's edges `low`
    and `high`, its number of messages `n`, their mean `confidence` and their `accuracy`, both
    None in an empty bin.

    Args:
        labels: Index of each message's class, shape (n,).
        probabilities: Of each class, shape (n, n_classes).
        bins: Number of equal-width bins.

    Source: Guo et al. 2017, arXiv:1706.04599, section 2.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = predicted_classes(probabilities) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    # searchsorted's default side makes bins closed on the right, as scikit-learn's are.
    bin_of = np.searchsorted(edges[1:-1], confidence)
    counts = np.bincount(bin_of, minlength=bins)
    confidences = np.bincount(bin_of, weights=confidence, minlength=bins)
    hits = np.bincount(bin_of, weights=correct, minlength=bins)
    return [
        {
            "low": float(edges[b]),
            "high": float(edges[b + 1]),
            "n": int(counts[b]),
            "confidence": float(confidences[b] / counts[b]) if counts[b] else None,
            "accuracy": float(hits[b] / counts[b]) if counts[b] else None,
        }
        for b in range(bins)
    ]


def expected_calibration_error(
    labels: Labels, probabilities: Probabilities, bins: int = CALIBRATION_BINS
) -> float:
    """Return the mean gap, in 0..1, between confidence and accuracy over the bins.

    Bins count by their number of messages. Arguments as in `calibration_bins`.

    Source: Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    filled = [b for b in calibration_bins(labels, probabilities, bins) if b["n"]]
    gaps = sum(b["n"] * abs(b["accuracy"] - b["confidence"]) for b in filled)
    return float(gaps / len(labels))


def _normalised(
    labels: Labels, probabilities: Probabilities, n_classes: int
) -> npt.NDArray[np.float64]:
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


def _log_loss(labels: Labels, chances: npt.NDArray[np.float64]) -> float:
    """Return the mean surprise at the true classes, in nats; certainty is off by an epsilon."""
    eps = np.finfo(np.float64).eps
    of_truth = np.clip(chances[np.arange(len(labels)), labels], eps, 1 - eps)
    # numpy's logarithm depends on the processor in its last bit; the C library's does not.
    return float(np.mean([-math.log(chance) for chance in of_truth]))


def _brier(labels: Labels, chances: npt.NDArray[np.float64]) -> float:
    truth = np.eye(chances.shape[1])[labels]
    return float(0.5 * np.mean(((truth - chances) ** 2).sum(axis=1)))


def _class_figures(
    matrix: npt.NDArray[np.int64],
    labels: Labels,
    chances: npt.NDArray[np.float64],
    classes: Sequence[str],
) -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(classes):
        hits, n = int(matrix[index, index]), int(matrix[index].sum())
        taken = int(matrix[:, index].sum())
        figures[name] = {
            "n": n,
            "f1": 2 * hits / (n + taken) if n else None,
            # Where a class occurs but is never predicted, its precision is 0 by convention.
            "precision": hits / max(taken, 1) if n else None,
            "recall": hits / n if n else None,
            **_ranking_figures(labels == index, chances[:, index]),
        }
    return figures


def _ranking_figures(
    positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]
) -> dict[str, float | None]:
    """Return how well the scores rank the positive messages above the others.

    `auroc` is the area under the ROC curve by trapezoids; `average_precision` is the sum of
    precisions weighted by the gains in recall, without interpolation. Messages of one score
    are one step of both curves.
    """
    order = np.argsort(-scores, kind="stable")
    steps = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(positive[order])[steps].astype(np.float64)
    misses = 1 + steps - hits
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


def _macro(per_class: list[dict[str, Any]]) -> dict[str, float | None]:
    averages: dict[str, float | None] = {}
    for name in CLASS_FIGURES:
        values = [figures[name] for figures in per_class]
        averages[name] = None if None in values else float(np.mean(values))
    return averages
