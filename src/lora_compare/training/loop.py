"""The one training loop: full fine-tuning, LoRA and everything between."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import astuple
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from lora_compare.compute.optimizers import MasterAdamW, Rates
from lora_compare.compute.precision import trained_in_float32
from lora_compare.compute.ranks import ALONE, Ranks, local
from lora_compare.compute.seeding import random_states, restore_random_states
from lora_compare.lora import parameter_groups
from lora_compare.models.batches import Batch, Examples, collate
from lora_compare.models.losses import Passes, RecordedLoss, is_recorded
from lora_compare.models.network import Network
from lora_compare.params import TrainingParams
from lora_compare.training.embeddings import Rest, seen_rows
from lora_compare.training.history import (
    NOBODY,
    Evaluation,
    Evaluations,
    Forecast,
    Reporting,
    TrainingResult,
    sample,
)
from lora_compare.training.meters import Clock, Losses, Meter, naming_memory
from lora_compare.training.ranks.steps import amount, deal, optimizer_step
from lora_compare.training.ranks.strategies import SharedModel, on_cpu
from lora_compare.training.resume import Checkpoints
from lora_compare.training.schedule import Schedule, balanced_weights


def train(
    model: Network,
    train_examples: Examples,
    validation_examples: Examples,
    training: TrainingParams,
    rates: Rates,
    seed: int,
    dtype: torch.dtype = torch.float32,
    reporting: Reporting = NOBODY,
    checkpoints: Checkpoints | None = None,
    ranks: Ranks = ALONE,
) -> TrainingResult:
    """Train the parameters of `model` that require a gradient, in place.

    The same loop serves every method: what differs is which parameters require a gradient.

    Args:
        model: The classifier, on the device where it shall be trained.
        train_examples: The texts to learn from.
        validation_examples: The texts to watch; they change nothing but, where `training` asks
            for it, the training's end and the evaluation whose weights it leaves.
        training: What all methods share.
        rates: The method's optimizer settings.
        seed: Seed of the texts' order and of the choice of those that are watched.
        dtype: Type of the arithmetic, as in `predict_logits`; what is trained stays as it is.
        reporting: What to tell meanwhile.
        checkpoints: Where its state is kept; it goes on from one of the same facts. None:
            nowhere.
        ranks: Who trains; with `fsdp` the model is sharded. All of them call it alike.

    Raises:
        Interrupted: A signal asked for the end; a checkpoint is kept.
        DivergenceError: The loss of a batch is not finite; the message names step and rate.
        TrainingError: Memory ran out.
    """
    schedule = Schedule(training, len(train_examples), seed)
    watched = [sample(e, training, seed) for e in (train_examples, validation_examples)]
    told = reporting.on_evaluation
    device = next(model.parameters()).device
    asked = dtype, schedule.steps_per_epoch, told, ranks, is_recorded(training, device)
    evaluations, losses = Evaluations(model, watched, *asked), Losses(device)
    checkpoints = checkpoints or Checkpoints()
    # Of several ranks autocast does what masters are for, and sharded rows need no sparing.
    masters_of = dtype if ranks.is_alone else torch.float32
    with (
        seen_rows(model, [train_examples, *watched], ranks.strategy != "fsdp") as embedding,
        trained_in_float32(model, masters_of, keep=model.head_modules()) as masters,
        reporting.progress.task(reporting.description, schedule.steps) as advance,
        ExitStack() as ending,
    ):
        shared = SharedModel(model, ranks, collate(train_examples.take([0])).texts)
        how = evaluations, train_examples, dtype, shared
        run = Run(model, schedule, rates, embedding, masters, *how)
        ending.callback(run.close)
        checkpoints.restore(run)
        advance(run.step)
        if not run.step:
            run.evaluate(run.next_rate)
        forecast = Forecast(run, reporting)
        run.clock.start()
        for groups in islice(schedule.batches(), run.step, None):
            if run.is_over:
                break
            rate = run.next_rate
            batches = [deal(train_examples, chosen, ranks) for chosen in groups]
            losses.add(run.take_step(batches), run.step, rate, groups)
            due = schedule.is_evaluated(run.step)
            if due or checkpoints.due():
                with run.clock.paused():
                    losses.check()
                    if due:
                        run.evaluate(rate)
                    checkpoints.after_step(run)
            forecast.after_step(evaluations.seconds)
            accuracy = evaluations.history[-1].validation_accuracy
            advance(1, f"loss {losses.last:.4f}, validation {accuracy:.1%}")
        run.clock.stop()
        forecast.end()
        run.end()
    meter = run.meter
    effort = run.clock.seconds, run.examples, run.tokens, meter.seconds, meter.state
    return TrainingResult(evaluations.history, *effort)


class Run:
    """A training between two steps: all that changes as it goes on.

    Args:
        model: The classifier.
        schedule: The learning rate over time.
        rates: The method's optimizer settings.
        embedding: What happens to the rows that no text looks up.
        masters: What is trained in the place of parameters that the model holds in bfloat16.
        evaluations: The history.
        examples: The training split.
        dtype: Type of the arithmetic.
        shared: The model as its ranks train it.

    Attributes:
        step: Optimizer steps done.
        examples: Texts seen.
        tokens: Tokens seen.
        clock: The time of the steps.
        meter: The time and the tensors of single steps.
        schedule: The learning rate over time.
    """

    def __init__(
        self,
        model: Network,
        schedule: Schedule,
        rates: Rates,
        embedding: Rest,
        masters: Mapping[nn.Parameter, nn.Parameter],
        evaluations: Evaluations,
        examples: Examples,
        dtype: torch.dtype,
        shared: SharedModel,
    ) -> None:
        self.step = self.examples = self.tokens = 0
        self.clock = Clock(next(model.parameters()).device)
        self._model, self.schedule, self._rates = model, schedule, rates
        self._shared = shared
        self._embedding, self._evaluations = embedding, evaluations
        training, lengths = schedule.training, examples.lengths
        self._arithmetic = dtype, balanced_weights(model, examples, training)
        device, how = next(model.parameters()).device, (int(lengths.max()), *self._arithmetic)
        self._recorded = RecordedLoss(model, *how) if is_recorded(training, device) else None
        self._best: dict[str, Tensor] = {}
        self._best_decay = 1.0
        self._optimizer = MasterAdamW(parameter_groups(model, *astuple(rates)), masters)
        self._counted = schedule.longest_step(lengths)
        self.meter = Meter(model, self._optimizer, embedding.parked, self._counted)
        self._scheduler = LambdaLR(self._optimizer, schedule.factor)
        trained = ((n, p) for n, p in model.named_parameters() if p.requires_grad)
        self._trained = {name: masters.get(p, p) for name, p in trained}

    @property
    def next_rate(self) -> float:
        """The learning rate of the next step."""
        return self._rates.learning_rate * self.schedule.factor(self.step)

    @property
    def is_over(self) -> bool:
        """Whether it has had its patience with evaluations that are no better, and every text."""
        patience = self.schedule.training.patience
        if patience is None or self.step < self.schedule.steps_per_epoch:
            return False
        return self._evaluations.since_best >= patience

    def take_step(self, batches: list[Batch]) -> Tensor:
        """Do one optimizer step, as `optimizer_step` does, and return its loss, shape ()."""
        passes: Passes | None = self._recorded
        if self._recorded is not None and self.step == self._counted:
            passes = self._recorded.unrecorded  # tensors are counted as Python makes them
        limit = self.schedule.training.max_grad_norm
        all_ranks = amount(batches, self._arithmetic[1], self._shared.ranks)
        how = limit, *self._arithmetic, passes, self._shared, all_ranks.weight
        with naming_memory(self.step + 1, batches), self.meter.step(self.step):
            loss = optimizer_step(self._model, batches, self._optimizer, *how)
        self._scheduler.step()
        self._embedding.decay(1 - self.next_rate * self._rates.weight_decay)
        self.step += 1
        self.examples += all_ranks.texts
        self.tokens += all_ranks.tokens
        return loss

    def evaluate(self, rate: float) -> None:
        """Look at the model after a step at the rate `rate`, and keep it if it is to be kept."""
        self._evaluations.add(self.step, rate)
        if self.schedule.training.keep == "best" and not self._evaluations.since_best:
            # Not on the device, whose memory the training fills.
            self._best = {name: on_cpu(p) for name, p in self._trained.items()}
            self._best_decay = self._embedding.factor

    def close(self) -> None:
        """Give back what only steps need, however the training ends."""
        if self._recorded is not None:
            self._recorded.close()

    def end(self) -> None:
        """Leave the model with the weights that it shall have."""
        if self._best:
            with torch.no_grad():
                for name, parameter in self._trained.items():
                    local(parameter).copy_(local(self._best[name]))
            self._embedding.factor = self._best_decay
            self._optimizer.lower()

    def tensors(self) -> dict[str, Tensor]:
        """Return the trained parameters, the optimizer's state of them, and the dice."""
        result = {f"parameter.{name}": p.detach() for name, p in self._trained.items()}
        for name, parameter in self._trained.items():
            for key, tensor in self._optimizer.state[parameter].items():
                result[f"{key}.{name}"] = tensor
        result |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        return result | {f"random.{name}": state for name, state in random_states().items()}

    def figures(self) -> dict[str, Any]:
        """Return counts, times and the history, as a JSON value."""
        return {
            "counts": [self.step, self.examples, self.tokens],
            "seconds": self.clock.seconds,
            "steps": self.meter.seconds,
            "state": self.meter.state,
            "rates": [group["lr"] for group in self._optimizer.param_groups],
            "decay": self._embedding.factor,
            "best_decay": self._best_decay,
            "history": [row.to_dict() for row in self._evaluations.history],
        }

    def restore(self, tensors: Mapping[str, Tensor], figures: Mapping[str, Any]) -> None:
        """Take over what `tensors` and `figures` returned."""
        self.step, self.examples, self.tokens = figures["counts"]
        self.clock.seconds = figures["seconds"]
        self.meter.seconds, self.meter.state = figures["steps"], figures["state"]
        self._embedding.factor, self._best_decay = figures["decay"], figures["best_decay"]
        self._evaluations.restore([Evaluation(**row) for row in figures["history"]])
        self._best = _below("best.", tensors)
        kinds = {key.partition(".")[0] for key in tensors} - {"parameter", "best", "random"}
        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(tensors[f"parameter.{name}"])
                self._optimizer.state[parameter] = {
                    kind: tensors[f"{kind}.{name}"].to(parameter.device)
                    for kind in kinds
                    if f"{kind}.{name}" in tensors
                }
        self._optimizer.lower()
        self._scheduler.last_epoch = self.step
        for group, rate in zip(self._optimizer.param_groups, figures["rates"], strict=True):
            group["lr"] = rate
        restore_random_states(_below("random.", tensors))


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
