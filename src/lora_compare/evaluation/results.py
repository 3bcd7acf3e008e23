"""A classifier's figures on every split and its answers on the test split, of one seed or all."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.evaluation.calibration import calibration_bins
from lora_compare.evaluation.metrics import evaluate_predictions, predicted_classes
from lora_compare.evaluation.scores import positive_class, prior_weights
from lora_compare.project.corpus import GROUP
from lora_compare.project.paths import SPLITS

COLLAPSED_BELOW = 0.1
"""How far below the middle one of all seeds the training accuracy of one is if it has collapsed.

Trainings that work differ there by a point or two; one that has left the plateau of its learning
rate ends at the share of a class, or tens of points below.
"""

RANKING = ("auroc", "average_precision")
"""Figures of the order in which scores put messages."""

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
    """

    figures: dict[str, dict[str, Any]]
    predictions: dict[str, Sequence[Any]]


def measure(
    chances: Chances,
    labels: Truth,
    test_texts: Sequence[str],
    classes: Sequence[str],
    positive: str | None = None,
    prior: Mapping[str, float] | None = None,
    test_groups: Sequence[str] = (),
) -> Results:
    """Return the results of a classifier on train, validation and test.

    Args:
        chances: For each split the classes' probabilities, shape (n, n_classes).
        labels: For each split the right classes' indices, shape (n,).
        test_texts: The texts of the test split.
        classes: Names of the classes.
        positive: The positive class of two; None for the rarer in the test split.
        prior: The share of each class to which every split is weighted; None weighs all alike.
        test_groups: Name of the group of each test message, where the data has groups.

    Raises:
        ParamsError: No class is called `positive`.
        DataError: A split is empty.
    """
    place = positive_class(classes, labels["test"], positive)
    predictions = {
        "text": list(test_texts),
        "label": [classes[i] for i in labels["test"]],
        "predicted": [classes[i] for i in predicted_classes(chances["test"])],
        **{f"p_{c}": chances["test"][:, i].tolist() for i, c in enumerate(classes)},
    }
    return Results(
        {
            n: evaluate_predictions(
                *(labels[n], chances[n], classes, place),
                prior_weights(labels[n], classes, prior),
                test_groups if n == "test" else (),
            )
            for n in SPLITS
        },
        predictions,
    )


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


def measure_all(
    chances: Mapping[int, Chances],
    labels: Mapping[int, Truth],
    test: Mapping[int, Mapping[str, Sequence[str]]],
    classes: Sequence[str],
    positive: str | None = None,
    prior: Mapping[str, float] | None = None,
    in_folds: bool = False,
) -> tuple[dict[int, Results], dict[str, Any]]:
    """Return the results of the classifier of each seed, and the figures of all together.

    The latter are those of `over_seeds`. Where each seed is of a fold of its own, the figures of
    the test split are of all messages, each answered by the one classifier that has not seen it:
    `n` are all of them, and the spreads are between folds. `auroc` and `average_precision` stay
    means over the folds, since they rank scores, which of two models need not be comparable.

    Args:
        chances: Those of each seed.
        labels: For each seed and split the right classes' indices, shape (n,).
        test: For each seed the columns of its test split: Text, and Group where there are groups.
        classes: Names of the classes.
        positive: As of `measure`; None for the rarer in the test splits of all seeds.
        prior: As of `measure`.
        in_folds: Whether each seed is of a fold of its own.

    Raises:
        ParamsError: No class is called `positive`.
        DataError: A split is empty.

    Source: Forman and Scholz 2010, SIGKDD Explorations 12:49, doi 10.1145/1882471.1882479.
    """
    tested = np.concatenate([own["test"] for own in labels.values()])
    place = positive_class(classes, tested, positive)
    results = {
        seed: measure(
            *(own, labels[seed], test[seed]["Text"], classes),
            *(classes[place], prior, test[seed].get(GROUP, ())),
        )
        for seed, own in chances.items()
    }
    figures = over_seeds(results)
    if in_folds:
        answers = np.concatenate([own["test"] for own in chances.values()])
        groups = [group for own in test.values() for group in own.get(GROUP, ())]
        weights = prior_weights(tested, classes, prior)
        pooled = evaluate_predictions(tested, answers, classes, place, weights, groups)
        figures["test"] = _pooled(figures["test"], pooled)
    return results, figures


def _pooled(mean: Mapping[str, Any], pooled: Mapping[str, Any]) -> dict[str, Any]:
    """Return pooled figures, but for the means of what ranks and the spreads."""
    figures = {k: v if k in RANKING else pooled.get(k, v) for k, v in mean.items()}
    if by_class := mean.get("per_class"):
        own = {name: _pooled(by_class[name], pooled["per_class"][name]) for name in by_class}
        figures |= {"per_class": own}
    return figures


def collapsed(train: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Return the seeds whose training has come to nothing, though its losses are finite.

    Its training accuracy is no better than that of naming the largest class every time, or more
    than `COLLAPSED_BELOW` below the middle one of all seeds.

    Args:
        train: For each seed its figures on the training split.
    """
    accuracies = {seed: figures["accuracy"] for seed, figures in train.items()}
    some = next(iter(train.values()))
    largest = max(map(sum, some["confusion_matrix"])) / some["n"]
    least = statistics.median(accuracies.values()) - COLLAPSED_BELOW
    return [seed for seed, right in accuracies.items() if right <= largest or right < least]


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
            np.concatenate([own[name] for own in labels]),
            np.concatenate([own[name] for own in chances]),
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
