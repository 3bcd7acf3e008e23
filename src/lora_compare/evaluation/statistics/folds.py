"""The difference of two methods over messages that were tested in folds, each once."""

import numpy as np
import numpy.typing as npt

from lora_compare.evaluation.statistics.crossed import (
    Components,
    Difference,
    Groups,
    two_way_table,
)
from lora_compare.evaluation.statistics.proportions import CONFIDENCE


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
    Checked by tests/unit/evaluation/test_fold_statistics.py against SciPy's one-sample t test and
    one-way analysis of variance, and with known truth by test_error_rates.py.
    """
    of_message = np.asarray(weights, np.float64)
    number = np.unique(folds, return_inverse=True)[1]
    # A group that stands in two folds counts in each: only where twins are apart.
    _, place = np.unique(np.stack([number, groups]), axis=1, return_inverse=True)
    table, theta = two_way_table(np.atleast_2d(np.asarray(scores, np.float64)), of_message, place)
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
