"""Temperature, prior and threshold: against SciPy, torch, scikit-learn and what is known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import f1_score, precision_recall_curve

from lora_compare.errors import CheckpointError, DataError, IntegrityError
from lora_compare.models.answers.decision import (
    PLAIN,
    Decision,
    best_threshold,
    fit_temperature,
    prior_shift,
    read_decision,
    require_both,
    write_decision,
)
from lora_compare.project.checksums import seal


def overconfident(n: int, classes: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return logits three times as large as they should be, and labels of the right ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, classes))
    labels = np.array([rng.choice(classes, p=row) for row in softmax(logits, axis=1)])
    return 3.0 * logits, labels


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("shifted", [False, True])
def test_the_temperature_is_that_of_the_lowest_log_loss(classes: int, shifted: bool) -> None:
    logits, labels = overconfident(600, classes)
    weights = np.where(labels == 0, 0.4, 1.3)
    shift = np.linspace(-0.5, 0.7, classes) if shifted else np.zeros(classes)

    def loss(temperature: float) -> float:
        chances = log_softmax(logits / temperature + shift, axis=1)
        return float(np.average(-chances[np.arange(len(labels)), labels], weights=weights))

    lowest = minimize_scalar(loss, bounds=(0.1, 20), method="bounded", options={"xatol": 1e-9})
    found = fit_temperature(softmax(logits, axis=1), labels, weights, shift)
    assert found == pytest.approx(lowest.x, abs=1e-5)
    assert loss(found) <= lowest.fun + 1e-12
    assert 2 < found < 5


def test_the_temperature_is_torchs_too_and_moves_no_likeliest_class() -> None:
    logits, labels = overconfident(500, 3)
    inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([inverse], line_search_fn="strong_wolfe", max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        given = torch.from_numpy(logits) * inverse
        loss = torch.nn.functional.cross_entropy(given, torch.from_numpy(labels))
        loss.backward()
        return loss

    optimizer.step(closure)
    chances = softmax(logits, axis=1)
    temperature = fit_temperature(chances, labels, np.ones(len(labels)))
    assert temperature == pytest.approx(1 / inverse.item(), rel=1e-4)
    after = Decision(temperature).probabilities(chances)
    assert np.allclose(after, softmax(logits / temperature, axis=1), atol=1e-12)
    assert np.array_equal(after.argmax(axis=1), logits.argmax(axis=1))


def test_there_is_no_temperature_where_all_answers_are_right_or_say_nothing() -> None:
    labels = np.array([0, 1, 0, 1])
    right = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    assert fit_temperature(right, labels, np.ones(4)) == 1.0
    assert fit_temperature(1 - right, labels, np.ones(4)) == 1.0


def test_the_shift_gives_the_right_probabilities_at_another_prior() -> None:
    """Two normal distributions, whose probabilities are known at every prior."""
    rng, before, after = np.random.default_rng(3), [0.5, 0.5], [0.87, 0.13]
    labels = (rng.random(200_000) < after[1]).astype(int)
    x = rng.normal(2.0 * labels, 1.0)

    def known(prior: list[float]) -> np.ndarray:
        densities = np.exp(-((x[:, None] - np.array([0.0, 2.0])) ** 2) / 2) * prior
        return densities / densities.sum(axis=1, keepdims=True)

    moved = Decision(shift=prior_shift(before, after)).probabilities(known(before))
    assert np.allclose(moved, known(after), atol=1e-12)
    assert moved.mean(axis=0) == pytest.approx(after, abs=0.003)
    assert known(before).mean(axis=0)[1] > 0.2
    # And it is where the EM of the same paper comes to, which is not told the new prior.
    estimate = np.array(before)
    for _ in range(200):
        weighed = known(before) * estimate / before
        estimate = (weighed / weighed.sum(axis=1, keepdims=True)).mean(axis=0)
    assert estimate == pytest.approx(after, abs=0.004)


def ranked(n: int = 400, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of two classes, not calibrated and with ties, and the labels."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.15).astype(int)
    odds = np.round(rng.normal(2.2 * labels - 1.5, 1.2), 2)
    positive = 1 / (1 + np.exp(-odds))
    return np.stack([1 - positive, positive], axis=1), labels


@pytest.mark.parametrize("weighted", [False, True])
def test_the_threshold_has_the_highest_f1_of_scikit_learns_curve(weighted: bool) -> None:
    chances, labels = ranked()
    weights = np.where(labels == 1, 3.0, 0.7) if weighted else np.ones(len(labels))
    precision, recall, _ = precision_recall_curve(labels, chances[:, 1], sample_weight=weights)
    highest = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    found = Decision(threshold=best_threshold(chances, labels, weights, 1))
    assert f1_score(labels, found.answers(chances), sample_weight=weights) == pytest.approx(highest)
    assert f1_score(labels, chances.argmax(axis=1), sample_weight=weights) < highest
    assert np.array_equal(found.answers(chances), chances[:, 1] > found.chance)


@pytest.mark.parametrize(("alarm", "miss"), [(1.0, 1.0), (10.0, 1.0), (0.5, 4.0), (0.0, 1.0)])
@pytest.mark.parametrize("positive", [0, 1])
def test_the_threshold_has_the_lowest_cost_of_all(alarm: float, miss: float, positive: int) -> None:
    chances, labels = ranked()
    costs = np.zeros((2, 2))
    costs[1 - positive, positive], costs[positive, 1 - positive] = alarm, miss
    weights = np.ones(len(labels))
    found = best_threshold(chances, labels, weights, positive, costs)

    def cost(threshold: float) -> float:
        answers = Decision(positive=positive, threshold=threshold).answers(chances)
        return sum(costs[true, taken] for true, taken in zip(labels, answers, strict=True))

    odds = np.log(chances[:, positive] / chances[:, 1 - positive])
    every = np.concatenate([odds - 0.003, odds + 0.003, [-50, 50]])
    assert cost(found) == min(map(cost, every))


def test_a_threshold_that_gains_nothing_stays_where_right_probabilities_want_it() -> None:
    chances = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.05, 0.95]])
    labels, weights = np.array([0, 0, 1, 1]), np.ones(4)
    assert best_threshold(chances, labels, weights, 1) == 0.0
    costs = np.array([[0.0, 3.0], [1.0, 0.0]])
    assert best_threshold(chances, labels, weights, 1, costs) == pytest.approx(math.log(3))


def test_a_rule_that_changes_nothing_changes_no_bit() -> None:
    chances, _ = ranked()
    assert PLAIN.probabilities(chances) is chances
    assert np.array_equal(PLAIN.answers(chances), chances.argmax(axis=1))


def test_the_largest_of_the_changed_logits_is_the_answer() -> None:
    logits = np.random.default_rng(2).normal(0, 4, (300, 2))
    chances = softmax(logits, axis=1)
    for positive in (0, 1):
        decision = Decision(1.7, prior_shift([0.5, 0.5], [0.9, 0.1]), positive, 0.8)
        scale, added = decision.affine(2)
        assert np.array_equal(
            (logits * scale + added).argmax(axis=1),
            decision.answers(decision.probabilities(chances)),
        )


def test_probabilities_of_0_are_no_nan() -> None:
    decided = Decision(2.0, (0.1, -0.1), 1, 0.3)
    after = decided.probabilities(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert np.isfinite(after).all()
    assert decided.answers(after).tolist() == [0, 1]


def test_a_validation_split_without_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="lacks a class") as caught:
        require_both(np.array([0, 0, 0]), ["ham", "spam"], 1)
    assert "none of spam among 3" in str(caught.value)
    require_both(np.array([0, 1]), ["ham", "spam"], 1)


def test_a_decision_is_read_back_and_refused_for_other_weights(tmp_path: Path) -> None:
    model, other = tmp_path / "model" / "model.safetensors", tmp_path / "evaluated"
    model.parent.mkdir()
    other.mkdir()
    model.write_bytes(b"weights")
    seal(model.parent)
    decision = Decision(1.25, (-0.3, 0.4), 0, -0.7)
    path = other / "decision-1.json"
    write_decision(path, decision, ["ham", "spam"], model)
    seal(other)
    classes = ["ham", "spam"]
    assert read_decision(path, model, classes, "finetune@lora") == decision
    assert read_decision(None, model, classes, "finetune@lora") == PLAIN
    assert read_decision(other / "none.json", model, classes, "finetune@lora") == PLAIN
    with pytest.raises(CheckpointError, match="for other weights"):
        read_decision(path, model, ["spam", "ham"], "finetune@lora")
    path.write_text(path.read_text().replace("1.25", "1.26"))
    with pytest.raises(IntegrityError, match="stage evaluate@lora"):
        read_decision(path, model, classes, "finetune@lora")
    write_decision(path, decision, classes, model)
    model.write_bytes(b"trained again")
    seal(model.parent)
    with pytest.raises(CheckpointError) as caught:
        read_decision(path, model, classes, "finetune@lora")
    assert "dvc repro evaluate@lora" in str(caught.value)
