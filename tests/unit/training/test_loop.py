"""The training loop: the same for every method, exact, and repeatable."""

import io
import math
import re
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from lora_compare.compute.optimizers import MasterAdamW, Rates
from lora_compare.compute.precision import trained_in_float32
from lora_compare.errors import TrainingError
from lora_compare.lora import inject
from lora_compare.models.batches import Batch, Examples, collate
from lora_compare.models.classifier import loss_and_accuracy, predict_logits
from lora_compare.models.gpt.network import GPT, Classifier, GPTConfig, initialise
from lora_compare.params import TrainingParams
from lora_compare.project.progress import Progress
from lora_compare.training.history import Evaluation, Evaluations, Reporting, sample
from lora_compare.training.loop import train
from lora_compare.training.ranks.steps import optimizer_step
from lora_compare.training.schedule import Schedule, balanced_weights
from lora_settings import lora_settings

SEED = 1

CONFIG = GPTConfig(vocab_size=40, context_length=16, n_layer=2, n_head=2, n_embd=16)


def texts(n: int, seed: int = 0) -> Examples:
    """Texts of 2 to 9 tokens whose class is whether token 7 occurs."""
    random = np.random.default_rng(seed)
    tokens = [random.integers(8, 38, random.integers(2, 10)) for _ in range(n)]
    for sequence in tokens[::2]:
        sequence[random.integers(len(sequence))] = 7
    return Examples(tokens, np.arange(n) % 2)


def model(method: str = "full") -> Classifier:
    torch.manual_seed(0)
    classifier = Classifier(initialise(GPT(CONFIG)), 2, "last_token")
    if method == "lora":
        inject(classifier, lora_settings(r=4, lora_alpha=8))
    return classifier


def padded(data: Examples) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the texts as a padded batch, and their lengths."""
    rows = [torch.from_numpy(tokens) for tokens in data.tokens]
    batch = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=39)
    return batch, torch.from_numpy(data.lengths)


def settings(**changes: object) -> TrainingParams:
    return TrainingParams(
        **{"epochs": 3, "batch_size": 8, "seeds": [1], "eval_every": 4, **changes}
    )


def run(classifier: Classifier, rate: float = 0.01, **changes: object) -> list[Evaluation]:
    data = texts(50), texts(20, 1)
    result = train(classifier, *data, settings(**changes), Rates(rate, 0.01), SEED)
    return result.history


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_learns_and_reports_every_evaluation(method: str) -> None:
    rows: list[Evaluation] = []
    result = train(
        model(method),
        texts(50),
        texts(20, 1),
        settings(epochs=20),
        Rates(0.02, 0.01),
        SEED,
        reporting=Reporting(on_evaluation=rows.append),
    )
    assert rows == result.history
    # 50 texts in batches of 8 are 7 steps an epoch: an evaluation at 0, each 4th, each 7th.
    assert [r.step for r in rows][:8] == [0, 4, 7, 8, 12, 14, 16, 20]
    assert rows[-1].epoch == 20
    assert rows[0].train_loss == pytest.approx(math.log(2), abs=0.1)
    assert rows[-1].train_loss < 0.7 * rows[0].train_loss
    assert rows[-1].train_accuracy > 0.75
    assert result.examples == 20 * 50
    assert result.tokens == 20 * int(texts(50).lengths.sum())
    assert result.seconds > 0


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_runs_give_the_same_weights_bit_for_bit(method: str) -> None:
    first, second = model(method), model(method)
    assert run(first) == run(second)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_loop_equals_plain_adamw_over_the_same_batches() -> None:
    ours, plain = model().double(), model().double()
    history = run(ours, epochs=2)
    schedule = Schedule(settings(epochs=2), 50, SEED)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.01)
    data = texts(50)
    for groups in schedule.batches():
        chosen = data.take(groups[0])
        loss = nn.functional.cross_entropy(plain(*padded(chosen)), torch.from_numpy(chosen.labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)
    logits = predict_logits(plain, data)
    assert history[-1].train_loss == pytest.approx(loss_and_accuracy(logits, data.labels)[0], 1e-8)


def test_accumulated_small_batches_give_the_gradient_of_the_large_batch() -> None:
    data = texts(10)
    parts = [data.take(range(7)), data.take(range(7, 10))]

    def gradients(batches: list[Batch]) -> tuple[float, list[torch.Tensor]]:
        classifier = model().double()
        parameters = list(classifier.parameters())
        loss = optimizer_step(classifier, batches, torch.optim.SGD(parameters, lr=0.0))
        return loss.item(), [p.grad for p in parameters]

    loss, grads = gradients([collate(data)])
    split_loss, split_grads = gradients([collate(part) for part in parts])
    assert split_loss == pytest.approx(loss, rel=1e-12)
    for a, b in zip(grads, split_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("limit", [None, 1e-2])
def test_bfloat16_trains_masters_as_autocast_trains_float32_weights(
    parts: int, limit: float | None
) -> None:
    data = texts(12)
    batches = [collate(data.take(range(part, 12, parts))) for part in range(parts)]
    ours, plain = model(), model()
    keep = (ours.score,)
    with trained_in_float32(ours, torch.bfloat16, keep) as masters:
        own = MasterAdamW([{"params": list(ours.parameters())}], masters, lr=0.01)
        other = torch.optim.AdamW(plain.parameters(), lr=0.01, fused=True)
        for _ in range(4):
            loss = optimizer_step(ours, batches, own, limit, torch.bfloat16)
            assert loss == optimizer_step(plain, batches, other, limit, torch.bfloat16)
    for (name, a), b in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_accumulation_counts_optimizer_steps() -> None:
    history = run(model(), gradient_accumulation_steps=3, eval_every=100)
    assert [row.step for row in history] == [0, 3, 6, 9]


def test_dropping_the_last_batch_leaves_out_its_texts() -> None:
    data = texts(50), texts(20, 1)
    result = train(model(), *data, settings(drop_last=True), Rates(0.01, 0.0), SEED)
    assert result.examples == 3 * 48


def test_the_gradients_norm_is_clipped() -> None:
    classifier = model()
    parameters = list(classifier.parameters())
    sgd = torch.optim.SGD(parameters, lr=0.0)
    optimizer_step(classifier, [collate(texts(8))], sgd, max_grad_norm=1e-3)
    norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in parameters]))
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_rate_warms_up_and_decays(scheduler: str, expected: list[float]) -> None:
    params = settings(epochs=2, batch_size=4, lr_scheduler=scheduler, warmup_ratio=1 / 3)
    schedule = Schedule(params, 12, SEED)
    assert [schedule.factor(step) for step in range(6)] == pytest.approx(expected, abs=1e-6)


def test_the_history_holds_the_rate_of_the_last_step() -> None:
    history = run(model(), lr_scheduler="linear", epochs=1, eval_every=1)
    rates = [row.learning_rate for row in history]
    assert rates == pytest.approx([0.01, *[0.01 * (7 - i) / 7 for i in range(7)]])


def test_training_stops_at_a_loss_that_is_not_finite() -> None:
    classifier = model()
    with pytest.raises(TrainingError, match=r"(?s)step \d+, learning rate 1e\+30, .*next"):
        run(classifier, rate=1e30)
    with torch.no_grad():
        classifier.score.weight.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"step 0, .* the evaluation after it"):
        run(classifier)


def test_the_watched_sample_is_fixed_and_of_the_asked_size() -> None:
    data = texts(50)
    chosen = sample(data, settings(eval_examples=10), SEED)
    assert len(chosen) == 10
    again = sample(data, settings(eval_examples=10), SEED)
    assert all(np.array_equal(a, b) for a, b in zip(chosen.tokens, again.tokens, strict=True))
    assert sample(data, settings(), SEED) is data


def test_prediction_does_not_depend_on_the_batches_and_keeps_the_mode() -> None:
    classifier = model().double()
    data = texts(30)
    together = predict_logits(classifier, data)
    alone = np.concatenate([predict_logits(classifier, data.take([i])) for i in range(30)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-10)
    assert classifier.training


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(("n", "batch", "group"), [(41, 8, 1), (41, 4, 3), (40, 8, 2), (3, 8, 1)])
def test_the_steps_are_known_before_there_is_a_schedule(
    n: int, batch: int, group: int, drop_last: bool
) -> None:
    training = settings(
        epochs=2, batch_size=batch, gradient_accumulation_steps=group, drop_last=drop_last
    )
    schedule = Schedule(training, n, SEED)
    assert schedule.steps == len(list(schedule.batches()))


def test_a_training_says_its_steps_and_after_ten_of_them_when_it_will_have_ended() -> None:
    training, said = settings(epochs=3, batch_size=4, eval_every=5), io.StringIO()
    reporting = Reporting(Progress(console=Console(file=said, width=200)), "finetune lora")
    rates = Rates(0.01, 0.0)
    train(model("lora"), texts(40), texts(8), training, rates, SEED, reporting=reporting)
    first, forecast = said.getvalue().splitlines()[:2]
    assert first == "finetune lora: 30 steps"
    found = re.fullmatch(
        r"finetune lora: ([\d.e-]+) s a step, about (\d:\d\d:\d\d) for the 20 steps that are left, "
        r"until (.+)",
        forecast,
    )
    assert found, forecast
    assert 0 < float(found[1]) < 10
    end = datetime.fromisoformat(found[3])
    assert abs(end - datetime.now()) < timedelta(minutes=5)


def unlike(n: int = 21) -> Examples:
    """Texts of which every third is of class 0."""
    data = texts(n)
    return Examples(data.tokens, (np.arange(n) % 3 > 0).astype(np.int64))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_balanced_weights_are_those_of_scikit_learn(method: str) -> None:
    labels = unlike().labels
    weights = balanced_weights(model(method), unlike(), settings(class_weights="balanced"))
    assert weights is not None
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    assert balanced_weights(model(method), unlike(), settings()) is None


@pytest.mark.parametrize("parts", [1, 3])
def test_class_weights_give_the_loss_and_the_gradient_of_torchs_own(parts: int) -> None:
    data, plain, ours = unlike(), model().double(), model().double()
    weights = balanced_weights(plain, data, settings(class_weights="balanced"))
    loss = nn.CrossEntropyLoss(weights)(plain(*padded(data)), torch.from_numpy(data.labels))
    loss.backward()
    batches = [collate(data.take(range(part, 21, parts))) for part in range(parts)]
    sgd = torch.optim.SGD(ours.parameters(), lr=0.0)
    found = optimizer_step(ours, batches, sgd, class_weights=weights)
    assert found.item() == pytest.approx(loss.item(), rel=1e-12)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)


def test_class_weights_change_the_training_but_not_what_is_watched() -> None:
    def history(**changes: object) -> list[Evaluation]:
        return train(
            model(), unlike(), unlike(), settings(**changes), Rates(0.01, 0.0), SEED
        ).history

    plain, balanced = history(), history(class_weights="balanced")
    assert plain[0] == balanced[0]
    assert plain[-1] != balanced[-1]


UNSTEADY = {"epochs": 6, "eval_every": 2}
"""A training whose best evaluation, at the rate 0.05, is neither the first nor the last."""


def best_of(history: list[Evaluation]) -> Evaluation:
    return min(history, key=lambda row: row.validation_loss)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_weights_of_the_best_evaluation_are_kept(method: str) -> None:
    last, best = model(method), model(method)
    history = run(last, 0.05, **UNSTEADY)
    assert run(best, 0.05, keep="best", **UNSTEADY) == history
    row = best_of(history)
    assert 0 < row.step < history[-1].step
    for kept, expected in ((best, row), (last, history[-1])):
        logits = predict_logits(kept, texts(20, 1))
        found = loss_and_accuracy(logits, texts(20, 1).labels)
        assert found == (expected.validation_loss, expected.validation_accuracy)


def test_of_equal_evaluations_the_earliest_is_the_best() -> None:
    evaluations = Evaluations(model(), [], torch.float32, 7, lambda row: None)
    rows = [Evaluation(step, 0, 0, 0, 0, loss, 0) for step, loss in enumerate((3, 2, 4, 2, 5))]
    found = []
    for row in rows:
        evaluations.restore([row])
        found.append(evaluations.since_best)
    assert found == [0, 0, 1, 2, 3]


def test_a_kept_embedding_has_decayed_no_further_than_at_its_step() -> None:
    start, best = model(), model()
    step = best_of(run(best, 0.05, keep="best", **UNSTEADY)).step
    # No text has token 39: all that happens to its row is weight decay.
    expected = start.gpt.wte.weight[39] * (1 - 0.05 * 0.01) ** step
    torch.testing.assert_close(best.gpt.wte.weight[39], expected)


def test_patience_ends_a_training_that_does_not_get_better() -> None:
    whole, said = run(model(), 0.05, **UNSTEADY), io.StringIO()
    reporting = Reporting(Progress(console=Console(file=said, width=200)), "finetune full")
    training, data = settings(patience=2, **UNSTEADY), (texts(50), texts(20, 1))
    result = train(model(), *data, training, Rates(0.05, 0.01), SEED, reporting=reporting)
    rows = result.history
    assert rows == whole[: len(rows)]
    assert len(rows) < len(whole)
    worse = [row.validation_loss > best_of(rows).validation_loss for row in rows]
    assert worse[-3:] == [False, True, True]
    steps = rows[-1].step
    epochs, more = divmod(steps, 7)
    assert result.examples == epochs * 50 + more * 8
    first, last = said.getvalue().splitlines()[0], said.getvalue().splitlines()[-1]
    assert first == "finetune full: up to 42 steps"
    assert last == (
        f"finetune full: ended early, after step {steps} of 42: no lower validation loss in 2 "
        "evaluations"
    )


def test_a_training_does_not_end_in_its_first_epoch() -> None:
    history = run(model(), 1e-9, epochs=2, eval_every=1, patience=1)
    losses = [row.validation_loss for row in history]
    assert any(later >= earlier for earlier, later in pairwise(losses[:6]))
    assert history[-1].step >= 7
