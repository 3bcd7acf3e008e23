"""A classifier's figures on every split, and its answers on the test split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.evaluation.calibration import calibration_bins
from lora_compare.evaluation.metrics import evaluate_predictions, predicted_classes
from lora_compare.evaluation.scores import positive_class, prior_weights
from lora_compare.project.paths import SPLITS


@dataclass(frozen=True)
class Results:
    """What is known of one classifier.

    Attributes:
        figures: For each split every figure of `evaluate_predictions`.
        calibration: For each split its calibration bins.
        predictions: Columns text, label, predicted and p_<class>; one row a test message.
    """

    figures: dict[str, dict[str, Any]]
    calibration: dict[str, list[dict[str, Any]]]
    predictions: dict[str, Sequence[Any]]


def measure(
    chances: Mapping[str, npt.NDArray[np.float64]],
    labels: Mapping[str, npt.NDArray[np.int64]],
    test_texts: Sequence[str],
    classes: Sequence[str],
    positive: str | None = None,
    prior: Mapping[str, float] | None = None,
) -> Results:
    """Return the results of a classifier on train, validation and test.

    Args:
        chances: For each split the classes' probabilities, shape (n, n_classes).
        labels: For each split the right classes' indices, shape (n,).
        test_texts: The texts of the test split.
        classes: Names of the classes.
        positive: The positive class of two; None for the rarer in the test split.
        prior: The share of each class to which every split is weighted; None weighs all alike.

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
            )
            for n in SPLITS
        },
        {n: calibration_bins(labels[n], chances[n]) for n in SPLITS},
        predictions,
    )


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
