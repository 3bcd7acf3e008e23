"""A classifier's figures on every split and its answers on the test split, of one seed or all."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.evaluation.calibration import as_decisions, calibration_bins
from lora_compare.evaluation.labels.metrics import evaluate_labels
from lora_compare.evaluation.metrics import evaluate_predictions
from lora_compare.evaluation.scores import positive_class, prior_weights
from lora_compare.models.targets import ONE_CLASS, SeveralLabels, Targets
from lora_compare.project.paths import SPLITS

COLLAPSED_BELOW = 0.1
"""How far below the middle one of all seeds the training accuracy of one is if it has collapsed.

Trainings that work differ there by a point or two; one that has left the plateau of its learning
rate ends at the share of a class, or tens of points below.
"""

Chances = Mapping[str, npt.NDArray[np.float64]]
"""For each split the classes' probabilities, shape (n, n_classes)."""


@dataclass(frozen=True)
class Results:
    """What is known of one classifier.

    Attributes:
        figures: For each split every figure of `evaluate_predictions`.
        predictions: Columns text, label, predicted and p_<class>; one row a test message.
    """

    figures: dict[str, dict[str, Any]]
    predictions: dict[str, Sequence[Any]]


def measure(
    chances: Chances,
    labels: Mapping[str, npt.NDArray[np.int64]],
    test_texts: Sequence[str],
    classes: Sequence[str],
    positive: str | None = None,
    prior: Mapping[str, float] | None = None,
    test_groups: Sequence[str] = (),
    targets: Targets = ONE_CLASS,
) -> Results:
    """Return the results of a classifier on train, validation and test.

    Args:
        chances: For each split the classes' probabilities, shape (n, n_classes).
        labels: For each split the right classes' indices, shape (n,), or labels, shape (n, k).
        test_texts: The texts of the test split.
        classes: Names of the classes.
        positive: The positive class of two; None for the rarer in the test split.
        prior: The share of each class to which every split is weighted; None weighs all alike.
        test_groups: Name of the group of each test message, where the data has groups.
        targets: What the probabilities are of.

    Raises:
        ParamsError: No class is called `positive`.
        DataError: A split is empty.
    """
    groups = {name: test_groups if name == "test" else () for name in SPLITS}
    if isinstance(targets, SeveralLabels):
        figures = {
            n: evaluate_labels(labels[n], chances[n], classes, targets, groups[n]) for n in SPLITS
        }
    else:
        place = positive_class(classes, labels["test"], positive)
        figures = {
            n: evaluate_predictions(
                *(labels[n], chances[n], classes, place),
                prior_weights(labels[n], classes, prior),
                groups[n],
            )
            for n in SPLITS
        }
    predictions = {
        "text": list(test_texts),
        "label": targets.texts(labels["test"], classes),
        "predicted": targets.texts(targets.answers(chances["test"]), classes),
        **{f"p_{c}": chances["test"][:, i].tolist() for i, c in enumerate(classes)},
    }
    return Results(figures, predictions)


def over_seeds(results: Mapping[int, Results]) -> dict[str, Any]:
    """Return the figures of a method on every split: means over its seeds, and each seed's own.

    Beside every figure of a split that is a number stands, with two seeds or more, its standard
    deviation between them (of n - 1), as `<figure>_sd`. A figure that one seed does not have is
    None. Confusion matrices are added up. `collapsed` lists the seeds of that function, if any.

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
        "per_seed": {
            str(seed): {name: _scalars(figures) for name, figures in result.figures.items()}
            for seed, result in results.items()
        },
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
    chances: Sequence[Chances], labels: Mapping[str, npt.NDArray[np.int64]]
) -> dict[str, list[dict[str, Any]]]:
    """Return for each split the calibration bins of all seeds' answers.

    Args:
        chances: Those of each seed.
        labels: For each split the right classes' indices, shape (n,).
    """
    return {
        name: calibration_bins(
            *as_decisions(
                np.concatenate([labels[name]] * len(chances)),
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
