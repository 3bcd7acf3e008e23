"""The one training loop: full fine-tuning, LoRA and everything between."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_compare.batches import Batch, Examples, collate, consecutive, epoch_order
from lora_compare.errors import TrainingError
from lora_compare.evaluation import Padding, loss_and_accuracy, predict_logits
from lora_compare.gpt import Classifier
from lora_compare.lora import parameter_groups
from lora_compare.optimizers import AdamW
from lora_compare.params import TrainingParams
from lora_compare.progress import SILENT, Progress
from lora_compare.schedules import rate_factor


@dataclass(frozen=True)
class Evaluation:
    """One row of the training history.

    Attributes:
        step: Optimizer steps done.
        epoch: Passes over the training split done, fractional.
        learning_rate: The rate of the last step done; before the first, that of the first.
        train_loss: Mean cross-entropy in nats over the evaluated training texts.
        train_accuracy: Fraction of these that are classified rightly.
        validation_loss: As `train_loss`, of the validation split.
        validation_accuracy: As `train_accuracy`, of the validation split.
    """

    step: int
    epoch: float
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float

    def to_dict(self) -> dict[str, float]:
        """Return the row by column name."""
        return asdict(self)


def columns(history: Sequence[Evaluation]) -> dict[str, list[float]]:
    """Return the history as columns by name, for a CSV file."""
    rows = [row.to_dict() for row in history]
    return {name: [row[name] for row in rows] for name in rows[0]}


@dataclass(frozen=True)
class TrainingResult:
    """What a training left behind, beside the model's weights.

    Attributes:
        history: One row per evaluation, the first before any step.
        seconds: Time of the optimizer steps alone, without the evaluations between them.
        examples: Texts seen, repetitions counted.
        tokens: Real tokens seen, without padding.
    """

    history: list[Evaluation]
    seconds: float
    examples: int
    tokens: int


def train(
    model: Classifier,
    train_examples: Examples,
    validation_examples: Examples,
    training: TrainingParams,
    learning_rate: float,
    weight_decay: float,
    padding: Padding,
    loraplus_lr_ratio: float | None = None,
    on_evaluation: Callable[[Evaluation], None] = lambda row: None,
    progress: Progress = SILENT,
    description: str = "train",
) -> TrainingResult:
    """Train the parameters of `model` that require a gradient, in place.

    The same loop serves every method: what differs is which parameters require a gradient.

    Args:
        model: The classifier, on the device where it shall be trained.
        train_examples: The texts to learn from.
        validation_examples: The texts to watch; they change nothing.
        training: What all methods share.
        learning_rate: AdamW's learning rate at its peak.
        weight_decay: AdamW's decoupled weight decay.
        padding: How to fill up batches.
        loraplus_lr_ratio: Rate of the adapters' B over that of A; None: the same.
        on_evaluation: Called with every row of the history as soon as it is known.
        progress: Where to report.
        description: What the progress says is being done.

    Raises:
        TrainingError: The loss of a batch is not finite; the message names step and rate.
    """
    schedule = Schedule(training, len(train_examples))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = AdamW(
        parameter_groups(model, learning_rate, weight_decay, loraplus_lr_ratio), fused=True
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    watched = [sample(e, training) for e in (train_examples, validation_examples)]
    history: list[Evaluation] = []

    def evaluate(step: int, rate: float) -> None:
        figures = [loss_and_accuracy(predict_logits(model, e, padding), e.labels) for e in watched]
        # A last step that ruins the weights has a finite loss before it; look after it too.
        _stop_if_not_finite(figures[0][0] + figures[1][0], step, rate, "the evaluation after it")
        epoch = step / schedule.steps_per_epoch
        history.append(Evaluation(step, epoch, rate, *figures[0], *figures[1]))
        on_evaluation(history[-1])

    clock = Clock(next(model.parameters()).device)
    tokens = examples = 0
    evaluate(0, learning_rate * schedule.factor(0))
    with progress.task(description, schedule.steps) as advance:
        for step, groups in enumerate(schedule.batches(), start=1):
            rate = learning_rate * schedule.factor(step - 1)
            with clock:
                batches = [
                    collate(train_examples.take(g), padding.token, padding.length) for g in groups
                ]
                loss = optimizer_step(model, batches, optimizer, trained, training.max_grad_norm)
                scheduler.step()
            rows = ", ".join(str(i) for i in np.concatenate(groups)[:16])
            _stop_if_not_finite(loss, step, rate, f"rows {rows} of data/splits/train.csv")
            examples += sum(len(b.labels) for b in batches)
            tokens += sum(int(b.lengths.sum()) for b in batches)
            if step % training.eval_every == 0 or step % schedule.steps_per_epoch == 0:
                evaluate(step, rate)
            advance(1, f"loss {loss:.4f}, validation {history[-1].validation_accuracy:.1%}")
    return TrainingResult(history, clock.seconds, examples, tokens)


def optimizer_step(
    model: nn.Module,
    batches: list[Batch],
    optimizer: torch.optim.Optimizer,
    trained: list[nn.Parameter],
    max_grad_norm: float | None = None,
) -> float:
    """Do one optimizer step over all texts of `batches` and return their mean loss.

    The loss is summed over the texts and divided once, so several small batches give the
    gradient of one large batch, also where they differ in size.

    Args:
        model: Called with tokens (b, t) and lengths (b,), returns logits (b, n_classes).
        batches: Forward passes that share this step.
        optimizer: Holds the parameters in `trained`.
        trained: The parameters whose gradient is clipped.
        max_grad_norm: Largest norm of the gradient over all of them; None: no limit.
    """
    model.train()
    device = trained[0].device
    n = sum(len(batch.labels) for batch in batches)
    total = 0.0
    optimizer.zero_grad(set_to_none=True)
    for batch in batches:
        batch = batch.to(device)
        logits: Tensor = model(batch.tokens, batch.lengths)
        loss = F.cross_entropy(logits, batch.labels, reduction="sum") / n
        loss.backward()
        total += loss.item()
    if max_grad_norm is not None:
        nn.utils.clip_grad_norm_(trained, max_grad_norm)
    optimizer.step()
    return total


def sample(examples: Examples, training: TrainingParams) -> Examples:
    """Return the texts of a split that evaluations during training look at.

    They are the same texts every time: `training.eval_examples` of them, drawn once.
    """
    limit = training.eval_examples
    if limit is None or limit >= len(examples):
        return examples
    chosen = np.random.default_rng(training.seed).permutation(len(examples))[:limit]
    return examples.take(np.sort(chosen))


class Schedule:
    """Which texts each optimizer step sees, and at what learning rate.

    Args:
        training: Epochs, batch size, accumulation, seed and the rate's schedule.
        n: Texts of the training split.
    """

    def __init__(self, training: TrainingParams, n: int) -> None:
        self.training = training
        self.n = n
        passes = len(self._passes(0))
        self.steps_per_epoch = math.ceil(passes / training.gradient_accumulation_steps)
        self.steps = training.epochs * self.steps_per_epoch

    def _passes(self, epoch: int) -> list[np.typing.NDArray[np.int64]]:
        order = epoch_order(self.n, self.training.seed, epoch)
        return consecutive(order, self.training.batch_size, self.training.drop_last)

    def batches(self) -> Iterator[list[np.typing.NDArray[np.int64]]]:
        """Yield, for each optimizer step, the texts' indices of each of its forward passes."""
        group = self.training.gradient_accumulation_steps
        for epoch in range(self.training.epochs):
            passes = self._passes(epoch)
            for i in range(0, len(passes), group):
                yield passes[i : i + group]

    def factor(self, step: int) -> float:
        """Return the learning rate of 0-based `step` as a fraction of its peak."""
        training = self.training
        return rate_factor(step, self.steps, training.lr_scheduler, training.warmup_ratio)


class Clock:
    """Adds up the seconds spent in its `with` blocks, the device's queue included.

    Args:
        device: The device whose queued work belongs to the block.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._synchronize = {
            "cuda": torch.cuda.synchronize,
            "mps": torch.mps.synchronize,
        }.get(device.type, lambda: None)

    def __enter__(self) -> None:
        """Start counting."""
        self._start = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        """Stop counting."""
        self._synchronize()
        self.seconds += time.perf_counter() - self._start


def _stop_if_not_finite(loss: float, step: int, rate: float, texts: str) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"The loss is {loss}.",
            where=f"step {step}, learning rate {rate:g}, {texts}",
            expected="a finite number",
            kept="the outputs of the stages before this one",
            next="lower the method's learning_rate, or set training.max_grad_norm, in params.yaml",
        )
