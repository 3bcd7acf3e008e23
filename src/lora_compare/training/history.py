"""What a training looks at on its way: losses and accuracies of some texts, row by row."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from lora_compare.models.batches import Examples
from lora_compare.models.classifier import loss_and_accuracy, predict_logits
from lora_compare.models.network import Classifier
from lora_compare.params import TrainingParams
from lora_compare.project.progress import SILENT, Progress
from lora_compare.training.meters import require_finite


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

    Attributes:
        history: The rows so far.
        seconds: What the last evaluation took; 0: there was none yet.
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
        self.seconds = 0.0
        self._model, self._watched, self._dtype = model, watched, dtype
        self._steps_per_epoch, self._on_evaluation = steps_per_epoch, on_evaluation

    def add(self, step: int, rate: float) -> None:
        """Evaluate the model as it is after `step` steps, the last at the rate `rate`.

        Raises:
            DivergenceError: A loss is not finite.
        """
        figures: list[float] = []
        start = time.perf_counter()
        for examples in self._watched:
            logits = predict_logits(self._model, examples, dtype=self._dtype)
            figures += loss_and_accuracy(logits, examples.labels)
        self.seconds = time.perf_counter() - start
        # A last step that ruins the weights has a finite loss before it; look after it too.
        require_finite(figures[0] + figures[2], step, rate, "the evaluation after it")
        self.history.append(Evaluation(step, step / self._steps_per_epoch, rate, *figures))
        self._on_evaluation(self.history[-1])

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
