"""How far confidence is from being right: scikit-learn's bins, and what chance alone gives."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from lora_compare.evaluation.calibration import (
    MANY,
    calibration_bins,
    expected_calibration_error,
    expected_error_when_calibrated,
)


def make_scores(n: int, n_classes: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[labels]
    return labels, softmax(logits, axis=1)


def test_calibration_bins_are_scikit_learns_and_numpys():
    labels, chances = make_scores(500, 3, seed=2)
    confidence, correct = chances.max(axis=1), chances.argmax(axis=1) == labels
    bins = calibration_bins(labels, chances)
    accuracies, confidences = calibration_curve(correct, confidence, n_bins=15)
    filled = [b for b in bins if b["n"]]
    assert [b["accuracy"] for b in filled] == pytest.approx(accuracies)
    assert [b["confidence"] for b in filled] == pytest.approx(confidences)
    assert [b["n"] for b in bins] == np.histogram(confidence, 15, (0, 1))[0].tolist()


def test_calibration_error_is_the_naive_sum_over_bins():
    labels, chances = make_scores(500, 4, seed=3)
    total = 0.0
    for b in range(15):
        inside = [i for i in range(500) if b / 15 < chances[i].max() <= (b + 1) / 15]
        if inside:
            accuracy = np.mean([chances[i].argmax() == labels[i] for i in inside])
            confidence = np.mean([chances[i].max() for i in inside])
            total += len(inside) / 500 * abs(accuracy - confidence)
    assert expected_calibration_error(labels, chances) == pytest.approx(total, rel=1e-12)


def test_a_confidence_of_one_is_in_the_last_bin():
    bins = calibration_bins(np.array([0, 1]), np.array([[1.0, 0.0], [0.5, 0.5]]), bins=10)
    assert [b["n"] for b in bins] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert bins[0]["accuracy"] is None


def simulated_error(chances: np.ndarray, repeats: int) -> float:
    """The mean error of a calibrated classifier: labels drawn by its own probabilities."""
    rng = np.random.default_rng(1)
    drawn = (rng.random((repeats, len(chances), 1)) > chances.cumsum(axis=1)).sum(axis=2)
    return float(np.mean([expected_calibration_error(labels, chances) for labels in drawn]))


@pytest.mark.parametrize(("n", "n_classes", "sharp"), [(60, 2, 1), (255, 2, 4), (150, 5, 1)])
def test_the_expected_error_is_that_of_a_simulated_calibrated_classifier(
    n: int, n_classes: int, sharp: int
):
    _, chances = make_scores(n, n_classes, seed=n)
    chances = chances**sharp / (chances**sharp).sum(axis=1, keepdims=True)
    expected = simulated_error(chances, 1500)
    assert expected_error_when_calibrated(chances) == pytest.approx(expected, rel=0.03)


def test_two_messages_by_hand():
    # One bin of two trials at 0.9: 2 right 0.81, 1 right 0.18, none 0.01; the mean is 1.8.
    chances = np.array([[0.9, 0.1], [0.1, 0.9]])
    expected = (0.81 * 0.2 + 0.18 * 0.8 + 0.01 * 1.8) / 2
    assert expected_error_when_calibrated(chances) == pytest.approx(expected)
    certain = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert expected_error_when_calibrated(certain) == 0.0


def test_the_normal_distribution_takes_over_without_a_step(monkeypatch: pytest.MonkeyPatch):
    chances = np.column_stack([np.full(2500, 0.79), np.full(2500, 0.21)])
    approximate = expected_error_when_calibrated(chances)
    assert MANY < 2500 * 0.79 * 0.21
    monkeypatch.setattr("lora_compare.evaluation.calibration.MANY", 1e9)
    assert approximate == pytest.approx(expected_error_when_calibrated(chances), rel=1 / 3000)
