"""What is claimed of a pair, and at which level, from made-up answers of several seeds."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lora_compare.comparison.claims import Judge, claim
from lora_compare.comparison.recommendation import is_not_worse
from lora_compare.evaluation.planning import Plan
from lora_compare.evaluation.scores import Task, prior_weights
from lora_compare.evaluation.statistics import (
    Components,
    Difference,
    difference,
    fold_difference,
)
from lora_compare.params import ComparisonParams

N = 1000
LABELS = np.array([0] * 870 + [1] * 130)


def outcome(name: str, wrong: int, seeds: int = 5, shift: int = 0, kind: str = "lora") -> Any:
    """A method whose every seed gets so many messages wrong, other ones than another's `shift`."""
    predicted = np.tile(LABELS, (seeds, 1))
    for seed in range(seeds):
        places = (np.arange(wrong) * 13 + shift + seed) % N
        predicted[seed, places] = 1 - predicted[seed, places]
    return made(name=name, trainable=kind, predicted=predicted)


def made(**attributes: Any) -> Any:
    """An outcome whose answers are single classes, as labels are."""
    return SimpleNamespace(**attributes, labels=LABELS, in_targets=lambda answers: answers)


def judge(**settings: Any) -> Judge:
    task = Task(["ham", "spam"], LABELS, np.ones(N), 1)
    return Judge(ComparisonParams(**settings), task, np.arange(N))


def found(low: float, high: float, seeds: int = 5) -> Difference:
    """A difference with about that interval."""
    wide = ((high - low) / 2 / 1.96) ** 2
    parts = Components(0.0, 100_000 * wide, 0.0)
    return Difference((low + high) / 2, seeds, 100_000, 0.95, (0.0, wide), parts)


@pytest.mark.parametrize(
    ("low", "high", "expected", "enough"),
    [
        (0.001, 0.05, "better", True),
        (0.03, 0.05, "better", True),
        (-0.05, -0.03, "worse", False),
        (-0.05, -0.001, "worse", False),
        (-0.015, -0.005, "worse", True),
        (-0.01, 0.01, "equivalent", True),
        (-0.01, 0.03, "not worse", True),
        (-0.03, 0.01, "undecided", False),
        (-0.03, 0.03, "undecided", False),
    ],
)
def test_a_claim_is_read_off_the_interval(low: float, high: float, expected: str, enough: bool):
    for seeds in (1, 3, 5):
        assert claim(found(low, high, seeds), 0.02) == expected
    assert claim(found(low, high, 2), 0.02) == "undecided"
    pair = {"low": low, "claim": expected, "margin": 0.02}
    assert is_not_worse(pair) is enough


def test_a_pair_holds_the_estimators_figures():
    a, b = outcome("a", 30), outcome("b", 22, shift=5)
    pair = judge(level=0.04).compare(a, b, tests=2)
    scores = (a.predicted == LABELS) * 1.0 - (b.predicted == LABELS)
    expected = difference(scores, np.ones(N), np.arange(N), 0.98)
    assert (pair["low"], pair["high"]) == (expected.low, expected.high)
    assert pair["p"] == expected.p()
    assert pair["level"] == 0.98
    assert (pair["a"], pair["b"], pair["baseline"]) == ("a", "b", False)
    assert pair["value_a"] == pytest.approx(0.970)
    assert pair["value_b"] == pytest.approx(0.978)
    assert pair["difference"] == pytest.approx(pair["value_a"] - pair["value_b"])
    assert pair["per_seed"] == pytest.approx([-0.008] * 5)
    assert sum(pair["variance"].values()) == pytest.approx(1.0)
    assert (pair["seeds"], pair["n"], pair["groups"]) == (5, N, N)
    assert pair["sentence"]


def test_a_baseline_has_one_set_of_answers_for_every_seed():
    single, method = outcome("tfidf", 25, 1, 3, "baseline"), outcome("full", 25)
    repeated = SimpleNamespace(**vars(single))
    repeated.predicted = np.repeat(single.predicted, 5, axis=0)
    one, other = (judge().compare(tfidf, method, 1) for tfidf in (single, repeated))
    assert one == other
    assert one["baseline"]
    assert one["seeds"] == 5


def test_swapping_the_two_mirrors_the_pair():
    a, b = outcome("a", 30), outcome("b", 60, shift=5)
    one, other = judge().compare(a, b, 1), judge().compare(b, a, 1)
    assert (one["claim"], other["claim"]) == ("better", "worse")
    assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]))
    assert one["p"] == pytest.approx(other["p"])


def test_one_seed_has_no_variance_of_seeds():
    pair = judge().compare(outcome("a", 30, 1), outcome("b", 30, 1, 5), 1)
    assert pair["seed_sd"] is None
    assert pair["variance"]["seed"] == pair["variance"]["rest"] == 0.0
    assert pair["seeds"] == 1


def test_two_seeds_allow_no_claim_and_ask_for_a_third():
    pair = judge().compare(outcome("a", 500, 2), outcome("b", 5, 2), 1)
    assert pair["claim"] == "undecided"
    assert pair["messages_needed"] is None
    assert pair["seeds_needed"] is None or pair["seeds_needed"] >= 3
    close = judge(margin=0.5).compare(outcome("a", 10, 2), outcome("b", 10, 2), 1)
    assert (close["claim"], close["seeds_needed"]) == ("undecided", 3)


def scattered(name: str, seed: int, messages: float = 0.03, cells: float = 0.01) -> Any:
    """A method that gets some messages wrong at every seed, and others at some."""
    rng = np.random.default_rng(seed)
    wrong = (rng.random(N) < messages) | (rng.random((5, N)) < cells)
    predicted = np.where(wrong, 1 - LABELS, LABELS)
    return made(name=name, trainable="lora", predicted=predicted)


def test_undecided_says_how_many_messages_or_seeds_would_be_enough():
    a, b = scattered("a", 1), scattered("b", 2)
    pair = judge(margin=0.012).compare(a, b, 1)
    assert pair["claim"] == "undecided"
    assert pair["messages_needed"] > N
    parts = difference(
        (a.predicted == LABELS) * 1.0 - (b.predicted == LABELS), np.ones(N), np.arange(N)
    ).components
    assert Plan(parts, 5, pair["messages_needed"]).seen <= 0.012
    assert Plan(parts, 5, pair["messages_needed"] - 1).seen > 0.012
    decided = judge(margin=0.05).compare(a, b, 1)
    assert decided["claim"] in ("equivalent", "better", "worse")
    assert (decided["messages_needed"], decided["seeds_needed"]) == (None, None)


def test_where_equal_methods_would_be_decided_the_measured_difference_is_what_must_be():
    undecided = [
        pair
        for seed in range(40)
        for pair in [judge(margin=0.02).compare(scattered("a", seed, 0.045), scattered("b", 99), 1)]
        if pair["claim"] == "undecided"
    ]
    assert undecided
    for pair in undecided:
        assert pair["difference"] < 0
        assert pair["messages_needed"] is None or pair["messages_needed"] > N


def test_equal_answers_are_equivalent_only_within_what_was_seen():
    a, b = outcome("a", 30), outcome("b", 30)
    pair = judge().compare(a, b, 1)
    assert (pair["difference"], pair["claim"]) == (0.0, "equivalent")
    assert pair["low"] < 0 < pair["high"]
    few = Judge(
        ComparisonParams(), Task(["ham", "spam"], LABELS[860:890], np.ones(30), 1), np.arange(30)
    )
    for each in (a, b):
        each.predicted = each.predicted[:, 860:890]
    assert few.compare(a, b, 1)["claim"] == "undecided"


def test_the_metric_and_the_prior_change_what_counts():
    careless = outcome("careless", 0)
    careless.predicted = np.where(np.arange(N) >= N - 40, 0, LABELS) + np.zeros((5, 1), int)
    good = outcome("good", 40)
    level = prior_weights(LABELS, ["ham", "spam"], {"ham": 0.5, "spam": 0.5})
    same = Judge(ComparisonParams(), Task(["ham", "spam"], LABELS, level, 1), np.arange(N))
    by_accuracy = judge().compare(careless, good, 1)
    by_class = judge(metric="balanced_accuracy").compare(careless, good, 1)
    assert by_accuracy["difference"] == pytest.approx(0.0)
    assert by_class["difference"] == pytest.approx(same.compare(careless, good, 1)["difference"])
    assert by_class["claim"] == "worse"
    recall = judge(metric="recall").compare(careless, good, 1)
    assert recall["value_a"] == pytest.approx(90 / 130)
    assert judge(metric="precision").compare(careless, good, 1)["value_a"] == 1.0


def test_one_group_of_messages_allows_no_claim():
    alone = Judge(
        ComparisonParams(), Task(["ham", "spam"], LABELS, np.ones(N), 1), np.zeros(N, int)
    )
    pair = alone.compare(outcome("a", 0), outcome("b", 500), 1)
    assert (pair["claim"], pair["low"], pair["high"], pair["p"]) == ("undecided", -1.0, 1.0, 1.0)


def flat(outcome: Any) -> Any:
    """The same method with the answers of its first seed alone."""
    outcome.predicted = outcome.predicted[:1]
    return outcome


def test_in_folds_a_pair_is_of_all_messages_and_each_fold_has_its_difference():
    a, b = (flat(scattered(name, seed)) for seed, name in enumerate("ab"))
    in_folds = judge(margin=0.005)
    in_folds = replace(in_folds, folds=np.arange(N) % 4 + 1)
    pair = in_folds.compare(a, b, tests=1)
    scores = (a.predicted[0] == LABELS) * 1.0 - (b.predicted[0] == LABELS)
    expected = fold_difference(scores, np.ones(N), np.arange(N), np.arange(N) % 4)
    assert (pair["low"], pair["high"]) == (expected.low, expected.high)
    assert pair["per_seed"] == pytest.approx([scores[f::4].mean() for f in range(4)])
    assert (pair["seeds"], pair["folds"], pair["n"]) == (4, 4, N)
    assert pair["claim"] == "undecided"
    assert pair["messages_needed"] > N
    assert pair["seeds_needed"] is None
    assert "over 1,000 messages, each tested once in 4 folds" in pair["sentence"]
    assert "folds" not in judge().compare(a, b, tests=1)


def test_a_pair_can_be_compared_by_what_its_mistakes_cost():
    a, b = outcome("a", 30), outcome("b", 22, shift=5)
    costs = np.array([[0.0, 10.0], [1.0, 0.0]])
    task = Task(["ham", "spam"], LABELS, np.ones(N), 1, costs)
    settings = ComparisonParams(costs={"ham": {"spam": 10}}, metric="expected_cost", margin=0.5)
    pair = Judge(settings, task, np.arange(N)).compare(a, b, tests=1)
    paid = [costs[LABELS, one.predicted] for one in (a, b)]
    expected = difference(paid[1] - paid[0], np.ones(N), np.arange(N), 0.95, 10.0)
    assert (pair["low"], pair["high"]) == (expected.low, expected.high)
    assert pair["value_a"] == pytest.approx(paid[0].mean())
    assert pair["difference"] == pytest.approx(paid[1].mean() - paid[0].mean())
    assert pair["claim"] == "worse"  # by less than the margin
    assert "worse than b, but by less than a cost of 50 in 100 messages" in pair["sentence"]
