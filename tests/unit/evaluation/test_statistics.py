"""The verdict's estimator: by hand, against statsmodels' crossed mixed model, and unchanged by
what must not matter."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm, t, ttest_1samp
from statsmodels.regression.linear_model import OLS
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.proportion import confint_proportions_2indep

from lora_compare.evaluation.statistics import (
    CONFIDENCE,
    NORMAL_QUANTILE,
    Components,
    difference,
    difference_interval,
    reach,
    wilson_interval,
    worth_of_groups,
)


def make_scores(seeds: int = 5, groups: int = 60, seed: int = 4) -> np.ndarray:
    """Scores with an effect of every seed and every group, shape (seeds, groups)."""
    rng = np.random.default_rng(seed)
    by_seed, by_group = rng.normal(0, 0.2, (seeds, 1)), rng.normal(0, 0.3, (1, groups))
    return 0.1 + by_seed + by_group + rng.normal(0, 0.4, (seeds, groups))


@pytest.mark.parametrize(("successes", "n"), [(290, 300), (0, 10), (10, 10), (1, 2)])
def test_wilson_is_scipys(successes: int, n: int):
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-15)
    assert norm.ppf((1 + CONFIDENCE) / 2) == NORMAL_QUANTILE


@pytest.mark.parametrize("seed", [4, 5])
def test_the_estimator_is_the_crossed_mixed_models(seed: int):
    scores = make_scores(seed=seed)
    seeds, groups = scores.shape
    frame = pd.DataFrame(
        {
            "score": scores.ravel(),
            "seed": np.repeat(np.arange(seeds), groups),
            "message": np.tile(np.arange(groups), seeds),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MixedLM.from_formula(
            "score ~ 1",
            groups=np.ones(len(frame)),
            re_formula="0",
            vc_formula={"seed": "0 + C(seed)", "message": "0 + C(message)"},
            data=frame,
        )
        fit = model.fit(reml=True, method="bfgs", gtol=1e-9)
    found = difference(scores, np.ones(groups), np.arange(groups))
    expected = dict(zip(model.exog_vc.names, fit.vcomp, strict=True))
    assert found.theta == pytest.approx(fit.params["Intercept"], rel=1e-4)
    assert found.components.seed == pytest.approx(expected["seed"], rel=1e-4)
    assert found.components.message == pytest.approx(expected["message"], rel=1e-4)
    assert found.components.rest == pytest.approx(fit.scale, rel=1e-4)
    error = math.sqrt(found.components.of_mean(seeds, groups).total)
    assert error == pytest.approx(fit.bse["Intercept"], rel=1e-4)


def test_without_pseudo_groups_the_variances_are_the_components():
    scores = make_scores()
    with_them = difference(scores, np.ones(60), np.arange(60))
    found = difference(scores, np.ones(60), np.arange(60), step=0)
    parts = found.components.of_mean(5, 60)
    assert found.variance == pytest.approx((parts.seed + parts.rest, parts.message))
    assert found.components == with_them.components
    assert found.theta == with_them.theta


def test_a_small_table_by_hand():
    # Two messages in one group, weighing 2; one in another, weighing 1; W = 3, G = 2, S = 3.
    scores = np.array([[1, 0, 0], [1, 1, 0], [1, 0, -1]])
    found = difference(scores, np.array([1.0, 1.0, 1.0]), np.array([7, 7, 3]), step=0)
    theta = 3 / 9
    assert found.theta == pytest.approx(theta)
    # Sums: group 7 has 1, 2, 1 and group 3 has 0, 0, -1; less 2 theta and theta; times 2/3.
    u = np.array([[1 - 2 * theta, 2 - 2 * theta, 1 - 2 * theta], [-theta, -theta, -1 - theta]])
    u *= 2 / 3
    by_group, by_seed = u.mean(axis=1), u.mean(axis=0)
    squares = (
        2 * (by_seed**2).sum() / 2,
        3 * (by_group**2).sum() / 1,
        ((u - by_group[:, None] - by_seed) ** 2).sum() / 2,
    )
    expected = squares[0] / 6, (squares[1] - squares[2]) / 6
    assert found.variance == pytest.approx(expected)
    wide = math.sqrt(t.ppf(0.975, 2) ** 2 * expected[0] + t.ppf(0.975, 1) ** 2 * expected[1])
    assert (found.low, found.high) == pytest.approx((theta - wide, theta + wide))


def test_two_pseudo_groups_add_the_square_of_one_message():
    scores = np.zeros((5, 100))
    found = difference(scores, np.ones(100), np.arange(100))
    assert found.variance == pytest.approx((0.0, 1 / 101 / 100))
    assert found.components == Components(0.0, 0.0, 0.0)
    assert found.reach == pytest.approx(t.ppf(0.975, 99) * math.sqrt(1 / 101 / 100))
    tenfold = difference(scores, np.ones(100), np.arange(100), step=10.0)
    assert tenfold.reach == pytest.approx(10 * found.reach)


@pytest.mark.parametrize("sizes", [[1] * 40, [1, 1, 2, 3] * 10])
def test_one_seed_is_a_paired_t_over_groups(sizes: list[int]):
    groups = np.repeat(np.arange(40), sizes)
    scores = np.random.default_rng(2).integers(-1, 2, len(groups)).astype(float)
    found = difference(scores, np.ones(len(groups)), groups, step=0)
    assert found.theta == pytest.approx(scores.mean())
    # Of groups of unlike size: the t of the ratio's deviations (Cochran 1977, section 6.4).
    totals, weights = np.bincount(groups, scores), np.bincount(groups).astype(float)
    deviations = (totals - weights * scores.mean()) / weights.mean()
    expected = ttest_1samp(scores.mean() + deviations, 0)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p() == pytest.approx(expected.pvalue)


def test_what_must_not_matter_does_not():
    rng = np.random.default_rng(8)
    scores, groups = make_scores(groups=30), np.arange(30) // 2
    weights = rng.uniform(0.5, 2, 30)
    found = difference(scores, weights, groups)
    swapped = difference(-scores, weights, groups)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))
    assert swapped.p() == pytest.approx(found.p())
    messages, seeds = rng.permutation(30), rng.permutation(5)
    mixed = difference(scores[seeds][:, messages], weights[messages], groups[messages])
    renamed = difference(scores, 3 * weights, 100 - groups)
    for same in (mixed, renamed):
        assert (same.low, same.high) == pytest.approx((found.low, found.high))
        assert same.components.rest == pytest.approx(found.components.rest)


def test_copies_of_a_message_add_no_evidence():
    scores = make_scores()
    once = difference(scores, np.ones(60), np.arange(60))
    grouped = difference(np.repeat(scores, 4, axis=1), np.ones(240), np.repeat(np.arange(60), 4))
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high))


def test_a_weight_of_two_counts_as_two_messages_of_one_group():
    scores = make_scores()
    weights = np.tile([1.0, 2.0], 30)
    twice = np.repeat(np.arange(60), weights.astype(int))
    weighted = difference(scores, weights, np.arange(60))
    doubled = difference(scores[:, twice], np.ones(90), twice)
    assert (weighted.low, weighted.high) == pytest.approx((doubled.low, doubled.high))


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_p_is_the_level_at_which_the_interval_touches(seeds: int):
    found = difference(make_scores(seeds), np.ones(60), np.arange(60))
    for theta in (0.0, 0.05, -0.4):
        p = found.p(theta)
        distance = reach(found.variance, seeds, 60, 1 - p)
        assert distance == pytest.approx(abs(found.theta - theta), rel=1e-6)
        assert (p < 0.05) == (not found.low <= theta <= found.high)
    assert found.p(found.theta) == 1.0


def test_the_interval_widens_with_the_level():
    wide = [
        difference(make_scores(), np.ones(60), np.arange(60), level).reach
        for level in (0.9, 0.95, 0.975, 0.99)
    ]
    assert wide == sorted(wide)


def test_one_group_says_nothing():
    found = difference(np.ones((3, 7)), np.ones(7), np.zeros(7, dtype=int))
    assert (found.theta, found.low, found.high, found.p()) == (1.0, -math.inf, math.inf, 1.0)


def clustered(
    seed: int, groups: int = 60, spread: float = 1.5, equal: bool = False
) -> tuple[list[bool], list[str]]:
    """Return right answers to messages of people who are more or less easy, and the people."""
    random = np.random.default_rng(seed)
    sizes = np.minimum(1 + random.pareto(1.0, groups).astype(int), 20)
    sizes = np.full(groups, 5) if equal else sizes
    chances = 1 / (1 + np.exp(-(2.0 + spread * random.normal(size=groups))))
    names = np.repeat([f"p{i}" for i in range(groups)], sizes)
    return list(random.random(len(names)) < np.repeat(chances, sizes)), list(names)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_messages_of_groups_are_worth_what_clustered_errors_say(seed: int):
    right, names = clustered(seed, equal=True)
    model = OLS(np.asarray(right, float), np.ones(len(right)))
    groups = np.unique(names, return_inverse=True)[1]
    # Of groups of one size, the jackknife is G / (G - 1) times the sum of squares of the groups.
    robust = model.fit(cov_type="cluster", cov_kwds={"groups": groups, "use_correction": True})
    wider, accuracy = t.ppf(0.975, 60 - 1) / norm.ppf(0.975), np.mean(right)
    expected = accuracy * (1 - accuracy) / robust.bse[0] ** 2 / wider**2
    assert worth_of_groups(right, names) == pytest.approx(min(expected, len(right)))


def test_messages_that_are_alone_are_worth_themselves():
    right = [True, False, True, True, True]
    wider = t.ppf(0.975, 4) / norm.ppf(0.975)
    assert worth_of_groups(right, [""] * 5) == pytest.approx(4 / wider**2)  # of n - 1
    assert worth_of_groups([True] * 6, ["a", "a", "b", "b", "", ""]) == pytest.approx(36 / 10)
    assert worth_of_groups(right, ["a"] * 5, [2.0, 1.0, 1.0, 1.0, 1.0]) == 1.0
    # One group is nearly all: there is one degree of freedom at least.
    assert 0 < worth_of_groups([True] * 99 + [False], ["a"] * 99 + ["b"]) < 100


@pytest.mark.parametrize(("groups", "spread"), [(60, 1.5), (30, 1.5), (60, 0.0)])
def test_the_interval_of_an_accuracy_covers_the_truth_for_other_groups(groups: int, spread: float):
    truth = np.mean(clustered(99, 200_000, spread)[0])
    covered = {"groups": 0, "messages": 0}
    trials = 300
    for seed in range(trials):
        right, names = clustered(seed, groups, spread)
        for name, worth in (("groups", worth_of_groups(right, names)), ("messages", len(right))):
            low, high = wilson_interval(np.mean(right) * worth, worth)
            covered[name] += low <= truth <= high
    assert covered["groups"] / trials > 0.91
    assert covered["messages"] / trials < 0.8 or spread == 0


@pytest.mark.parametrize(("seeds", "least"), [(5, 0.95), (1, 0.92)])
def test_the_difference_of_equal_methods_covers_zero_for_customers_of_any_size(
    seeds: int, least: float
):
    covered, trials = 0, 300
    for trial in range(trials):
        random = np.random.default_rng(trial)
        sizes = np.minimum(1 + random.pareto(1.0, 60).astype(int), 20)
        groups, ease = np.repeat(np.arange(60), sizes), random.normal(size=60)
        right = []
        for _ in "ab":  # each method knows other customers than the other
            logits = 2.5 + (ease + random.normal(size=60))[groups]
            by_seed = 0.1 * random.normal(size=(seeds, 1))
            right.append(random.random((seeds, len(groups))) < 1 / (1 + np.exp(-logits - by_seed)))
        scores = right[0].astype(float) - right[1]
        found = difference(scores, np.ones(len(groups)), groups, 0.95, 1.0)
        covered += found.low <= 0 <= found.high
    assert covered / trials > least


@pytest.mark.parametrize(
    ("a", "b"), [((30, 40), (900, 960)), ((5, 5), (100, 120)), ((0, 9), (3, 8))]
)
def test_the_interval_of_two_shares_is_newcombes(a: tuple[int, int], b: tuple[int, int]) -> None:
    found = difference_interval((a[0] / a[1], a[1]), (b[0] / b[1], b[1]))
    expected = confint_proportions_2indep(*a, *b, method="newcomb", compare="diff")
    assert found == pytest.approx(expected, abs=1e-9)
