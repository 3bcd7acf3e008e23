"""Figures of one classifier on one split of messages that may have several labels.

They have the names and the meaning of those of one class a message (`evaluation.metrics`) where
there is one, and a figure that needs a label which no message of the split has is None here, too.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.errors import DataError
from lora_compare.evaluation.calibration import (
    as_decisions,
    expected_calibration_error,
    expected_error_when_calibrated,
)
from lora_compare.evaluation.labels.scores import f1_of, jaccard, outcomes
from lora_compare.evaluation.metrics import CLASS_FIGURES, average, ranking_figures
from lora_compare.evaluation.statistics import wilson_interval, worth_of_groups
from lora_compare.models.answers.targets import SeveralLabels, are_right

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def evaluate_labels(
    labels: Labels,
    probabilities: Array,
    classes: Sequence[str],
    targets: SeveralLabels,
    groups: Sequence[str] = (),
) -> dict[str, Any]:
    """Return every figure of one split as plain JSON values, unrounded.

    `accuracy` is the share of messages whose labels are all right (subset accuracy), `jaccard` the
    mean over messages of the right labels' share among those that it has or was given (1 where
    both are none), `hamming_loss` the share of wrong decisions on single labels. `micro_f1` is of
    all decisions together, `macro_f1`, `f1`, `precision`, `recall`, `auroc` and
    `average_precision` are means over the labels, whose own stand in `per_class` with the number
    of their messages `n` and their `threshold`. `log_loss` in nats, `brier` and `ece` are of
    decisions on single labels.

    Args:
        labels: 0 and 1, shape (n, k).
        probabilities: Of each label, shape (n, k).
        classes: Names of the labels.
        targets: The threshold of each.
        groups: Name of each message's group, where the data has groups.

    Raises:
        DataError: There is no message.

    Checked by tests/unit/evaluation/test_labels.py against scikit-learn.
    """
    if not len(labels):
        raise DataError("There is no message to evaluate.", next="give the split more messages")
    predicted = targets.answers(probabilities)
    right = are_right(predicted, labels)
    accuracy, worth = float(right.mean()), float(len(labels))
    if groups:
        worth = worth_of_groups(right, groups)
    per_class = _of_each_label(labels, predicted, probabilities, classes, targets)
    means = {name: average(per_class, name) for name in CLASS_FIGURES}
    decisions = as_decisions(labels, probabilities)
    return {
        "accuracy": accuracy,
        "accuracy_ci95": list(wilson_interval(accuracy * worth, worth)),
        "n": len(labels),
        "jaccard": float(jaccard(labels, predicted).mean()),
        "hamming_loss": float((labels != predicted).mean()),
        "micro_f1": f1_of(*(part.sum() for part in outcomes(labels, predicted))),
        "macro_f1": means["f1"],
        **means,
        "log_loss": _log_loss(labels, probabilities),
        "brier": float(np.square(probabilities - labels).mean()),
        "ece": expected_calibration_error(*decisions),
        "ece_expected": expected_error_when_calibrated(decisions[1]),
        "per_class": per_class,
    }


def _of_each_label(
    labels: Labels,
    predicted: Labels,
    probabilities: Array,
    classes: Sequence[str],
    targets: SeveralLabels,
) -> dict[str, dict[str, Any]]:
    hits, alarms, misses = (part.sum(axis=0) for part in outcomes(labels, predicted))
    thresholds = targets.settings(classes)["thresholds"]
    figures: dict[str, dict[str, Any]] = {}
    for c, name in enumerate(classes):
        n, taken = int(labels[:, c].sum()), float(hits[c] + alarms[c])
        ones = np.ones(len(labels))
        figures[name] = {
            "n": n,
            "f1": f1_of(hits[c], alarms[c], misses[c]) if n else None,
            # Where a label occurs but is never given, its precision is 0 by convention.
            "precision": (float(hits[c]) / taken if taken else 0.0) if n else None,
            "recall": float(hits[c]) / n if n else None,
            **ranking_figures(labels[:, c] == 1, probabilities[:, c], ones),
            "threshold": thresholds[name],
        }
    return figures


def _log_loss(labels: Labels, probabilities: Array) -> float:
    """Return the mean binary cross-entropy in nats; certainty is off by an epsilon."""
    eps = np.finfo(np.float64).eps
    of_truth = np.clip(np.where(labels, probabilities, 1 - probabilities), eps, 1 - eps)
    # The C library's logarithm, not numpy's: as of one class a message.
    return float(np.mean([-math.log(chance) for chance in of_truth.ravel()]))
