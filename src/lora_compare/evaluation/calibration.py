"""How far a classifier's confidence is from how often it is right."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 15
"""Equal-width bins of confidence, as in Guo et al. 2017, arXiv:1706.04599, section 3."""

MANY = 400.0
"""Variance of a count from which its mean deviation is taken from the normal distribution: off by
less than 1 in 3,000."""

Labels = npt.NDArray[np.integer[Any]]
Probabilities = npt.NDArray[np.floating[Any]]


def as_decisions(labels: Labels, probabilities: Probabilities) -> tuple[Labels, Probabilities]:
    """Return labels and probabilities of one class each, for all functions here.

    Several labels of a message are as many decisions between two classes: it has a label, or not.

    Args:
        labels: Shape (n,); or 0 and 1, shape (n, k).
        probabilities: Shape (n, n_classes); or that of each label, shape (n, k).
    """
    if labels.ndim == 1:
        return labels, probabilities
    chances = probabilities.ravel()
    return labels.ravel(), np.stack([1 - chances, chances], axis=1)


def calibration_bins(
    labels: Labels, probabilities: Probabilities, bins: int = BINS
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
    correct = probabilities.argmax(axis=1) == labels
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
    labels: Labels, probabilities: Probabilities, bins: int = BINS
) -> float:
    """Return the mean gap, in 0..1, between confidence and accuracy over the bins.

    Bins count by their number of messages. Arguments as in `calibration_bins`.

    Source: Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    filled = [b for b in calibration_bins(labels, probabilities, bins) if b["n"]]
    gaps = sum(b["n"] * abs(b["accuracy"] - b["confidence"]) for b in filled)
    return float(gaps / len(labels))


def expected_error_when_calibrated(probabilities: Probabilities, bins: int = BINS) -> float:
    """Return the calibration error, in 0..1, that chance alone is expected to give.

    It is the mean of `expected_calibration_error` over all right and wrong answers that a
    perfectly calibrated classifier would give with just these confidences: in each bin the mean
    absolute deviation of the number of right answers, a Poisson binomial, from its mean. Exact
    where that varies little, from the normal distribution where it varies much. An error near it
    says nothing against a classifier.

    Args:
        probabilities: Of each class, shape (n, n_classes).
        bins: Number of equal-width bins.

    Source: Broecker and Smith 2007, Weather and Forecasting 22:651 (consistency resampling), of
    which this is the mean. Checked by tests/unit/evaluation/test_calibration.py by simulation.
    """
    confidence = np.minimum(probabilities.max(axis=1).astype(np.float64), 1.0)
    bin_of = np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], confidence)
    gaps = (_mean_deviation(confidence[bin_of == b]) for b in np.unique(bin_of))
    return float(sum(gaps) / len(confidence))


def _mean_deviation(chances: npt.NDArray[np.float64]) -> float:
    """Return how far a number of successes is from its mean, in the mean.

    Args:
        chances: Of each trial's success, shape (n,).
    """
    # Right and wrong answers deviate alike: the fewer of them need the shorter distribution.
    rare = 1 - chances if chances.mean() > 0.5 else chances
    mean, variance = float(rare.sum()), float((rare * (1 - rare)).sum())
    if variance > MANY:
        return math.sqrt(2 * variance / math.pi)
    # Beyond twelve standard deviations and thirty lies less than a double can hold.
    size = min(len(rare), math.ceil(mean + 12 * math.sqrt(variance) + 30)) + 1
    of_count = np.zeros(size)
    of_count[0] = 1.0
    for chance in rare[rare > 0]:
        grown = of_count[:-1] * chance
        of_count *= 1 - chance
        of_count[1:] += grown
    return float(of_count @ np.abs(np.arange(size) - mean))
