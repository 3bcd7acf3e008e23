"""Every comparable metric of several labels a message as a mean of scores of single messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from lora_compare.errors import DataError

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelTask:
    """What every classifier had to find, as `evaluation.scores.Task` is of one class a message.

    Attributes:
        classes: Names of the labels.
        labels: 0 and 1 of each message, shape (n, k).
        weights: Of the messages, shape (n,): all 1.
    """

    classes: Sequence[str]
    labels: Labels
    weights: Array

    @property
    def shares(self) -> dict[str, float]:
        """The share of the messages that has each label; more than 1 together, or less."""
        return dict(zip(self.classes, self.labels.mean(axis=0).tolist(), strict=True))

    @property
    def positive_name(self) -> None:
        """No label is the positive one."""

    @property
    def costs(self) -> None:
        """No mistake has a cost: none is of one class for another."""

    def scores(self, metric: str, predicted: Labels) -> tuple[Array, float]:
        """Return scores of messages whose mean is each seed's metric, as `scores.message_scores`.

        A message's answer is right in part: `jaccard` says how much of it is, which is a score of
        the message itself, as is `accuracy`. Both F1 are functions of counts, and their scores
        influence values, as those of one class are.

        Args:
            metric: Its name in params.yaml.
            predicted: 0 and 1 that each message was given, shape (seeds, n, k).

        Returns:
            The scores, shape (seeds, n), and how far the most telling message moves them when all
            of its labels are found instead of none: 1 for accuracy and jaccard.

        Raises:
            DataError: No message has some label, and the metric is a mean over the labels.
        """
        if metric == "accuracy":
            return (predicted == self.labels).all(axis=-1).astype(np.float64), 1.0
        if metric == "jaccard":
            return np.stack([jaccard(self.labels, given) for given in predicted]), 1.0
        if metric == "macro_f1":
            self._require_labels()
        influence = partial(_f1_scores, together=metric == "micro_f1")
        scores, steps = zip(*(influence(self.labels, given) for given in predicted), strict=True)
        return np.stack(scores), float(np.mean(steps))

    def _require_labels(self) -> None:
        if missing := [c for c, n in self.shares.items() if not n]:
            raise DataError(
                "The metric macro_f1 needs a test message of every label.",
                where="params.yaml: comparison.metric",
                expected="a test message of each of " + ", ".join(self.classes),
                actual=f"none of {', '.join(missing)}",
                kept="every training and every evaluation",
                next="set comparison.metric: micro_f1, jaccard or accuracy, then dvc repro",
            )


def outcomes(labels: Labels, predicted: Labels) -> tuple[Labels, Labels, Labels]:
    """Return where a label was found, given wrongly and missed; all of shape (n, k)."""
    return labels * predicted, (1 - labels) * predicted, labels * (1 - predicted)


def f1_of(hits: float, alarms: float, misses: float) -> float | None:
    """Return the F1 of these counts; None where there is nothing to find and nothing was given."""
    total = 2 * hits + alarms + misses
    return float(2 * hits / total) if total else None


def jaccard(labels: Labels, predicted: Labels) -> Array:
    """Return the share of right labels among those that each message has or was given, shape (n,).

    It is 1 where both are none. Arguments of shape (n, k).
    """
    both, either = (labels * predicted).sum(axis=1), np.maximum(labels, predicted).sum(axis=1)
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def _f1_scores(labels: Labels, predicted: Labels, together: bool) -> tuple[Array, float]:
    """Return the scores of a seed's messages, shape (n,), and their step.

    With H, A and M found, given wrongly and missed, F = 2H / D, D = 2H + A + M, a message's score
    is F + n (dF/dH h + dF/dA a + dF/dM m), where dF/dH = 2 (D - 2H) / D^2, dF/dA = dF/dM = -F / D.

    Args:
        labels: Shape (n, k).
        predicted: Shape (n, k).
        together: Whether all labels are counted together; else the mean over them is meant.
    """
    hits, alarms, misses = outcomes(labels, predicted)
    axis = None if together else 0
    found = hits.sum(axis=axis)
    total = np.maximum(2 * found + alarms.sum(axis=axis) + misses.sum(axis=axis), 1)
    f1 = 2 * found / total
    for_hit, for_error = 2 * (total - 2 * found) / total**2, -f1 / total
    mean_over = 1 if together else labels.shape[1]
    scale = len(labels) / mean_over
    moved = (for_hit * hits + for_error * (alarms + misses)).sum(axis=1)
    # From missed to found, of all that a message has.
    step = float((labels * (for_hit - for_error)).sum(axis=1).max()) * scale
    return f1.mean() + scale * moved, step
