"""The interval over folds: SciPy's t test where it is one, the one-way analysis of variance."""

import math

import numpy as np
import pytest
from scipy.stats import f_oneway, t, ttest_1samp

from lora_compare.evaluation.planning import Plan, groups_needed, seeds_needed
from lora_compare.evaluation.statistics import Difference, fold_difference

FOLDS, SIZE = 5, 40
N = FOLDS * SIZE
FOLD = np.repeat(np.arange(1, FOLDS + 1), SIZE)


def make_scores(by_fold: float = 0.2) -> np.ndarray:
    """Scores with an effect of every fold, shape (N,)."""
    rng = np.random.default_rng(3)
    return 0.05 + rng.normal(0, by_fold, FOLDS)[FOLD - 1] + rng.normal(0, 0.4, N)


def found(scores: np.ndarray, **changes: object) -> Difference:
    known = {"weights": np.ones(N), "groups": np.arange(N), "folds": FOLD}
    return fold_difference(scores, **{**known, **changes})  # type: ignore[arg-type]


def test_without_pseudo_groups_it_is_a_t_test_over_the_folds() -> None:
    scores = make_scores()
    means = scores.reshape(FOLDS, SIZE).mean(axis=1)
    expected, own = ttest_1samp(means, 0.0), found(scores, step=0)
    interval = expected.confidence_interval()
    assert own.theta == pytest.approx(means.mean())
    assert (own.low, own.high) == pytest.approx((interval.low, interval.high))
    assert own.p() == pytest.approx(expected.pvalue)


def test_folds_of_unequal_size_are_a_ratio_of_totals() -> None:
    scores, folds = make_scores(), np.repeat([1, 2, 3], [100, 60, 40])
    totals = np.array([scores[folds == f].sum() for f in (1, 2, 3)])
    sizes, mean = np.array([100, 60, 40]), scores.mean()
    residuals = totals - sizes * mean
    variance = 3 / 2 * float(residuals @ residuals) / N**2  # Cochran 1977, section 6.4
    own = found(scores, folds=folds, step=0)
    assert own.variance[0] == pytest.approx(variance)
    assert own.reach == pytest.approx(t.ppf(0.975, 2) * math.sqrt(variance))


def test_the_components_are_those_of_the_one_way_analysis_of_variance() -> None:
    scores = make_scores()
    parts = scores.reshape(FOLDS, SIZE)
    within = parts.var(axis=1, ddof=1).mean()
    between = SIZE * parts.mean(axis=1).var(ddof=1)
    own = found(scores).components
    assert between / within == pytest.approx(f_oneway(*parts).statistic)
    assert own.message == pytest.approx(within)
    assert own.seed == pytest.approx((between - within) / SIZE)
    assert own.rest == 0
    assert own.of_mean(FOLDS, N).total == pytest.approx(found(scores).variance[0])


def test_methods_that_never_differ_have_an_interval_all_the_same() -> None:
    own = found(np.zeros(N))
    assert own.variance == (0.0, 1 / (N * (N + 1)))
    assert own.reach == pytest.approx(t.ppf(0.975, N - 1) / math.sqrt(N * (N + 1)))
    assert own.p() == 1


def test_order_numbers_and_copies_of_a_group_change_nothing() -> None:
    scores, order = make_scores(), np.random.default_rng(1).permutation(N)
    plain = found(scores)
    mixed = found(scores[order], groups=1000 - order, folds=10 * FOLD[order])
    assert mixed.variance == pytest.approx(plain.variance)
    twice = fold_difference(
        *(np.repeat(scores, 2), np.ones(2 * N), np.repeat(np.arange(N), 2), np.repeat(FOLD, 2))
    )
    assert (twice.low, twice.high) == pytest.approx((plain.low, plain.high))
    weighed = found(scores, weights=np.full(N, 3.0))
    assert (weighed.low, weighed.high) == pytest.approx((plain.low, plain.high))


def test_a_group_of_two_folds_counts_in_each() -> None:
    assert found(make_scores(), groups=np.arange(N) % SIZE).groups == N


def test_a_plan_expects_the_variance_that_is_found_and_asks_for_messages_alone() -> None:
    own = found(make_scores())
    plan = Plan(own.components, own.seeds, own.groups, own.level, in_folds=True)
    assert plan.variance == pytest.approx(own.variance)
    assert plan.reach == pytest.approx(own.reach)
    assert seeds_needed(plan, 0.3) is None
    alike = Plan(found(make_scores(0.0)).components, FOLDS, N, in_folds=True)
    needed = groups_needed(alike, 0.05)
    assert needed is not None
    assert needed > N
