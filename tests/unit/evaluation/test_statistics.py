"""Intervals and paired tests, against scipy's own and by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, norm
from statsmodels.stats.multitest import multipletests

from lora_compare.evaluation.statistics import (
    CONFIDENCE,
    NORMAL_QUANTILE,
    difference_interval,
    holm,
    mcnemar_p,
    wilson_interval,
)


def make_answers(only_a: int, only_b: int, both: int, neither: int = 0):
    a = np.array([True] * only_a + [False] * only_b + [True] * both + [False] * neither)
    b = np.array([False] * only_a + [True] * only_b + [True] * both + [False] * neither)
    return a, b


@pytest.mark.parametrize(("successes", "n"), [(290, 300), (0, 10), (10, 10), (1, 2)])
def test_wilson_is_scipys(successes: int, n: int):
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-15)
    assert norm.ppf((1 + CONFIDENCE) / 2) == NORMAL_QUANTILE


@pytest.mark.parametrize(("only_a", "only_b"), [(5, 0), (1, 9), (7, 7), (12, 3), (400, 900)])
def test_mcnemar_is_the_binomial_test_of_the_discordant_messages(only_a: int, only_b: int):
    a, b = make_answers(only_a, only_b, both=100, neither=4)
    expected = binomtest(only_a, only_a + only_b).pvalue
    assert mcnemar_p(a, b) == pytest.approx(expected, rel=1e-12, abs=0)
    assert mcnemar_p(a, b) == mcnemar_p(b, a)


def test_mcnemar_of_equal_answers_is_one():
    a, b = make_answers(0, 0, both=3, neither=2)
    assert mcnemar_p(a, b) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@pytest.mark.parametrize("p_values", [[0.01, 0.04, 0.03], [0.02, 0.02, 0.9, 0.011, 0.4]])
def test_holm_is_statsmodels(p_values: list[float]):
    assert holm(p_values) == multipletests(p_values, method="holm")[1].tolist()


def test_the_interval_is_scipys(monkeypatch: pytest.MonkeyPatch):
    # So that the draws do not fit one batch.
    monkeypatch.setattr("lora_compare.evaluation.statistics.RESAMPLING_BATCH", 5_000)
    a, b = make_answers(12, 4, both=180, neither=4)
    expected = bootstrap(
        (a.astype(float) - b,),
        np.mean,
        n_resamples=999,
        batch=25,
        method="percentile",
        rng=np.random.default_rng(7),
    ).confidence_interval
    assert difference_interval(a, b, np.arange(200), 7, 999) == pytest.approx(expected, abs=1e-15)


def test_the_interval_is_that_of_a_naive_resampling():
    a, b = make_answers(12, 4, both=180, neither=4)
    rng = np.random.default_rng(5)
    draws = (a.astype(int) - b)[rng.integers(0, 200, (20_000, 200))].mean(axis=1)
    naive = np.quantile(draws, [0.025, 0.975])
    # The mean moves in steps of 1/200; the ends may be one step apart.
    assert difference_interval(a, b, np.arange(200)) == pytest.approx(naive, abs=1 / 200 + 1e-9)


def test_copies_of_a_message_add_no_evidence():
    a, b = make_answers(12, 4, both=80, neither=4)
    once = difference_interval(a, b, np.arange(100))
    grouped = difference_interval(np.repeat(a, 5), np.repeat(b, 5), np.repeat(np.arange(100), 5))
    assert grouped == pytest.approx(once)
    apart = difference_interval(np.repeat(a, 5), np.repeat(b, 5), np.arange(500))
    assert apart[1] - apart[0] < 0.6 * (once[1] - once[0])


def test_the_interval_covers_the_true_difference():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(150):
        sizes = rng.choice([1, 1, 1, 1, 2, 3], 250)
        groups = np.repeat(np.arange(250), sizes)
        a, b = (np.repeat(rng.random(250) < accuracy, sizes) for accuracy in (0.97, 0.95))
        low, high = difference_interval(a, b, groups, resamples=499)
        covered += low <= 0.02 <= high
    # 95 % of 150, give or take three standard errors and the few resamples.
    assert 133 <= covered <= 149


def test_the_same_seed_gives_the_same_interval_and_names_of_groups_do_not_matter():
    a, b = make_answers(9, 3, both=50)
    groups = np.arange(62) // 2
    assert difference_interval(a, b, groups, seed=3) == difference_interval(a, b, groups, seed=3)
    assert difference_interval(a, b, groups + 100) == difference_interval(a, b, groups)


def test_equal_answers_have_an_interval_of_zero():
    a, b = make_answers(0, 0, both=40, neither=2)
    assert difference_interval(a, b, np.arange(42)) == (0.0, 0.0)


def test_one_group_says_nothing():
    a, b = make_answers(3, 0, both=4)
    assert difference_interval(a, b, np.zeros(7, dtype=int)) == (-1.0, 1.0)
