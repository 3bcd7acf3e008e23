"""The difference of two methods trained several times, over messages that all of these answered."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.evaluation.statistics.proportions import CONFIDENCE

PSEUDO_WEIGHT = math.sqrt(0.5)
"""Weight of each of the two pseudo groups: together they add one message's square."""

FEWEST_SEEDS = 3
"""Seeds from which on something may be claimed of methods: with two the interval covers too little
(docs/verdict.md). One seed allows claims about the two trained models alone."""

HALVINGS = 60
"""Steps of the search for a p-value: the bracket, 300 natural logarithms, shrinks below 1e-15."""

Array = npt.NDArray[np.float64]
Groups = npt.NDArray[np.integer[Any]]


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
    table, theta = two_way_table(np.atleast_2d(np.asarray(scores, np.float64)), weights, groups)
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


def two_way_table(scores: Array, weights: npt.ArrayLike, groups: Groups) -> tuple[Array, float]:
    """Return each group's deviation at each seed, shape (groups, seeds), and the mean score.

    Args:
        scores: Of messages at each seed, shape (seeds, n).
        weights: Of the messages, shape (n,), above 0.
        groups: Number of each message's group, shape (n,).
    """
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
