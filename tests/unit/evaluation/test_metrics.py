"""Figures of one split: the same as scikit-learn's, and null where they mean nothing."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

from lora_compare.errors import DataError
from lora_compare.evaluation.metrics import (
    CLASS_FIGURES,
    evaluate_predictions,
    precision_recall_curve,
    predicted_classes,
)
from lora_compare.evaluation.scores import prior_weights
from lora_compare.project.files import canonical_json

BINARY = ["ham", "spam"]


def approximately(figures: dict[str, float | None]) -> object:
    """The same numbers, but for the last bit of a sum."""
    return pytest.approx(figures, rel=1e-15, abs=1e-15)


def make_scores(n: int, n_classes: int, seed: int = 0, dtype: type = np.float64):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[labels]
    return labels, softmax(logits.astype(dtype), axis=1)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n", [8, 40, 401])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_figures_are_scikit_learns(n: int, n_classes: int, tied: bool):
    labels, chances = make_scores(n, n_classes, seed=n)
    labels[:n_classes] = range(n_classes)
    if tied:
        # Eighths, which add up to exactly 1.
        chances = np.random.default_rng(n).multinomial(8, chances) / 8
    chances /= chances.sum(axis=1, keepdims=True)
    predicted, every = chances.argmax(axis=1), list(range(n_classes))
    names = [f"c{index}" for index in every]
    figures = evaluate_predictions(labels, chances, names)
    each = figures.get("per_class") or {"c1": figures}
    for name, found in each.items():
        index = names.index(name)
        mine, given, chance = labels == index, predicted == index, chances[:, index]
        expected = {
            "f1": sk.f1_score(mine, given),
            "precision": sk.precision_score(mine, given, zero_division=0),
            "recall": sk.recall_score(mine, given),
            "auroc": sk.roc_auc_score(mine, chance),
            "average_precision": sk.average_precision_score(mine, chance),
        }
        assert {key: found[key] for key in expected} == approximately(expected)
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "log_loss": sk.log_loss(labels, y_proba=chances, labels=every),
        "brier": sk.brier_score_loss(labels, chances, labels=every, scale_by_half=True),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "macro_f1": sk.f1_score(labels, predicted, average="macro"),
    }
    assert {key: figures[key] for key in expected} == approximately(expected)
    assert (
        figures["confusion_matrix"] == sk.confusion_matrix(labels, predicted, labels=every).tolist()
    )
    assert figures["n"] == n
    assert ("per_class" in figures) == (n_classes > 2)


def test_figures_of_many_classes_are_the_means_of_each_class():
    labels, chances = make_scores(600, 5, seed=1)
    figures = evaluate_predictions(labels, chances, list("vwxyz"))
    per_class = figures["per_class"].values()
    for name in CLASS_FIGURES:
        assert figures[name] == pytest.approx(sum(one[name] for one in per_class) / 5)
    assert [one["n"] for one in per_class] == np.bincount(labels).tolist()


@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_rounded_scores_keep_their_ties(n_classes: int):
    labels, chances = make_scores(401, n_classes, seed=7)
    rounded = chances.round(2)
    rounded[:, 0] += 1 - rounded.sum(axis=1)
    rounded = np.clip(rounded, 0, 1).round(2).astype(np.float32)
    # Their sums are 1 but for rounding, and by it dividing would tell equal scores apart.
    figures = evaluate_predictions(labels, rounded, [f"c{i}" for i in range(n_classes)])
    each = list(figures.get("per_class", {"c1": figures}).values())
    places = range(n_classes) if n_classes > 2 else [1]
    for index, found in zip(places, each, strict=True):
        mine, chance = labels == index, rounded[:, index]
        assert found["auroc"] == pytest.approx(sk.roc_auc_score(mine, chance), rel=1e-12)
        expected = sk.average_precision_score(mine, chance)
        assert found["average_precision"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_weighted_figures_are_scikit_learns(n_classes: int):
    labels, chances = make_scores(301, n_classes, seed=5)
    names, every = [f"c{i}" for i in range(n_classes)], list(range(n_classes))
    prior = dict(
        zip(names, np.arange(1, n_classes + 1) / sum(range(1, n_classes + 1)), strict=True)
    )
    weights = prior_weights(labels, names, prior)
    figures = evaluate_predictions(labels, chances, names, weights=weights)
    predicted, weighed = chances.argmax(axis=1), {"sample_weight": weights}
    average = "binary" if n_classes == 2 else "macro"
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted, **weighed),
        "precision": sk.precision_score(labels, predicted, average=average, **weighed),
        "recall": sk.recall_score(labels, predicted, average=average, **weighed),
        "f1": sk.f1_score(labels, predicted, average=average, **weighed),
        "macro_f1": sk.f1_score(labels, predicted, average="macro", **weighed),
        "log_loss": sk.log_loss(labels, y_proba=chances, labels=every, **weighed),
        "brier": sk.brier_score_loss(labels, chances, labels=every, scale_by_half=True, **weighed),
        "auroc": np.mean(
            [
                sk.roc_auc_score(labels == i, chances[:, i], **weighed)
                for i in (every if n_classes > 2 else [1])
            ]
        ),
        "average_precision": np.mean(
            [
                sk.average_precision_score(labels == i, chances[:, i], **weighed)
                for i in (every if n_classes > 2 else [1])
            ]
        ),
    }
    assert {key: figures[key] for key in expected} == pytest.approx(expected, rel=1e-12)
    assert figures["n"] == 301
    assert np.sum(figures["confusion_matrix"]) == 301
    low, high = figures["accuracy_ci95"]
    unweighted = evaluate_predictions(labels, chances, names)["accuracy_ci95"]
    assert high - low > unweighted[1] - unweighted[0]


def test_the_positive_class_can_be_either():
    labels, chances = make_scores(80, 2, seed=6)
    ham = evaluate_predictions(labels, chances, BINARY, positive=0)
    predicted = chances.argmax(axis=1)
    assert ham["recall"] == sk.recall_score(labels, predicted, pos_label=0)
    assert ham["precision"] == sk.precision_score(labels, predicted, pos_label=0)
    spam = evaluate_predictions(labels, chances, BINARY, positive=1)
    assert ham["false_alarms_per_1000"] == spam["misses_per_1000"]
    assert ham["macro_f1"] == spam["macro_f1"]


def test_false_alarms_and_misses_are_counted_at_the_prior():
    # Of 8 ham 2 are taken for spam, of 2 spam 1 is missed.
    labels = np.array([0] * 8 + [1] * 2)
    answers = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 1])
    chances = np.where(np.eye(2)[answers] > 0, 0.9, 0.1)
    figures = evaluate_predictions(labels, chances, BINARY)
    assert (figures["false_alarms_per_1000"], figures["misses_per_1000"]) == (200.0, 100.0)
    halves = prior_weights(labels, BINARY, {"ham": 0.5, "spam": 0.5})
    figures = evaluate_predictions(labels, chances, BINARY, weights=halves)
    assert figures["false_alarms_per_1000"] == pytest.approx(125.0)
    assert figures["misses_per_1000"] == pytest.approx(250.0)
    assert figures["precision"] == pytest.approx(0.25 / 0.375)
    many = evaluate_predictions(np.array([0, 1, 2]), np.eye(3), list("abc"))
    assert "misses_per_1000" not in many


def test_four_messages_by_hand():
    labels = np.array([0, 0, 1, 1])
    chances = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    figures = evaluate_predictions(labels, chances, BINARY)
    assert figures["accuracy"] == 0.75
    assert figures["confusion_matrix"] == [[1, 1], [0, 2]]
    assert figures["precision"] == pytest.approx(2 / 3)
    assert figures["recall"] == 1.0
    assert figures["f1"] == pytest.approx(0.8)
    assert figures["auroc"] == 1.0
    assert figures["brier"] == pytest.approx((0.01 + 0.36 + 0.04 + 0.09) / 4)
    # Every confidence has a bin of its own: the gaps are 0.1, 0.6, 0.2 and 0.3.
    assert figures["ece"] == pytest.approx(1.2 / 4)


def test_the_interval_is_the_published_one():
    labels, chances = np.zeros(300, dtype=int), np.tile([0.9, 0.1], (300, 1))
    chances[290:] = [0.1, 0.9]
    low, high = evaluate_predictions(labels, chances, BINARY)["accuracy_ci95"]
    assert (round(low, 3), round(high, 3)) == (0.940, 0.982)


def test_the_lowest_class_wins_a_tie():
    assert predicted_classes(np.array([[0.5, 0.5], [0.2, 0.8]])).tolist() == [0, 1]
    thirds = np.full((3, 3), 1 / 3)
    figures = evaluate_predictions(np.array([0, 1, 2]), thirds, list("abc"))
    assert figures["confusion_matrix"] == [[1, 0, 0]] * 3


@pytest.mark.parametrize("label", [0, 1])
def test_figures_of_an_absent_class_are_null(label: int):
    chances = np.array([[0.8, 0.2], [0.3, 0.7]])
    figures = evaluate_predictions(np.array([label, label]), chances, BINARY)
    assert figures["auroc"] is None
    assert (figures["f1"] is None) == (figures["average_precision"] is None) == (label == 0)
    assert figures["accuracy"] == 0.5
    assert '"auroc": null' in canonical_json(figures)


def test_a_macro_average_is_null_where_a_class_is_absent_and_the_others_keep_their_own():
    labels, chances = make_scores(50, 3, seed=4)
    labels[labels == 2] = 0
    figures = evaluate_predictions(labels, chances, list("abc"))
    assert figures["f1"] is None
    assert figures["auroc"] is None
    assert figures["per_class"]["c"] == {
        "n": 0,
        "f1": None,
        "precision": None,
        "recall": None,
        "auroc": None,
        "average_precision": None,
    }
    expected = sk.roc_auc_score(labels == 0, chances[:, 0])
    assert figures["per_class"]["a"]["auroc"] == pytest.approx(expected)


def test_a_class_that_is_never_predicted_has_precision_zero():
    figures = evaluate_predictions(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), BINARY)
    assert (figures["precision"], figures["recall"], figures["f1"]) == (0.0, 0.0, 0.0)


def test_single_precision_probabilities_are_accepted():
    labels, chances = make_scores(100, 2, dtype=np.float32)
    assert evaluate_predictions(labels, chances, BINARY)["log_loss"] > 0


def test_certainty_in_the_wrong_class_is_a_finite_loss():
    figures = evaluate_predictions(np.array([1, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]), BINARY)
    assert 10 < figures["log_loss"] < 20


def test_no_message_is_an_error():
    with pytest.raises(DataError, match="no message"):
        evaluate_predictions(np.array([], dtype=int), np.zeros((0, 2)), BINARY)


def test_weights_give_each_class_the_share_of_the_prior():
    labels = np.repeat([0, 1], [90, 10])
    assert prior_weights(labels, BINARY, None).tolist() == [1.0] * 100
    weights = prior_weights(labels, BINARY, {"spam": 0.5, "ham": 0.5})
    assert weights.mean() == pytest.approx(1)
    assert weights[labels == 1].sum() == pytest.approx(50)
    same = prior_weights(labels, BINARY, {"ham": 0.9, "spam": 0.1})
    assert same == pytest.approx(np.ones(100))
    thirds = prior_weights(np.array([0, 1, 2, 2]), "abc", dict.fromkeys("abc", 0.333))
    assert thirds.tolist() == pytest.approx([4 / 3, 4 / 3, 2 / 3, 2 / 3])


@pytest.mark.parametrize("weighted", [False, True])
def test_precision_by_recall_is_scikit_learns(weighted: bool):
    labels, chances = make_scores(300, 2)
    scores = np.round(chances[:, 1], 2)  # with ties
    weights = np.where(labels == 1, 0.3, 1.7) if weighted else np.ones(300)
    recall, precision = precision_recall_curve(labels == 1, scores, weights)
    theirs, found, _ = sk.precision_recall_curve(labels, scores, sample_weight=weights)
    rising = dict(zip(np.round(found[::-1], 12), theirs[::-1], strict=True))
    # Of one recall theirs ends with the lowest precision, at the last score that finds no more.
    assert set(np.round(recall, 12)) == set(rising) - {0.0}
    highest = [theirs[np.isclose(found, r)].max() for r in recall]
    assert np.allclose(precision, highest)


def test_answers_that_are_not_the_likeliest_change_what_counts_answers_alone():
    labels, chances = make_scores(200, 2)
    late = np.asarray(chances[:, 1] > 0.8, np.int64)
    costs = np.array([[0.0, 10.0], [1.0, 0.0]])
    plain = evaluate_predictions(labels, chances, BINARY)
    figures = evaluate_predictions(labels, chances, BINARY, predicted=late, costs=costs)
    assert figures["precision"] == pytest.approx(sk.precision_score(labels, late))
    assert figures["confusion_matrix"] == sk.confusion_matrix(labels, late).tolist()
    matrix = sk.confusion_matrix(labels, late)
    assert figures["expected_cost"] == pytest.approx((10 * matrix[0, 1] + matrix[1, 0]) / 200)
    same = ("log_loss", "brier", "ece", "auroc", "average_precision")
    assert {name: figures[name] for name in same} == {name: plain[name] for name in same}
    assert "expected_cost" not in plain
