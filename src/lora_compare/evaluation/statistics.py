"""Intervals for accuracies, and for the difference of two methods that were trained several times.

The verdict's statistics, how they were chosen and their error rates: docs/verdict.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
"""Probability with which an interval method covers the true value, unitless."""

NORMAL_QUANTILE = 1.959963984540054
"""The standard normal's at (1 + CONFIDENCE) / 2."""

PSEUDO_WEIGHT = math.sqrt(0.5)
"""Weight of each of the two pseudo groups: together they add one message's square."""

FEWEST_SEEDS = 3
"""Seeds from which on something may be claimed of methods: with two the interval covers too little
(docs/verdict.md). One seed allows claims about the two trained models alone."""

HALVINGS = 60
"""Steps of the search for a p-value: the bracket, 300 natural logarithms, shrinks below 1e-15."""

Array = npt.NDArray[np.float64]
Groups = npt.NDArray[np.integer[Any]]


def wilson_interval(successes: float, n: float) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, as fractions (low, high).

    Args:
        successes: How many of the `n` trials succeeded; of weighted ones, their sum.
        n: Number of trials, at least 1; of weighted ones, how many equal ones they are worth.

    Source: Wilson 1927, doi 10.2307/2276774.
    """
    proportion, z = successes / n, NORMAL_QUANTILE
    shrunk = 1 + z**2 / n
    centre = (proportion + z**2 / (2 * n)) / shrunk
    reach = z * math.sqrt(proportion * (1 - proportion) / n + z**2 / (4.0 * n**2)) / shrunk
    # Rounding can put an end that is exactly the proportion (0 or 1) on its wrong side.
    return max(0.0, min(centre - reach, proportion)), min(1.0, max(centre + reach, proportion))


def worth_of_groups(
    right: npt.ArrayLike, groups: Sequence[str], weights: npt.ArrayLike | None = None
) -> float:
    """Return how many independent messages an accuracy rests on, messages of a group not being so.

    It is the binomial variance over that of the accuracy when groups are left out one by one (the
    jackknife), less what Student's quantile is wider than the normal's, with as many degrees of
    freedom as the groups are worth by their sizes less one; never more than the messages are worth
    by their weights (Kish 1965). Where all answers are right, or all wrong, nothing can be told
    of the groups, and each counts as one message.

    Args:
        right: 1 of a right answer, 0 of a wrong one, shape (n,).
        groups: Name of each message's group; an empty one is of a message that is alone.
        weights: Of the messages, shape (n,); None weighs all alike.

    Source: Korn and Graubard 1998, Survey Methodology 24:193 (effective sample size and degrees
    of freedom in the interval of a proportion).
    Checked by tests/unit/evaluation/test_statistics.py against statsmodels and by simulation.
    """
    from scipy.special import stdtrit

    answers = np.asarray(right, np.float64)
    weighing = np.ones(len(answers)) if weights is None else np.asarray(weights, np.float64)
    names = [name or place for place, name in enumerate(groups)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    place = [numbers[name] for name in names]
    of_group, won = np.bincount(place, weighing), np.bincount(place, weighing * answers)
    total, accuracy = float(of_group.sum()), float(np.average(answers, weights=weighing))
    worth = total**2 / float(of_group @ of_group)
    if accuracy in (0.0, 1.0) or len(of_group) < 2:
        return worth
    without = (won.sum() - won) / (total - of_group)
    variance = (1 - 1 / len(won)) * float(np.square(without - accuracy).sum())
    wider = float(stdtrit(max(worth - 1, 1.0), (1 + CONFIDENCE) / 2)) / NORMAL_QUANTILE
    independent = total**2 / float(weighing @ weighing)
    return min(independent, accuracy * (1 - accuracy) / variance / wider**2)


def reach(variance: tuple[float, float], seeds: int, groups: int, level: float) -> float:
    """Return half the width of the interval of a difference; infinite from one group alone.

    The two variances are estimated from few seeds and many groups, so that each has Student's
    quantile of its own: the method of variance estimates recovery (MOVER).

    Args:
        variance: Of the difference by the seeds and by the messages.
        seeds: How many there are; the first variance counts from two on.
        groups: How many groups of messages.
        level: The probability with which the interval shall cover, in 0..1.

    Source: Zou and Donner 2008, Statistics in Medicine 27:1693, doi 10.1002/sim.3095.
    """
    # Here: measuring a classifier needs this module, and of it no SciPy.
    from scipy.special import stdtrit

    if groups < 2:
        return math.inf
    by_seed, by_message = variance
    tail = (1 + level) / 2
    reached = stdtrit(groups - 1, tail) ** 2 * by_message
    if seeds > 1:
        reached += stdtrit(seeds - 1, tail) ** 2 * by_seed
    return math.sqrt(reached)


@dataclass(frozen=True)
class Components:
    """What makes the difference of two methods vary, without pseudo groups; variances.

    Attributes:
        seed: Between trainings: one seed favours A more than another does.
        message: Between groups of messages: A knows other messages than B.
        rest: Of one group at one seed.
    """

    seed: float
    message: float
    rest: float

    def of_mean(self, seeds: int, groups: int) -> "Components":
        """Return each one's part in the variance of a mean over so many seeds and groups."""
        cells = seeds * groups
        return Components(self.seed / seeds, self.message / groups, self.rest / cells)

    @property
    def total(self) -> float:
        """Their sum."""
        return self.seed + self.message + self.rest


@dataclass(frozen=True)
class Difference:
    """The mean difference of two methods over seeds and test messages.

    Attributes:
        theta: A minus B, in the unit of the scores.
        seeds: Number of seeds; where messages were tested in folds, that of these.
        groups: Number of groups of messages.
        level: That of the interval, in 0..1.
        variance: Of `theta` by the seeds and by the messages, pseudo groups included.
        components: Of one seed, one group, and one group at one seed.
    """

    theta: float
    seeds: int
    groups: int
    level: float
    variance: tuple[float, float]
    components: Components

    @cached_property
    def reach(self) -> float:
        """Half the width of the interval."""
        return reach(self.variance, self.seeds, self.groups, self.level)

    @property
    def low(self) -> float:
        """The interval's lower end."""
        return self.theta - self.reach

    @property
    def high(self) -> float:
        """The interval's upper end."""
        return self.theta + self.reach

    def p(self, theta: float = 0.0) -> float:
        """Return the two-sided p of the hypothesis that the true difference is `theta`.

        It is one minus the level at which the interval just touches `theta`, so that interval
        and test never disagree.
        """
        distance = abs(self.theta - theta)
        if distance == 0 or math.isinf(self.reach):
            return 1.0
        low, high = -300.0, 0.0  # logarithms of p
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            level = 1 - math.exp(middle)
            wide = level == 1 or reach(self.variance, self.seeds, self.groups, level) > distance
            low, high = (middle, high) if wide else (low, middle)
        return math.exp(high)


def difference(
    scores: npt.ArrayLike,
    weights: npt.ArrayLike,
    groups: Groups,
    level: float = CONFIDENCE,
    step: float = 1.0,
) -> Difference:
    """Return the mean difference of two methods with its interval over seeds and messages.

    Seeds and groups of near-duplicate messages are two crossed random effects, as readers and
    cases are in diagnostic medicine. With the deviations u of every group at every seed (their
    weighted sums less what their weight makes expect, scaled by groups / weight) and the mean
    squares of their two-way table by seed, by group and of the rest, the variances are

        by the seeds     MS_seed / (groups seeds)
        by the messages  max(MS_group - MS_rest, 0) / (groups seeds)

    and the interval is `reach`'s. Where methods hardly ever differ, the table would say that they
    never can: so two pseudo groups of average size stand in it, one won by each method, each with
    weight sqrt(1/2) (after Bonett and Price 2012). They move no difference, and `components` is
    free of them. One seed leaves the messages alone: a paired t over groups.

    Args:
        scores: Of A minus those of B, shape (seeds, n); seed by seed the same for both methods.
        weights: Of the messages, shape (n,), above 0.
        groups: Number of each message's near-duplicate group, shape (n,).
        level: The probability with which the interval shall cover, in 0..1.
        step: What one answer of the most telling message changes, in the unit of the scores; 1
            where they are right answers. 0 leaves the pseudo groups out.

    Sources: Hillis 2007, Statistics in Medicine 26:596, doi 10.1002/sim.2532; Bonett and Price
    2012, Journal of Educational and Behavioral Statistics 37:479, doi 10.3102/1076998611411915.
    Checked by tests/unit/evaluation/test_statistics.py against statsmodels' crossed mixed model,
    and with known truth by tests/unit/evaluation/test_error_rates.py.
    """
    table, theta = _two_way_table(np.atleast_2d(np.asarray(scores, np.float64)), weights, groups)
    n_groups, seeds = table.shape
    if n_groups < 2:
        return Difference(theta, seeds, n_groups, level, (0.0, 0.0), Components(0.0, 0.0, 0.0))
    by_seed, by_group, rest = _mean_squares(table)
    components = Components(
        max(by_seed - rest, 0.0) / n_groups if seeds > 1 else 0.0,
        max(by_group - rest, 0.0) / seeds,
        rest,
    )
    if step:
        won = np.full((1, seeds), PSEUDO_WEIGHT * step)
        _, by_group, rest = _mean_squares(np.concatenate([table, won, -won]))
    cells = seeds * n_groups
    variance = by_seed / cells, max(by_group - rest, 0.0) / cells
    return Difference(theta, seeds, n_groups, level, variance, components)


def fold_difference(
    scores: npt.ArrayLike,
    weights: npt.ArrayLike,
    groups: Groups,
    folds: Groups,
    level: float = CONFIDENCE,
    step: float = 1.0,
) -> Difference:
    """Return the mean difference of two methods over messages that were tested in folds.

    Each message was tested once, by trainings that all messages of its fold share. So a fold's mean
    differs from the others' by its trainings and by its messages alike, and with the deviations u
    of the folds (their weighted sums less what their weight makes expect, scaled by folds / weight)

        by the folds     sum of u^2 / (folds (folds - 1))

    holds all that is seen of both. Two pseudo groups, as in `difference`, are the variance by the
    messages, step^2 / (groups (groups + 1)); the interval is `reach`'s. `seeds` are the folds, and
    `components` those of groups within folds. The models share most of their training messages:
    nothing is said of what other messages to train on would change.

    Args:
        scores: Of A minus those of B, shape (n,).
        weights: Of the messages, shape (n,), above 0.
        groups: Number of each message's near-duplicate group, shape (n,).
        folds: Number of the fold that tests each message, shape (n,); two folds at least.
        level: As of `difference`.
        step: As of `difference`.

    Source: Bengio and Grandvalet 2004, Journal of Machine Learning Research 5:1089 (what the
    variance of folds can estimate, and what it cannot).
    Checked by tests/unit/evaluation/test_statistics.py against SciPy's one-sample t test and
    statsmodels' one-way analysis of variance, and with known truth by test_error_rates.py.
    """
    of_message = np.asarray(weights, np.float64)
    number = np.unique(folds, return_inverse=True)[1]
    # A group that stands in two folds counts in each: only where twins are apart.
    _, place = np.unique(np.stack([number, groups]), axis=1, return_inverse=True)
    table, theta = _two_way_table(np.atleast_2d(np.asarray(scores, np.float64)), of_message, place)
    n_groups, n_folds = len(table), int(number.max()) + 1
    fold = np.zeros(n_groups, dtype=np.int64)
    fold[place] = number
    sums = np.bincount(fold, table[:, 0]) * n_folds / n_groups
    by_fold = float(sums @ sums) / (n_folds * (n_folds - 1))
    means = np.bincount(fold, table[:, 0]) / np.bincount(fold)
    left = table[:, 0] - means[fold]
    within = float(left @ left) / max(n_groups - n_folds, 1)
    between = max(n_folds * (by_fold - within / n_groups), 0.0)
    pseudo = step**2 / (n_groups * (n_groups + 1))
    components = Components(between, within, 0.0)
    return Difference(theta, n_folds, n_groups, level, (by_fold, pseudo), components)


def _two_way_table(scores: Array, weights: npt.ArrayLike, groups: Groups) -> tuple[Array, float]:
    """Return each group's deviation at each seed, shape (groups, seeds), and the mean score."""
    of_message = np.asarray(weights, np.float64)
    _, place = np.unique(groups, return_inverse=True)
    of_group = np.bincount(place, of_message)
    total = float(of_group.sum())
    sums = np.stack([np.bincount(place, of_message * row) for row in scores], axis=1)
    theta = float(sums.sum() / (scores.shape[0] * total))
    return (sums - of_group[:, None] * theta) * (len(of_group) / total), theta


def _mean_squares(table: Array) -> tuple[float, float, float]:
    """Return the mean squares of a table of groups and seeds: by seed, by group, of the rest."""
    groups, seeds = table.shape
    centred = table - table.mean()
    by_group, by_seed = centred.mean(axis=1), centred.mean(axis=0)
    of_groups = seeds * float(by_group @ by_group) / (groups - 1)
    if seeds == 1:
        return 0.0, of_groups, 0.0
    left = centred - by_group[:, None] - by_seed
    of_seeds = groups * float(by_seed @ by_seed) / (seeds - 1)
    return of_seeds, of_groups, float((left * left).sum()) / ((groups - 1) * (seeds - 1))
