"""The one training loop: full fine-tuning, LoRA and everything between."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_compare.batches import Batch, Examples, collate
from lora_compare.embeddings import seen_rows
from lora_compare.evaluation import loss_and_accuracy, predict_logits
from lora_compare.gpt import Classifier
from lora_compare.lora import parameter_groups
from lora_compare.optimizers import AdamW
from lora_compare.params import TrainingParams
from lora_compare.precision import computing_in
from lora_compare.progress import SILENT, Progress
from lora_compare.schedules import Schedule
from lora_compare.watch import Clock, Losses, require_finite


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
        tokens: Tokens seen; the only padding among them is that of position `last_position`.
    """

    history: list[Evaluation]
    seconds: float
    examples: int
    tokens: int


@dataclass(frozen=True)
class Rates:
    """The settings of AdamW that every method has of its own.

    Attributes:
        learning_rate: Its learning rate at the peak.
        weight_decay: Its decoupled weight decay.
        loraplus_lr_ratio: Rate of the adapters' B over that of A; None: the same.
    """

    learning_rate: float
    weight_decay: float
    loraplus_lr_ratio: float | None = None


def train(
    model: Classifier,
    train_examples: Examples,
    validation_examples: Examples,
    training: TrainingParams,
    rates: Rates,
    dtype: torch.dtype = torch.float32,
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
        rates: The method's optimizer settings.
        dtype: Type of the arithmetic, as in `predict_logits`; what is trained stays as it is.
        on_evaluation: Called with every row of the history as soon as it is known.
        progress: Where to report.
        description: What the progress says is being done.

    Raises:
        TrainingError: The loss of a batch is not finite; the message names step and rate.
    """
    schedule = Schedule(training, len(train_examples))
    watched = [sample(e, training) for e in (train_examples, validation_examples)]
    evaluations = Evaluations(model, watched, dtype, schedule.steps_per_epoch, on_evaluation)
    device = next(model.parameters()).device
    clock, losses = Clock(device), Losses(device)
    tokens = examples = 0
    with (
        seen_rows(model.gpt, [train_examples, *watched]) as embedding,
        progress.task(description, schedule.steps) as advance,
    ):
        optimizer = AdamW(parameter_groups(model, *astuple(rates)), fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
        evaluations.add(0, rates.learning_rate * schedule.factor(0))
        clock.start()
        for step, groups in enumerate(schedule.batches(), start=1):
            rate = rates.learning_rate * schedule.factor(step - 1)
            batches = [collate(train_examples.take(g)) for g in groups]
            loss = optimizer_step(model, batches, optimizer, training.max_grad_norm, dtype)
            scheduler.step()
            embedding.decay(1 - rate * rates.weight_decay)
            losses.add(loss, step, rate, groups)
            examples += sum(len(b.labels) for b in batches)
            tokens += sum(len(b.texts.tokens) for b in batches)
            if step % training.eval_every == 0 or step % schedule.steps_per_epoch == 0:
                with clock.paused():
                    losses.check()
                    evaluations.add(step, rate)
            accuracy = evaluations.history[-1].validation_accuracy
            advance(1, f"loss {losses.last:.4f}, validation {accuracy:.1%}")
        clock.stop()
    return TrainingResult(evaluations.history, clock.seconds, examples, tokens)


class Evaluations:
    """The history of a training as it grows.

    Args:
        model: The classifier that is trained.
        watched: The texts of train and of validation that are looked at.
        dtype: Type of the arithmetic, as in `predict_logits`.
        steps_per_epoch: Optimizer steps in a pass over the training split.
        on_evaluation: Called with every row.

    Attributes:
        history: The rows so far.
    """

    def __init__(
        self,
        model: Classifier,
        watched: Sequence[Examples],
        dtype: torch.dtype,
        steps_per_epoch: int,
        on_evaluation: Callable[[Evaluation], None],
    ) -> None:
        self.history: list[Evaluation] = []
        self._model, self._watched, self._dtype = model, watched, dtype
        self._steps_per_epoch, self._on_evaluation = steps_per_epoch, on_evaluation

    def add(self, step: int, rate: float) -> None:
        """Evaluate the model as it is after `step` steps, the last at the rate `rate`.

        Raises:
            TrainingError: A loss is not finite.
        """
        figures: list[float] = []
        for examples in self._watched:
            logits = predict_logits(self._model, examples, dtype=self._dtype)
            figures += loss_and_accuracy(logits, examples.labels)
        # A last step that ruins the weights has a finite loss before it; look after it too.
        require_finite(figures[0] + figures[2], step, rate, "the evaluation after it")
        self.history.append(Evaluation(step, step / self._steps_per_epoch, rate, *figures))
        self._on_evaluation(self.history[-1])


def optimizer_step(
    model: Classifier,
    batches: list[Batch],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Do one optimizer step over all texts of `batches` and return their mean loss, shape ().

    The loss is summed over the texts and divided once, so several small batches give the
    gradient of one large batch, also where they differ in size.

    Args:
        model: The classifier.
        batches: Forward passes that share this step.
        optimizer: Holds the parameters to change.
        max_grad_norm: Largest norm of the gradient over all of them; None: no limit.
        dtype: Type of the arithmetic, as in `predict_logits`.
    """
    model.train()
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    device = trained[0].device
    n = sum(len(batch.labels) for batch in batches)
    optimizer.zero_grad(set_to_none=True)
    losses = []
    for batch in batches:
        batch = batch.to(device)
        with computing_in(dtype, device):
            logits = model.of_packed(batch.texts)
        loss = F.cross_entropy(logits, batch.labels, reduction="sum") / n
        loss.backward()
        losses.append(loss.detach())
    if max_grad_norm is not None:
        nn.utils.clip_grad_norm_(trained, max_grad_norm)
    optimizer.step()
    return torch.stack(losses).sum()


def sample(examples: Examples, training: TrainingParams) -> Examples:
    """Return the texts of a split that evaluations during training look at.

    They are the same texts every time: `training.eval_examples` of them, drawn once.
    """
    limit = training.eval_examples
    if limit is None or limit >= len(examples):
        return examples
    chosen = np.random.default_rng(training.seed).permutation(len(examples))[:limit]
    return examples.take(np.sort(chosen))
