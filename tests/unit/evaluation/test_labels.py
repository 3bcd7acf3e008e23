"""Several labels a message: figures and baseline are scikit-learn's, scores mean the metrics."""

import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from lora_compare.errors import DataError
from lora_compare.evaluation.baselines import fit_tfidf, save_tfidf
from lora_compare.evaluation.labels.baseline import OneVsRest
from lora_compare.evaluation.labels.metrics import evaluate_labels
from lora_compare.evaluation.labels.scores import LabelTask
from lora_compare.evaluation.results import collapsed, pooled_calibration
from lora_compare.evaluation.tfidf import load_tfidf
from lora_compare.models.answers.targets import SeveralLabels
from lora_compare.project.paths import SPLITS

CLASSES = ["a", "b", "c", "d"]
TARGETS = SeveralLabels((0.5, 0.3, 0.6, 0.45))
TEXTS = ["late parcel", "broken lamp", "late and broken", "thank you", "hello", "late again"] * 5
KINDS = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [0, 0], [1, 0]] * 5)


def draw(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return labels, some messages without any, and probabilities that know something of them."""
    dice = np.random.default_rng(seed)
    labels = (dice.random((n, len(CLASSES))) < [0.5, 0.3, 0.1, 0.2]).astype(np.int64)
    logits = 2 * labels - 1 + dice.normal(size=labels.shape)
    return labels, 1 / (1 + np.exp(-logits))


def test_figures_are_those_of_scikit_learn() -> None:
    labels, chances = draw()
    given = TARGETS.answers(chances)
    found = evaluate_labels(labels, chances, CLASSES, TARGETS)
    loss = torch.nn.BCELoss()(torch.from_numpy(chances), torch.from_numpy(labels).double())
    expected = {
        "accuracy": sk.accuracy_score(labels, given),
        "jaccard": sk.jaccard_score(labels, given, average="samples", zero_division=1.0),
        "hamming_loss": sk.hamming_loss(labels, given),
        "micro_f1": sk.f1_score(labels, given, average="micro"),
        "macro_f1": sk.f1_score(labels, given, average="macro"),
        "precision": sk.precision_score(labels, given, average="macro"),
        "recall": sk.recall_score(labels, given, average="macro"),
        "auroc": sk.roc_auc_score(labels, chances, average="macro"),
        "average_precision": sk.average_precision_score(labels, chances, average="macro"),
        "log_loss": float(loss),
        "brier": sk.brier_score_loss(labels.ravel(), chances.ravel()),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert found["f1"] == found["macro_f1"]
    one = found["per_class"]["b"]
    assert one["f1"] == pytest.approx(sk.f1_score(labels[:, 1], given[:, 1]))
    assert (one["n"], one["threshold"]) == (labels[:, 1].sum(), 0.3)


def test_a_label_that_no_message_has_leaves_no_mean_over_the_labels() -> None:
    labels, chances = draw()
    labels[:, 2] = 0
    found = evaluate_labels(labels, chances, CLASSES, TARGETS)
    assert [found[name] for name in ("macro_f1", "recall", "auroc")] == [None] * 3
    assert found["per_class"]["c"]["f1"] is None
    assert found["micro_f1"] is not None
    with pytest.raises(DataError, match="test message of every label"):
        LabelTask(CLASSES, labels, np.ones(len(labels))).scores("macro_f1", labels[None])
    with pytest.raises(DataError, match="no message"):
        evaluate_labels(labels[:0], chances[:0], CLASSES, TARGETS)


@pytest.mark.parametrize("metric", ["accuracy", "jaccard", "micro_f1", "macro_f1"])
def test_the_mean_of_the_scores_is_the_metric_and_one_message_moves_it_as_they_say(
    metric: str,
) -> None:
    labels, chances = draw(2000)
    given = np.stack([TARGETS.answers(chances), SeveralLabels().answers(chances)])
    task = LabelTask(CLASSES, labels, np.ones(len(labels)))
    scores, step = task.scores(metric, given)
    values = [evaluate_labels(labels, own, CLASSES, SeveralLabels())[metric] for own in given]
    assert scores.mean(axis=1) == pytest.approx(values, rel=1e-12)
    # Leaving a message out: the mean of the others' scores, but for terms of the second order.
    for place in range(0, 2000, 101):
        kept = np.arange(2000) != place
        moved = evaluate_labels(labels[kept], given[0][kept], CLASSES, SeveralLabels())[metric]
        assert scores[0][kept].mean() - values[0] == pytest.approx(moved - values[0], abs=2e-6)
    richest = labels.sum(axis=1).argmax()
    with_none, with_all = given[:1].copy(), given[:1].copy()
    with_none[0, richest], with_all[0, richest] = 0, labels[richest]
    means = [task.scores(metric, own)[0].mean() for own in (with_none, with_all)]
    assert 0 < (means[1] - means[0]) * 2000 <= step * 1.05


def test_a_regression_for_each_label_is_scikit_learns_one_vs_rest() -> None:
    features = TfidfVectorizer().fit_transform(TEXTS)
    labels = np.column_stack([KINDS, np.ones(len(TEXTS), np.int64)])
    ours = OneVsRest(LogisticRegression(max_iter=1000)).fit(features, labels)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Label 2 is present in all training examples")
        theirs = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(features, labels)
    expected = theirs.predict_proba(features)
    assert ours.predict_proba(features)[:, :2] == pytest.approx(expected[:, :2], rel=1e-12)
    assert ours.predict_proba(features)[:, 2] == pytest.approx(30 / 31)


def test_tfidf_of_several_labels_comes_back_from_its_files(tmp_path) -> None:
    _, model, targets = fit_tfidf(TEXTS, KINDS, TEXTS, KINDS)
    save_tfidf(tmp_path, model, ["late", "broken"], targets)
    loaded = load_tfidf(tmp_path)
    assert loaded.targets == targets
    chances = loaded.probabilities(TEXTS)
    assert chances == pytest.approx(model.predict_proba(TEXTS), rel=1e-9)
    assert (loaded.targets.answers(chances) == KINDS).all()


def test_of_too_many_terms_of_all_labels_the_commonest_are_kept(monkeypatch) -> None:
    monkeypatch.setattr("lora_compare.evaluation.baselines.COEFFICIENTS", 6)
    _, model, _ = fit_tfidf(TEXTS, KINDS, TEXTS, KINDS)
    assert model[-1].coef_.shape == (2, 3)


def test_a_seed_that_knows_the_frequencies_alone_has_collapsed() -> None:
    labels, chances = draw()
    frequencies = np.broadcast_to(labels.mean(axis=0), labels.shape)
    train = {
        seed: evaluate_labels(labels, own, CLASSES, TARGETS)
        for seed, own in {1: chances, 2: frequencies}.items()
    }
    assert collapsed({1: train[1]}) == []
    assert collapsed({2: train[2]}) == [2]


def test_calibration_is_of_decisions_on_single_labels() -> None:
    labels, chances = draw()
    pooled = pooled_calibration(
        [dict.fromkeys(SPLITS, chances)] * 2, [dict.fromkeys(SPLITS, labels)] * 2
    )
    sure = [b for b in pooled["test"] if b["n"]]
    assert sum(b["n"] for b in sure) == 2 * labels.size
    right = sum(b["n"] * b["accuracy"] for b in sure) / (2 * labels.size)
    assert right == pytest.approx(((chances > 0.5) == labels).mean())
