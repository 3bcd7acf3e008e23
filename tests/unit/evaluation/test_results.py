"""The figures of a method from those of its seeds."""

import statistics

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

from comparison_inputs import make_params
from lora_compare.errors import DataError
from lora_compare.evaluation.calibration import calibration_bins
from lora_compare.evaluation.measuring import Classified, Measuring, measure_all
from lora_compare.evaluation.results import Results, collapsed, over_seeds, pooled_calibration
from lora_compare.models.answers.decision import PLAIN
from lora_compare.params import Params, parse_params
from lora_compare.project.paths import SPLITS

CLASSES = ["ham", "spam"]
LABELS = {name: np.array([0, 0, 0, 1]) for name in SPLITS}


def chances(right: list[bool], labels: np.ndarray = LABELS["test"]) -> np.ndarray:
    """Return probabilities with which these texts are classified rightly."""
    of_truth = np.where(right, 0.9, 0.3)
    return np.stack([np.where(labels == c, of_truth, 1 - of_truth) for c in (0, 1)], axis=1)


def seed(right: list[bool]) -> Results:
    return measuring().measure({n: chances(right) for n in SPLITS})


def measuring(params: Params | None = None, **labels: np.ndarray) -> Measuring:
    """Return how these classifiers are measured."""
    texts = ["a", "b", "c", "d"]
    return Measuring(LABELS | labels, texts, CLASSES, params or make_params(["full"]))


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
    one_class = measuring(**labels).measure(given)
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


RULES = """
data: {source: bundled, text_column: text, label_column: label, prior: PRIOR}
split: {deduplicate: exact, balance: undersample, train: 0.7, validation: 0.1, seed: 123}
model: {name: gpt2-nano, weights: pretrained}
classifier: {position: last_token, bias: true, threshold: THRESHOLD}
evaluation: {temperature: TEMPERATURE}
training: {epochs: 5, batch_size: 8, seeds: [1]}
comparison: {metric: accuracy, costs: COSTS}
tracking: {experiment: lora-compare}
methods: {full: {trainable: all, learning_rate: 5.0e-5, weight_decay: 0.1}}
"""


def rules(**changed: str) -> Params:
    """Return parameters with these rules for answers."""
    text = RULES
    for key, default in {
        "prior": "null",
        "threshold": "argmax",
        "temperature": "false",
        "costs": "null",
    }.items():
        text = text.replace(key.upper(), changed.get(key, default))
    return parse_params(text)


def balanced_model(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return too sure probabilities of a classifier that learnt from halves, where 10 % is spam."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(4000) < 0.1).astype(np.int64)
    x = rng.normal(2.0 * labels, 1.0)
    odds = 2.5 * (2.0 * x - 2.0)  # the right ones times 2.5
    spam = 1 / (1 + np.exp(-odds))
    return np.stack([1 - spam, spam], axis=1), labels


def test_prior_temperature_and_threshold_are_chosen_on_validation_and_help_on_test() -> None:
    given = {name: balanced_model(place) for place, name in enumerate(SPLITS)}
    own = {name: pair[0] for name, pair in given.items()}
    labels = {name: pair[1] for name, pair in given.items()} | {"train": np.array([0, 1] * 2000)}
    texts = [""] * 4000

    def results(**changed: str) -> Results:
        measuring = Measuring(labels, texts, CLASSES, rules(**changed))
        return measuring.measure(own, measuring.decide(own))

    plain, prior = results(), results(prior="{ham: 0.9, spam: 0.1}")
    assert plain.before is None
    assert prior.before is not None
    for split in ("validation", "test"):
        assert prior.before[split]["log_loss"] > prior.figures[split]["log_loss"]
    assert prior.figures["test"]["precision"] > plain.figures["test"]["precision"] + 0.1
    assert prior.decision.shift == pytest.approx([np.log(1.8), np.log(0.2)])

    both = results(prior="{ham: 0.9, spam: 0.1}", temperature="true")
    assert both.decision.temperature == pytest.approx(2.5, rel=0.15)
    assert both.figures["test"]["ece"] < 0.02 < both.before["test"]["ece"]  # type: ignore[index]
    assert both.figures["test"]["auroc"] == pytest.approx(plain.figures["test"]["auroc"])

    f1 = results(threshold="best_f1")
    assert f1.figures["test"]["f1"] > plain.figures["test"]["f1"] + 0.1
    assert f1.predictions["p_spam"] == plain.predictions["p_spam"]
    assert f1.decision.chance is not None
    assert f1.decision.chance > 0.9

    costs = "{ham: {spam: 20}}"
    cost = results(threshold="cost", costs=costs)
    matrix = np.array(cost.figures["test"]["confusion_matrix"])
    by_hand = (20 * matrix[0, 1] + matrix[1, 0]) / 4000
    assert cost.figures["test"]["expected_cost"] == pytest.approx(by_hand)
    assert cost.before["test"]["expected_cost"] > 2 * by_hand  # type: ignore[index]
    assert "expected_cost" not in plain.figures["test"]


def test_what_was_chosen_stands_beside_the_figures_of_all_seeds() -> None:
    own = {name: balanced_model(place)[0] for place, name in enumerate(SPLITS)}
    labels = {name: balanced_model(place)[1] for place, name in enumerate(SPLITS)}
    measuring = Measuring(labels, [""] * 4000, CLASSES, rules(temperature="true"))
    seeds = {1: measuring.measure(own, measuring.decide(own)), 2: measuring.measure(own)}
    figures = over_seeds({1: seeds[1], 2: seeds[1]})
    assert figures["decision"] == {"temperature": [seeds[1].decision.temperature] * 2}
    assert figures["before"]["test"]["accuracy"] == seeds[2].figures["test"]["accuracy"]
    assert figures["before"]["test"]["log_loss_sd"] == 0.0
    assert "before" not in over_seeds({2: seeds[2]})


def test_classes_that_counted_alike_in_training_are_shifted_from_equal_shares() -> None:
    params = rules(prior="{ham: 0.9, spam: 0.1}")
    own = {n: chances(MOST) for n in SPLITS}
    shift = measuring(params).decide(own, balanced=True).shift
    assert shift == pytest.approx([np.log(1.8), np.log(0.2)])
    shift = measuring(params).decide(own).shift  # a quarter of train is spam
    assert shift == pytest.approx([np.log(1.2), np.log(0.4)])


def test_a_threshold_needs_both_classes_in_validation() -> None:
    one = measuring(rules(threshold="best_f1"), validation=np.array([0, 0, 0, 0]))
    with pytest.raises(DataError, match="lacks a class"):
        one.decide({n: chances(MOST) for n in SPLITS})
    assert measuring().decide({n: chances(MOST) for n in SPLITS}) == PLAIN


SIZES = {11: 30, 5: 36, 8: 24}
"""Test messages of each fold, by its seed."""


def folds(classes: int) -> tuple[dict, dict, dict]:
    """Probabilities and labels of folds, and their test messages."""
    rng = np.random.default_rng(classes)
    labels = {s: {n: np.arange(size) % classes for n in SPLITS} for s, size in SIZES.items()}
    chances = {s: {n: rng.dirichlet(np.ones(classes) / 2, SIZES[s]) for n in SPLITS} for s in SIZES}
    return chances, labels, {s: {"Text": [f"{s}: {i}" for i in range(n)]} for s, n in SIZES.items()}


def said(chances: dict, labels: dict, test: dict) -> dict[int, Classified]:
    return {s: Classified(chances[s], labels[s], test[s]) for s in chances}


PLAIN_RULES = rules()


def test_in_folds_each_decides_on_its_own_validation_and_all_count_together() -> None:
    chances, labels, test = folds(2)
    given = said(chances, labels, test)
    results, figures = measure_all(given, CLASSES, rules(threshold="best_f1"), in_folds=True)
    right = np.concatenate([result.right for result in results.values()])
    assert figures["test"]["accuracy"] == pytest.approx(right.mean())
    assert len({*figures["decision"]["threshold"]}) == len(SIZES)


@pytest.mark.parametrize("classes", [2, 3])
def test_in_folds_test_is_of_all_messages_but_what_ranks_is_a_mean(classes: int) -> None:
    names = ["ham", "spam", "other"][:classes]
    chances, labels, test = folds(classes)
    results, figures = measure_all(said(chances, labels, test), names, PLAIN_RULES, in_folds=True)
    truth = np.concatenate([labels[s]["test"] for s in SIZES])
    given = np.concatenate([chances[s]["test"] for s in SIZES])
    own = figures["test"]
    assert own["n"] == 90
    assert own["accuracy"] == pytest.approx(accuracy_score(truth, given.argmax(axis=1)))
    assert own["macro_f1"] == pytest.approx(f1_score(truth, given.argmax(axis=1), average="macro"))
    assert own["log_loss"] == pytest.approx(log_loss(truth, given))
    assert np.sum(own["confusion_matrix"]) == 90
    of_folds = [
        roc_auc_score(
            labels[s]["test"],
            chances[s]["test"][:, 1] if classes == 2 else chances[s]["test"],
            multi_class="ovr",
        )
        for s in SIZES
    ]
    assert own["auroc"] == pytest.approx(np.mean(of_folds))
    accuracies = [results[s].figures["test"]["accuracy"] for s in SIZES]
    assert own["accuracy_sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert figures["seeds"] == list(SIZES)
    if classes == 3:
        assert own["per_class"]["other"]["n"] == 30
        means = [results[s].figures["test"]["per_class"]["ham"]["auroc"] for s in SIZES]
        assert own["per_class"]["ham"]["auroc"] == pytest.approx(np.mean(means))
    assert figures["train"] == over_seeds(results)["train"]
    assert results[5].predictions["text"] == test[5]["Text"]


def test_all_folds_take_the_class_that_is_rarer_in_all_of_them_for_the_positive_one() -> None:
    chances, labels, test = folds(2)
    labels[5] = {n: 1 - np.minimum(np.arange(36) % 4, 1) for n in SPLITS}  # spam is rarer here
    labels[8] = {n: np.minimum(np.arange(24) % 4, 1) for n in SPLITS}
    given = said(chances, labels, test)
    results, figures = measure_all(given, CLASSES, PLAIN_RULES, in_folds=True)
    truth = np.concatenate([labels[s]["test"] for s in SIZES])
    rarer = int(np.bincount(truth).argmin())
    given = np.concatenate([chances[s]["test"] for s in SIZES]).argmax(axis=1)
    assert figures["test"]["f1"] == pytest.approx(f1_score(truth, given, pos_label=rarer))
    for s in SIZES:
        of_fold = labels[s]["test"], chances[s]["test"].argmax(axis=1)
        expected = f1_score(*of_fold, pos_label=rarer)
        assert results[s].figures["test"]["f1"] == pytest.approx(expected)


def test_without_folds_all_figures_are_those_over_seeds() -> None:
    chances, labels, _ = folds(2)
    chances = dict.fromkeys(SIZES, chances[11])
    same, texts = dict.fromkeys(SIZES, labels[11]), {s: {"Text": ["a"] * 30} for s in SIZES}
    results, figures = measure_all(said(chances, same, texts), CLASSES, PLAIN_RULES)
    assert figures == over_seeds(results)
