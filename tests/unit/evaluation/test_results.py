"""The figures of a method from those of its seeds."""

import statistics

import numpy as np
import pytest

from lora_compare.evaluation.calibration import calibration_bins
from lora_compare.evaluation.results import (
    Results,
    collapsed,
    measure,
    over_seeds,
    pooled_calibration,
)
from lora_compare.project.paths import SPLITS

CLASSES = ["ham", "spam"]
LABELS = {name: np.array([0, 0, 0, 1]) for name in SPLITS}


def chances(right: list[bool], labels: np.ndarray = LABELS["test"]) -> np.ndarray:
    """Return probabilities with which these texts are classified rightly."""
    of_truth = np.where(right, 0.9, 0.3)
    return np.stack([np.where(labels == c, of_truth, 1 - of_truth) for c in (0, 1)], axis=1)


def seed(right: list[bool]) -> Results:
    return measure({n: chances(right) for n in SPLITS}, LABELS, ["a", "b", "c", "d"], CLASSES)


ALL, MOST, HALF = [True] * 4, [True, True, True, False], [True, False, True, False]


def test_figures_are_means_with_their_spread_and_each_seeds_own() -> None:
    figures = over_seeds({7: seed(ALL), 3: seed(MOST), 5: seed(HALF)})
    test = figures["test"]
    assert figures["seeds"] == [7, 3, 5]
    assert test["accuracy"] == pytest.approx(0.75)
    assert test["accuracy_sd"] == pytest.approx(0.25)
    own = [figures["per_seed"][str(s)]["test"]["log_loss"] for s in (7, 3, 5)]
    assert test["log_loss"] == pytest.approx(statistics.mean(own))
    assert test["log_loss_sd"] == pytest.approx(np.std(own, ddof=1))
    assert test["n"] == 4
    assert test["confusion_matrix"] == [[8, 1], [2, 1]]
    low, high = test["accuracy_ci95"]
    assert low < 0.75 < high
    keys = list(test)
    assert keys[keys.index("accuracy") + 1] == "accuracy_sd"


def test_the_figures_of_one_seed_are_its_own_without_a_spread() -> None:
    only = seed(MOST)
    figures = over_seeds({123: only})
    assert {name: figures[name] for name in SPLITS} == only.figures
    assert "collapsed" not in over_seeds({1: seed(ALL), 2: seed(ALL)})
    assert figures["collapsed"] == [123]
    own = figures["per_seed"]["123"]["test"]
    assert own == {k: v for k, v in only.figures["test"].items() if isinstance(v, float)}


def test_a_figure_that_a_seed_does_not_have_has_no_mean() -> None:
    labels = {name: np.array([0, 0, 0, 0]) for name in SPLITS}
    given = {n: chances(MOST, labels["test"]) for n in SPLITS}
    one_class = measure(given, labels, ["a", "b", "c", "d"], CLASSES)
    test = over_seeds({1: one_class, 2: one_class})["test"]
    assert test["auroc"] is None
    assert test["auroc_sd"] is None


def test_a_seed_that_fits_no_better_than_a_guess_or_far_worse_than_others_has_collapsed() -> None:
    def train(accuracy: float) -> dict:
        return {"accuracy": accuracy, "n": 100, "confusion_matrix": [[60, 0], [40, 0]]}

    accuracies = {1: 0.99, 2: 0.88, 3: 0.98, 4: 0.6, 5: 0.89}
    assert collapsed({s: train(a) for s, a in accuracies.items()}) == [4]
    assert collapsed({s: train(a) for s, a in {**accuracies, 2: 0.78}.items()}) == [2, 4]
    assert collapsed({1: train(0.61)}) == []
    assert collapsed({1: train(0.6)}) == [1]


def test_calibration_is_of_the_answers_of_all_seeds() -> None:
    several = [{n: chances(right) for n in SPLITS} for right in (ALL, HALF)]
    bins = pooled_calibration(several, [LABELS] * 2)["test"]
    assert sum(b["n"] for b in bins) == 8
    both = np.concatenate([chances(ALL), chances(HALF)])
    assert bins == calibration_bins(np.tile(LABELS["test"], 2), both)
