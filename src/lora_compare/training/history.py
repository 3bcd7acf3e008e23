"""What a training looks at on its way: losses and accuracies of some texts, row by row."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from lora_compare.compute.ranks import ALONE, Ranks
from lora_compare.models.batches import Examples
from lora_compare.models.classifier import loss_and_accuracy, predict_logits
from lora_compare.models.network import Network
from lora_compare.params import TrainingParams
from lora_compare.project.progress import SILENT, Progress
from lora_compare.training.meters import require_finite

if TYPE_CHECKING:
    from lora_compare.training.loop import Run


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


def columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return the rows of a history as columns by name, for a CSV file."""
    return {name: [row[name] for row in rows] for name in rows[0]}


@dataclass(frozen=True)
class TrainingResult:
    """What a training left behind, beside the model's weights.

    Attributes:
        history: One row per evaluation, the first before any step.
        seconds: Time of the optimizer steps alone, without the evaluations between them.
        examples: Texts seen, repetitions counted.
        tokens: Tokens seen; the only padding among them is that of position `last_position`.
        steps: Seconds of single steps, as a `Meter` takes them.
        state: Bytes of the tensors in the step that holds most, as a `Meter` counts them.
    """

    history: list[Evaluation]
    seconds: float
    examples: int
    tokens: int
    steps: Sequence[float] = ()
    state: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Reporting:
    """What a training tells as it goes on, and to whom; nothing and nobody by default.

    Attributes:
        progress: Where to report.
        description: What the progress says is being done.
        on_evaluation: Called with every row of the history as soon as it is known.
        forecast: Whether to say how many steps there are and how long they will take.
    """

    progress: Progress = SILENT
    description: str = "train"
    on_evaluation: Callable[[Evaluation], None] = lambda row: None
    forecast: bool = True


NOBODY = Reporting()
"""Of a training that nobody watches."""


class Evaluations:
    """The history of a training as it grows.

    Args:
        model: The classifier that is trained.
        watched: The texts of train and of validation that are looked at.
        dtype: Type of the arithmetic, as in `predict_logits`.
        steps_per_epoch: Optimizer steps in a pass over the training split.
        on_evaluation: Called with every row.
        ranks: Who shares the texts.
        is_padded: As for `predict_logits`.

    Attributes:
        history: The rows so far.
        seconds: What the last evaluation took; 0: there was none yet.
    """

    def __init__(
        self,
        model: Network,
        watched: Sequence[Examples],
        dtype: torch.dtype,
        steps_per_epoch: int,
        on_evaluation: Callable[[Evaluation], None],
        ranks: Ranks = ALONE,
        is_padded: bool = False,
    ) -> None:
        self.history: list[Evaluation] = []
        self.seconds = 0.0
        self._watched = watched
        self._predict = partial(
            predict_logits, model, dtype=dtype, ranks=ranks, is_padded=is_padded
        )
        self._steps_per_epoch, self._on_evaluation = steps_per_epoch, on_evaluation

    def add(self, step: int, rate: float) -> None:
        """Evaluate the model as it is after `step` steps, the last at the rate `rate`.

        Raises:
            DivergenceError: A loss is not finite.
        """
        figures: list[float] = []
        start = time.perf_counter()
        for examples in self._watched:
            logits = self._predict(examples)
            figures += loss_and_accuracy(logits, examples.labels)
        self.seconds = time.perf_counter() - start
        # A last step that ruins the weights has a finite loss before it; look after it too.
        require_finite(figures[0] + figures[2], step, rate, "the evaluation after it")
        self.history.append(Evaluation(step, step / self._steps_per_epoch, rate, *figures))
        self._on_evaluation(self.history[-1])

    @property
    def since_best(self) -> int:
        """How many rows there are behind the one of the lowest validation loss, the first such."""
        losses = [row.validation_loss for row in self.history]
        return len(losses) - 1 - losses.index(min(losses))

    def restore(self, history: Sequence[Evaluation]) -> None:
        """Take over the rows of a training that was cut off, and tell them again."""
        self.history.extend(history)
        for row in history:
            self._on_evaluation(row)


def sample(examples: Examples, training: TrainingParams, seed: int) -> Examples:
    """Return the texts of a split that evaluations during training look at.

    They are the same texts every time: `training.eval_examples` of them, drawn once by the
    training's seed.
    """
    limit = training.eval_examples
    if limit is None or limit >= len(examples):
        return examples
    chosen = np.random.default_rng(seed).permutation(len(examples))[:limit]
    return examples.take(np.sort(chosen))


FORECAST_AFTER = 10
"""Steps after which a training says how long the rest will take."""


class Forecast:
    """How long a training will take: its steps at once, the time of the rest after some of them.

    Args:
        run: The training, before its first step here.
        reporting: Where to say it.
    """

    def __init__(self, run: "Run", reporting: Reporting) -> None:
        self._run, self._reporting = run, reporting
        # Not 0 where the training was cut off before.
        self._first, self._before = run.step, run.clock.seconds
        up_to = "" if run.schedule.training.patience is None else "up to "
        self._forecast(f"{up_to}{run.schedule.steps - run.step:,} steps")

    def _say(self, what: str) -> None:
        self._reporting.progress.say(f"{self._reporting.description}: {what}")

    def _forecast(self, what: str) -> None:
        if self._reporting.forecast:
            self._say(what)

    def after_step(self, evaluation: float) -> None:
        """Say it when it is time.

        Args:
            evaluation: Seconds of an evaluation; 0: not known yet.
        """
        run = self._run
        if not run.step == self._first + FORECAST_AFTER < run.schedule.steps:
            return
        with run.clock.paused():
            step = (run.clock.seconds - self._before) / FORECAST_AFTER
            left = range(run.step + 1, run.schedule.steps + 1)
            rest = step * len(left) + evaluation * sum(map(run.schedule.is_evaluated, left))
            end = datetime.now().astimezone() + timedelta(seconds=rest)
            self._forecast(
                f"{step:.2g} s a step, about {timedelta(seconds=round(rest))} for the "
                f"{len(left):,} steps that are left, until {end:%Y-%m-%d %H:%M}"
            )

    def end(self) -> None:
        """Say where and why the training ended, if that was early."""
        run = self._run
        if run.step < run.schedule.steps:
            patience = run.schedule.training.patience
            self._say(
                f"ended early, after step {run.step:,} of {run.schedule.steps:,}: no lower "
                f"validation loss in {patience} evaluations"
            )
