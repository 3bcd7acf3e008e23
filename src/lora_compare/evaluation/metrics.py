"""Figures of one classifier on one split, from labels and probabilities alone.

A figure that needs a class which the split does not hold is None (null in JSON), and so is a
macro average over such figures: averaging what is left would compare unequal things.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

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
    indices = list(range(len(classes)))
    predicted = predicted_classes(probabilities)
    correct, n = int((predicted == labels).sum()), len(labels)
    per_class = _class_figures(labels, predicted, chances, classes)
    binary = len(classes) == 2
    figures = per_class[classes[POSITIVE]] if binary else _macro(list(per_class.values()))
    return {
        "accuracy": correct / n,
        "accuracy_ci95": list(wilson_interval(correct, n)),
        "n": n,
        **{name: figures[name] for name in CLASS_FIGURES},
        "log_loss": float(log_loss(labels, chances, labels=indices)),
        "brier": float(brier_score_loss(labels, chances, labels=indices, scale_by_half=True)),
        "ece": expected_calibration_error(labels, probabilities),
        "confusion_matrix": confusion_matrix(labels, predicted, labels=indices).tolist(),
        **({} if binary else {"per_class": per_class}),
    }


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
    assert np.allclose(totals, 1.0, atol=1e-3)
    # A float32 softmax sums to 1 within 1e-7 only; scikit-learn's log loss wants it closer.
    return np.asarray(chances / totals, dtype=np.float64)


def _class_figures(
    labels: Labels,
    predicted: Labels,
    chances: npt.NDArray[np.float64],
    classes: Sequence[str],
) -> dict[str, dict[str, Any]]:
    # Where a class occurs but is never predicted, its precision and F1 are 0 by convention.
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(len(classes)), average=None, zero_division=0
    )
    figures: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(classes):
        present = support[index] > 0
        figures[name] = {
            "n": int(support[index]),
            "f1": float(f1[index]) if present else None,
            "precision": float(precision[index]) if present else None,
            "recall": float(recall[index]) if present else None,
            **_ranking_figures(labels == index, chances[:, index]),
        }
    return figures


def _ranking_figures(
    positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]
) -> dict[str, float | None]:
    both = bool(positive.any() and not positive.all())
    return {
        "auroc": float(roc_auc_score(positive, scores)) if both else None,
        "average_precision": (
            float(average_precision_score(positive, scores)) if positive.any() else None
        ),
    }


def _macro(per_class: list[dict[str, Any]]) -> dict[str, float | None]:
    averages: dict[str, float | None] = {}
    for name in CLASS_FIGURES:
        values = [figures[name] for figures in per_class]
        averages[name] = None if None in values else float(np.mean(values))
    return averages
