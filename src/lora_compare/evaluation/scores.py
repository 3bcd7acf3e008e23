"""Every comparable metric as a mean of scores of single messages, and which messages count more."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.errors import DataError
from lora_compare.params import require_positive

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Task:
    """What every classifier had to tell apart, and how much each message counts.

    Attributes:
        classes: Names of the classes.
        labels: Index of each message's class, shape (n,).
        weights: Of the messages, shape (n,), above 0, mean 1.
        positive: Index of the class that `recall` and `precision` are of.
        costs: Cost by class and answer, shape (classes, classes); None: mistakes have none.
    """

    classes: Sequence[str]
    labels: Labels
    weights: Array
    positive: int
    costs: Array | None = None

    def confusion(self, predicted: Labels) -> Array:
        """Return the weight of the messages by class and answer, shape (classes, classes).

        Args:
            predicted: Index of the class that each message was taken for, shape (n,).
        """
        n = len(self.classes)
        matrix = np.bincount(self.labels * n + predicted, self.weights, n * n)
        return np.asarray(matrix, np.float64).reshape(n, n)

    @property
    def shares(self) -> dict[str, float]:
        """The share of each class, by weight."""
        weights = np.bincount(self.labels, self.weights, len(self.classes)) / len(self.labels)
        return dict(zip(self.classes, weights.tolist(), strict=True))

    @property
    def positive_name(self) -> str:
        """The name of the positive class."""
        return self.classes[self.positive]

    def scores(self, metric: str, predicted: Labels) -> tuple[Array, float]:
        """Return `message_scores` of this task."""
        return message_scores(metric, self, predicted)


def positive_class(classes: Sequence[str], labels: Labels, named: str | None) -> int:
    """Return the index of the positive class: the named one, else the rarer in `labels`.

    Of equally rare ones it is the last in the order of the classes, as scikit-learn takes it.

    Args:
        classes: Names of the classes, in order.
        labels: Index of each test message's class, shape (n,).
        named: `classifier.positive` of params.yaml.

    Raises:
        ParamsError: No class has that name.
    """
    if named is None:
        counts = np.bincount(labels, minlength=len(classes))
        return len(classes) - 1 - int(counts[::-1].argmin())
    require_positive(named, classes)
    return list(classes).index(named)


def prior_weights(
    labels: Labels, classes: Sequence[str], prior: Mapping[str, float] | None
) -> Array:
    """Return what each message counts at another share of the classes, shape (n,), mean 1.

    It is the share that its class shall have over the one that it has in `labels`.

    Args:
        labels: Index of each message's class, shape (n,).
        classes: Names of the classes.
        prior: Share of each class, from data.prior; None for that of `labels`.
    """
    if prior is None:
        return np.ones(len(labels))
    assert set(prior) == set(classes)
    counts = np.bincount(labels, minlength=len(classes))
    target = np.array([prior[name] for name in classes])
    weights = (target / np.maximum(counts, 1))[labels]
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def cost_matrix(
    classes: Sequence[str], costs: Mapping[str, Mapping[str, float]] | None
) -> Array | None:
    """Return what each answer costs, by class and answer, shape (classes, classes); None of None.

    Args:
        classes: Names of the classes.
        costs: `comparison.costs` of params.yaml: a mistake that it does not name costs 1.
    """
    if costs is None:
        return None
    matrix = 1.0 - np.eye(len(classes))
    for true, row in costs.items():
        for taken, cost in row.items():
            matrix[list(classes).index(true), list(classes).index(taken)] = cost
    return matrix


def message_scores(metric: str, task: Task, predicted: Labels) -> tuple[Array, float]:
    """Return scores of messages whose weighted mean is each seed's metric.

    Accuracy is the mean of right answers, and the expected cost, which is better the lower it is,
    that of costs below 0. The other metrics are functions of the confusion matrix
    N that stay the same when N is multiplied. For those the mean of

        score(i) = metric + (sum of N) d metric / d N[label(i), predicted(i)]

    is the metric itself (Euler), and its spread over messages is that of the metric but for terms
    that vanish with the number of messages: the delta method, by influence values. Two methods'
    scores on one message are subtracted like right answers, which keeps what they share out.

    Args:
        metric: Its name in params.yaml.
        task: What was to be told apart.
        predicted: Index of the class that each message was taken for, shape (seeds, n).

    Returns:
        The scores, shape (seeds, n), and how far one answer to the most telling message of
        average group moves them: 1 for accuracy.

    Raises:
        DataError: A class of which the metric speaks has no message.

    Sources: Deville 1999, Survey Methodology 25:193, section 2 (linearisation of functions of
    totals); Takahashi et al. 2022, Applied Intelligence 52:4961 (macro F1).
    Checked by tests/unit/evaluation/test_scores.py by finite differences, and with known truth by
    tests/unit/evaluation/test_error_rates.py.
    """
    _require_classes(metric, task)
    if metric == "accuracy":
        return np.asarray(predicted == task.labels, np.float64), float(task.weights.max())
    largest = [task.weights[task.labels == c].max(initial=0.0) for c in range(len(task.classes))]
    if metric == "expected_cost":
        assert task.costs is not None, "params.yaml has costs where they are the metric"
        # A right answer costs nothing: the dearest mistake is what one answer can change.
        return -task.costs[task.labels, predicted], float((task.costs.max(axis=1) * largest).max())
    total, scores, steps = float(task.weights.sum()), [], []
    for answers in predicted:
        value, slope = METRICS[metric](task.confusion(answers), task.positive)
        scores.append(value + total * slope[task.labels, answers])
        steps.append(np.abs(np.diag(slope)[:, None] - slope).max(axis=1) * total * largest)
    # Of a class that is never predicted, one answer decides the whole precision.
    return np.stack(scores), float(np.mean(steps, axis=0).max()) or total


def _require_classes(metric: str, task: Task) -> None:
    counts = np.bincount(task.labels, minlength=len(task.classes))
    needed = [] if metric in ("accuracy", "expected_cost") else range(len(task.classes))
    if metric in ("recall", "precision"):
        needed = [task.positive]
    if missing := [task.classes[c] for c in needed if not counts[c]]:
        raise DataError(
            f"The metric {metric} needs a test message of every class that it is about.",
            where="params.yaml: comparison.metric",
            expected="a test message of each of " + ", ".join(task.classes),
            actual=f"none of {', '.join(missing)}",
            kept="every training and every evaluation",
            next="set comparison.metric: accuracy, then dvc repro",
        )


def _balanced_accuracy(matrix: Array, _: int) -> tuple[float, Array]:
    rows = matrix.sum(axis=1)
    recalls = np.diag(matrix) / rows
    slope = (np.eye(len(rows)) - recalls[:, None]) / (len(rows) * rows[:, None])
    return float(recalls.mean()), slope


def _macro_f1(matrix: Array, _: int) -> tuple[float, Array]:
    both = matrix.sum(axis=1) + matrix.sum(axis=0)
    f1 = 2 * np.diag(matrix) / both
    lost = f1 / both
    slope = np.diag(2 / both) - lost[:, None] - lost[None, :]
    return float(f1.mean()), slope / len(both)


def _recall(matrix: Array, positive: int) -> tuple[float, Array]:
    n, slope = matrix[positive].sum(), np.zeros_like(matrix)
    value = matrix[positive, positive] / n
    slope[positive] = -value / n
    slope[positive, positive] = (1 - value) / n
    return float(value), slope


def _precision(matrix: Array, positive: int) -> tuple[float, Array]:
    value, slope = _recall(matrix.T, positive) if matrix[:, positive].any() else (0.0, matrix.T * 0)
    # A class that is never predicted has precision 0 by convention, which no message moves.
    return value, slope.T


METRICS: dict[str, Callable[[Array, int], tuple[float, Array]]] = {
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
    "recall": _recall,
    "precision": _precision,
}
"""Each metric of a confusion matrix and the positive class, with its derivative by the matrix."""
