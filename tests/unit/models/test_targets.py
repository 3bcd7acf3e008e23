"""What logits stand for: losses are torch's, thresholds scikit-learn's best."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, precision_recall_curve
from torch import nn

from lora_compare.models.answers.targets import (
    ONE_CLASS,
    SeveralLabels,
    are_right,
    best_threshold,
    sum_by_class,
    targets_of,
    targets_of_config,
)
from lora_compare.models.classifier import loss_and_accuracy

CLASSES = ["late", "broken", "refund"]


def draw(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels of n texts, the labels more likely where their logits are high."""
    dice = np.random.default_rng(seed)
    logits = dice.normal(size=(n, len(CLASSES)))
    return logits, (logits + dice.normal(size=logits.shape) > 0.5).astype(np.int64)


def test_the_loss_of_several_labels_is_that_of_torch() -> None:
    logits, labels = map(torch.from_numpy, draw())
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    targets = targets_of(labels)
    summed, mean = targets.loss(ours, labels), targets.loss(ours, labels, reduction="mean")
    expected = nn.BCEWithLogitsLoss()(theirs, labels.double())
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(summed / len(labels), expected)
    (summed / len(labels)).backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_loss_of_one_class_is_that_of_torch() -> None:
    logits, labels = torch.from_numpy(draw()[0]), torch.arange(40) % 3
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    assert targets_of(labels) is ONE_CLASS
    for reduction in ("sum", "mean"):
        expected = nn.CrossEntropyLoss(weights, reduction=reduction)(logits, labels)
        assert ONE_CLASS.loss(logits, labels, weights, reduction) == expected


def test_loss_and_accuracy_of_several_labels_are_of_whole_answers() -> None:
    logits, labels = draw()
    loss, accuracy = loss_and_accuracy(logits, labels)
    expected = nn.BCEWithLogitsLoss()(torch.from_numpy(logits), torch.from_numpy(labels).double())
    assert loss == pytest.approx(float(expected), rel=1e-12)
    assert accuracy == accuracy_score(labels, logits >= 0)


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_has_the_highest_f1_of_scikit_learns_curve(seed: int) -> None:
    dice = np.random.default_rng(seed)
    scores = dice.random(30).round(1 if seed % 2 else 6)  # with ties, and without
    truth = (dice.random(30) < scores).astype(np.int64)
    precision, recall, _ = precision_recall_curve(truth, scores)
    best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    threshold = best_threshold(scores, truth)
    assert f1_score(truth, scores >= threshold) == pytest.approx(best, rel=1e-12)
    assert 0 < threshold < 1
    assert threshold not in scores, "the last bit of a score must not decide"


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken() -> None:
    assert best_threshold(np.array([0.2, 0.9]), np.array([0, 1])) == 0.5
    assert best_threshold(np.array([0.1, 0.3]), np.array([0, 1])) == pytest.approx(0.2)
    assert best_threshold(np.array([0.1, 0.3]), np.array([0, 0])) == 0.5


def test_answers_reach_their_thresholds_and_come_back_from_a_config() -> None:
    targets = SeveralLabels((0.5, 0.2, 0.9))
    chances = np.array([[0.5, 0.1, 0.95], [0.4, 0.1, 0.5]])
    answers = targets.answers(chances)
    assert answers.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert targets.texts(answers, CLASSES) == ['["late", "refund"]', "[]"]
    expected = [0.5 * 0.9 * 0.95, 0.6 * 0.9 * 0.5]
    assert targets.certainty(chances, answers) == pytest.approx(expected)
    assert targets_of_config({"classes": CLASSES, **targets.settings(CLASSES)}) == targets
    assert targets_of_config({"classes": CLASSES, **ONE_CLASS.settings(CLASSES)}) is ONE_CLASS
    assert SeveralLabels().answers(chances).tolist() == [[1, 0, 1], [0, 0, 1]]


def test_sums_by_class_and_right_answers_are_of_either_kind_of_labels() -> None:
    classes, values = np.array([0, 2, 2]), [1.0, 2.0, 4.0]
    several = np.eye(3, dtype=np.int64)[classes]
    assert sum_by_class(classes, values, 3).tolist() == [1, 0, 6]
    assert sum_by_class(several, values, 3).tolist() == [1, 0, 6]
    answers = np.stack([several, 1 - several])
    assert are_right(answers, several).tolist() == [[True] * 3, [False] * 3]
