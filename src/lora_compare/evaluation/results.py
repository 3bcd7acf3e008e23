"""A classifier's figures on every split and its answers on the test split, of one seed or all."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.evaluation.calibration import as_decisions, calibration_bins
from lora_compare.models.answers.decision import PLAIN, Decision
from lora_compare.project.paths import SPLITS

COLLAPSED_BELOW = 0.1
"""How far below the middle one of all seeds the training accuracy of one is if it has collapsed.

Trainings that work differ there by a point or two; one that has left the plateau of its learning
rate ends at the share of a class, or tens of points below.
"""

Truth = Mapping[str, npt.NDArray[np.int64]]
"""For each split the right classes' indices, shape (n,)."""

Chances = Mapping[str, npt.NDArray[np.float64]]
"""For each split the classes' probabilities, shape (n, n_classes)."""


@dataclass(frozen=True)
class Results:
    """What is known of one classifier.

    Attributes:
        figures: For each split every figure of `evaluate_predictions`.
        predictions: Columns text, label, predicted and p_<class>; one row a test message.
        decision: How its probabilities become answers.
        before: Its figures on validation and test by its own probabilities and their likeliest
            class, where a decision is asked for.
    """

    figures: dict[str, dict[str, Any]]
    predictions: dict[str, Sequence[Any]]
    decision: Decision = PLAIN
    before: dict[str, dict[str, Any]] | None = None

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each test message was taken for its class, shape (n,)."""
        both = zip(self.predictions["predicted"], self.predictions["label"], strict=True)
        return np.array([predicted == label for predicted, label in both])

    def decided(self, chances: Chances) -> Chances:
        """Return for each split what the decision makes of the classifier's own probabilities."""
        return {name: self.decision.probabilities(own) for name, own in chances.items()}


def over_seeds(results: Mapping[int, Results]) -> dict[str, Any]:
    """Return the figures of a method on every split: means over its seeds, and each seed's own.

    Beside every figure of a split that is a number stands, with two seeds or more, its standard
    deviation between them (of n - 1), as `<figure>_sd`. A figure that one seed does not have is
    None. Confusion matrices are added up. `collapsed` lists the seeds of that function, if any.
    Where answers are more than the likeliest class by a classifier's own probabilities, `decision`
    has what was chosen for each seed, and `before` the figures of validation and test without it.

    Args:
        results: What is known of the classifier of each seed.
    """
    by_split = {name: [result.figures[name] for result in results.values()] for name in SPLITS}
    fallen = collapsed(dict(zip(results, by_split["train"], strict=True)))
    return {
        **{name: _with_spread(figures) for name, figures in by_split.items()},
        "seeds": list(results),
        # Not where it is empty: `dvc plots` stumbles over an empty list in a metrics file.
        **({"collapsed": fallen} if fallen else {}),
        **decided(results),
        "per_seed": {
            str(seed): {name: _scalars(figures) for name, figures in result.figures.items()}
            for seed, result in results.items()
        },
    }


def decided(results: Mapping[int, Results]) -> dict[str, Any]:
    """Return what was chosen on validation, and the figures without it; nothing of nothing.

    Args:
        results: What is known of the classifier of each seed.
    """
    before = [result.before for result in results.values() if result.before]
    if not before:
        return {}
    chosen = [result.decision for result in results.values()]
    figures = {
        "temperature": [one.temperature for one in chosen],
        "shift": list(chosen[0].shift),
        "threshold": [one.chance for one in chosen if one.chance is not None],
    }
    return {
        # Nothing that is empty: `dvc plots` stumbles over an empty list in a metrics file.
        "decision": {name: values for name, values in figures.items() if values},
        "before": {name: _with_spread([own[name] for own in before]) for name in SPLITS[1:]},
    }


def collapsed(train: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Return the seeds whose training has come to nothing, though its losses are finite.

    Its training accuracy is no better than that of naming the largest class every time (of several
    labels a message its loss than that of giving each label its frequency), or more than
    `COLLAPSED_BELOW` below the middle one of all seeds.

    Args:
        train: For each seed its figures on the training split.
    """
    accuracies = {seed: figures["accuracy"] for seed, figures in train.items()}
    least = statistics.median(accuracies.values()) - COLLAPSED_BELOW
    return [s for s, right in accuracies.items() if right < least or _learnt_nothing(train[s])]


def _learnt_nothing(train: Mapping[str, Any]) -> bool:
    """Return whether the figures on train are those of knowing nothing but the classes' sizes."""
    n = train["n"]
    if "confusion_matrix" in train:
        return bool(train["accuracy"] <= max(map(sum, train["confusion_matrix"])) / n)
    shares = [own["n"] / n for own in train["per_class"].values()]
    surprise = [-p * math.log(p) for s in shares for p in (s, 1 - s) if p]
    return bool(train["log_loss"] >= math.fsum(surprise) / len(shares))


def pooled_calibration(
    chances: Sequence[Chances], labels: Sequence[Truth]
) -> dict[str, list[dict[str, Any]]]:
    """Return for each split the calibration bins of all seeds' answers.

    Args:
        chances: Those of each seed.
        labels: For each seed and split the right classes' indices, shape (n,).
    """
    return {
        name: calibration_bins(
            *as_decisions(
                np.concatenate([own[name] for own in labels]),
                np.concatenate([own[name] for own in chances]),
            )
        )
        for name in SPLITS
    }


def _scalars(figures: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the figures of a split that are one number each, or unknown."""
    return {k: v for k, v in figures.items() if v is None or isinstance(v, float)}


def _with_spread(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means of a split's figures, each number with its spread behind it."""
    result = {}
    for key, value in _mean(seeds).items():
        result[key] = value
        if len(seeds) > 1 and key in _scalars(seeds[0]):
            own = [figures[key] for figures in seeds]
            result[f"{key}_sd"] = None if None in own else statistics.stdev(own)
    return result


def _mean(values: Sequence[Any]) -> Any:
    """Return the mean of numbers, of each in lists and mappings; the sum of matrices."""
    first = values[0]
    if isinstance(first, Mapping):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, list) and isinstance(first[0], list):
        return np.sum(values, axis=0).tolist()
    if isinstance(first, list):
        return [_mean(several) for several in zip(*values, strict=True)]
    if None in values:
        return None
    return first if isinstance(first, int) else math.fsum(values) / len(values)


def size_figures(trainable: int, total: int, artifact_bytes: int) -> dict[str, Any]:
    """Return the figures of a classifier's size, as they stand in every metrics file.

    Args:
        trainable: Parameters that its training changed.
        total: All its parameters.
        artifact_bytes: Bytes of the file that holds what training changed.
    """
    return {
        "trainable_parameters": trainable,
        "total_parameters": total,
        "trainable_percent": 100.0 * trainable / total,
        "artifact_bytes": artifact_bytes,
    }
