"""The interval of an accuracy, of single messages and of groups of them."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
"""Probability with which an interval method covers the true value, unitless."""

NORMAL_QUANTILE = 1.959963984540054
"""The standard normal's at (1 + CONFIDENCE) / 2."""


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


def difference_interval(a: tuple[float, int], b: tuple[float, int]) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two proportions of different messages.

    Args:
        a: A proportion, in 0..1, and the number of messages that it is of, 1 or more.
        b: The one that is subtracted.

    Source: Newcombe 1998, Statistics in Medicine 17:873, method 10 (from Wilson's intervals).
    """
    (p, n), (q, m) = a, b
    (low_p, high_p), (low_q, high_q) = wilson_interval(p * n, n), wilson_interval(q * m, m)
    below = math.hypot(p - low_p, high_q - q)
    return p - q - below, p - q + math.hypot(high_p - p, q - low_q)


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
