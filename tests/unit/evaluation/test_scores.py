"""Metrics as means of messages' scores: their values, their derivatives, the positive class."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sk

from lora_compare.errors import DataError, ParamsError
from lora_compare.evaluation.scores import (
    METRICS,
    Task,
    cost_matrix,
    message_scores,
    positive_class,
    prior_weights,
)

NAMES = ("accuracy", "balanced_accuracy", "macro_f1", "recall", "precision")


def make_task(n: int = 200, n_classes: int = 3, positive: int = 1, weighted: bool = True):
    rng = np.random.default_rng(n)
    labels = rng.choice(n_classes, n, p=np.arange(1, n_classes + 1) / sum(range(n_classes + 1)))
    wrong = rng.random((4, n)) < 0.2
    predicted = np.where(wrong, rng.integers(0, n_classes, (4, n)), labels)
    weights = rng.uniform(0.5, 1.5, n) if weighted else np.ones(n)
    classes = [f"c{i}" for i in range(n_classes)]
    return Task(classes, labels, weights / weights.mean(), positive), predicted


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("metric", NAMES)
def test_the_weighted_mean_of_the_scores_is_the_metric(metric: str, n_classes: int):
    task, predicted = make_task(n_classes=n_classes)
    scores, _ = message_scores(metric, task, predicted)
    for row, answers in zip(scores, predicted, strict=True):
        given = {"y_true": task.labels, "y_pred": answers, "sample_weight": task.weights}
        each = {"average": None, "zero_division": 0}
        expected = {
            "accuracy": lambda g: sk.accuracy_score(**g),
            "balanced_accuracy": lambda g: sk.balanced_accuracy_score(**g),
            "macro_f1": lambda g: sk.f1_score(**g, average="macro"),
            "recall": lambda g, e=each: sk.recall_score(**g, **e)[task.positive],
            "precision": lambda g, e=each: sk.precision_score(**g, **e)[task.positive],
        }[metric](given)
        assert np.average(row, weights=task.weights) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_the_derivative_is_that_of_finite_differences(metric: str):
    task, predicted = make_task()
    matrix = task.confusion(predicted[0])
    value, slope = METRICS[metric](matrix, task.positive)
    for place in np.ndindex(*matrix.shape):
        moved = matrix.copy()
        moved[place] += 1e-4
        there, _ = METRICS[metric](moved, task.positive)
        assert (there - value) / 1e-4 == pytest.approx(slope[place], rel=1e-3, abs=1e-8)


def test_balanced_accuracy_is_accuracy_at_equal_shares():
    task, predicted = make_task(weighted=False)
    shares = dict.fromkeys(task.classes, 1 / 3)
    level = Task(task.classes, task.labels, prior_weights(task.labels, task.classes, shares), 1)
    balanced, _ = message_scores("balanced_accuracy", task, predicted)
    accuracy, _ = message_scores("accuracy", level, predicted)
    assert balanced.mean(axis=1) == pytest.approx(
        np.average(accuracy, axis=1, weights=level.weights)
    )


@pytest.mark.parametrize("metric", NAMES)
def test_the_step_is_what_one_answer_moves(metric: str):
    task, predicted = make_task(4000, n_classes=2, weighted=False)
    scores, step = message_scores(metric, task, predicted[:1])
    moved = []
    for place in range(0, 4000, 7):
        other = predicted[:1].copy()
        other[0, place] = 1 - other[0, place]
        there, _ = message_scores(metric, task, other)
        moved.append(abs(there.mean() - scores.mean()) * len(task.labels))
    assert max(moved) == pytest.approx(step, rel=0.01)


def test_a_class_that_is_never_predicted_has_precision_zero():
    task, _ = make_task(n_classes=2)
    scores, step = message_scores("precision", task, np.zeros((1, 200), dtype=int))
    assert not scores.any()
    assert step == pytest.approx(200)


@pytest.mark.parametrize("metric", NAMES[1:])
def test_a_metric_of_an_absent_class_is_refused(metric: str):
    labels = np.array([0, 0, 2])
    task = Task(["ham", "phish", "spam"], labels, np.ones(3), 1)
    with pytest.raises(DataError) as caught:
        message_scores(metric, task, labels[None])
    assert caught.value.actual == "none of phish"
    assert "comparison.metric" in caught.value.where
    assert message_scores("accuracy", task, labels[None])[0].tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("labels", "named", "expected"),
    [
        ([0, 0, 0, 1], None, 1),
        ([1, 1, 1, 0], None, 0),
        ([0, 1, 0, 1], None, 1),
        ([0, 1, 2, 2, 2], None, 1),
        ([0, 0, 0, 1], "ham", 0),
    ],
)
def test_the_positive_class_is_the_named_or_the_rarer(labels, named, expected: int):
    assert positive_class(["ham", "spam", "x"][: max(labels) + 1], np.array(labels), named) == (
        expected
    )


def test_a_positive_class_that_is_not_there_is_refused():
    with pytest.raises(ParamsError) as caught:
        positive_class(["ham", "spam"], np.array([0, 1]), "Spam")
    assert caught.value.where == "params.yaml: classifier.positive"
    assert (caught.value.expected, caught.value.actual) == ("'ham', 'spam'", "Spam")


def test_weights_give_the_classes_their_shares():
    labels = np.array([0] * 90 + [1] * 10)
    weights = prior_weights(labels, ["ham", "spam"], {"ham": 0.6, "spam": 0.4})
    assert weights.mean() == pytest.approx(1.0)
    assert weights[labels == 1].sum() / weights.sum() == pytest.approx(0.4)
    assert prior_weights(labels, ["ham", "spam"], None).tolist() == [1.0] * 100


COSTS = {"c0": {"c1": 10.0, "c2": 0.0}, "c2": {"c0": 2.5}}


def test_the_expected_cost_is_the_sum_of_what_each_mistake_costs():
    task, predicted = make_task()
    matrix = cost_matrix(task.classes, COSTS)
    assert matrix is not None
    assert matrix.tolist() == [[0, 10, 0], [1, 0, 1], [2.5, 1, 0]]
    assert cost_matrix(task.classes, None) is None
    priced = replace(task, costs=matrix)
    scores, step = message_scores("expected_cost", priced, predicted)
    by_hand = {("c0", "c1"): 10, ("c0", "c2"): 0, ("c2", "c0"): 2.5}
    for row, answers in zip(scores, predicted, strict=True):
        total = 0.0
        for label, taken, weight in zip(task.labels, answers, task.weights, strict=True):
            kind = task.classes[label], task.classes[taken]
            total += weight * (by_hand.get(kind, 1) if label != taken else 0)
        assert np.average(row, weights=task.weights) == pytest.approx(-total / task.weights.sum())
    largest = [task.weights[task.labels == c].max() for c in range(3)]
    assert step == pytest.approx(max(10 * largest[0], largest[1], 2.5 * largest[2]))


def test_where_every_mistake_costs_one_the_cost_is_the_share_of_mistakes():
    task, predicted = make_task()
    priced = replace(task, costs=cost_matrix(task.classes, {}))
    cost, step = message_scores("expected_cost", priced, predicted)
    accuracy, same = message_scores("accuracy", task, predicted)
    assert np.allclose(cost, accuracy - 1)
    assert step == same
