"""One method from the base model to a trained classifier, with one seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lora_compare.compute.device import Machine
from lora_compare.compute.optimizers import Rates
from lora_compare.compute.precision import lower_frozen
from lora_compare.compute.ranks import ALONE, Ranks
from lora_compare.compute.seeding import throw_own_dice
from lora_compare.errors import ParamsError
from lora_compare.models.batches import Examples
from lora_compare.models.classifier import TextClassifier, start
from lora_compare.models.losses import is_recorded
from lora_compare.models.methods import Trained, choose_trainable
from lora_compare.models.network import Base, Network
from lora_compare.params import ClassifierParams, MethodParams, TrainingParams
from lora_compare.project.progress import Progress
from lora_compare.training.history import NOBODY, Reporting, TrainingResult
from lora_compare.training.loop import train
from lora_compare.training.ranks.strategies import shard
from lora_compare.training.resume import Checkpoints


@dataclass(frozen=True)
class Training:
    """One training of a method.

    Attributes:
        name: What users see of it beside the method's name: `seed 3`, or `trial 2, seed 101`.
        method: What is trained, and how fast.
        seed: Seed of the head's initial weights, of adapters, batches and dropout.
        training: What all methods share.
        fold: The fold on whose messages it is trained; None where there is one split.
    """

    name: str
    method: MethodParams
    seed: int
    training: TrainingParams
    fold: int | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """All of it that its result depends on, as a JSON value."""
        own = {
            "training": self.training.model_dump(exclude={"checkpoint_every", "seeds"}),
            "method": self.method.model_dump(),
            "seed": self.seed,
        }
        return own if self.fold is None else own | {"fold": self.fold}


def finetune(
    base: Base,
    classes: list[str],
    splits: Mapping[str, Examples],
    classifier: ClassifierParams,
    training: Training,
    machine: Machine,
    reporting: Reporting = NOBODY,
    checkpoints: Checkpoints | None = None,
    ranks: Ranks = ALONE,
) -> tuple[TextClassifier, TrainingResult]:
    """Return a classifier trained by one method, and how the training went.

    Args:
        base: The model to start from; its network is trained in place.
        classes: Names of the classes.
        splits: `train` and `validation`, not cut yet.
        classifier: The head.
        training: What is trained, how, and with which seed.
        machine: Where to train, and in what arithmetic; the result stays there.
        reporting: What to tell meanwhile.
        checkpoints: Where its state is kept, from which it goes on; None: nowhere.
        ranks: Who trains; all of them call it alike.

    Raises:
        Interrupted: A signal asked for the end; a checkpoint is kept.
        ParamsError: The method does not fit the model.
        TrainingError: The loss is not finite, or memory ran out.
    """
    method, shared, seed = training.method, training.training, training.seed
    progress = reporting.progress
    result = start(base, classes, splits["train"], classifier, shared, seed)
    choose_trainable(result.model, Trained.of(method), seed)
    _prepare(result.model, shared, machine, progress, ranks)
    throw_own_dice(seed, ranks.rank)
    fitted = {name: result.fit(splits[name]) for name in ("train", "validation")}
    if cut := sum(number for _, number in fitted.values()):
        progress.say(f"{cut} messages were cut at {result.max_length} tokens")
    (seen, _), (watched, _) = fitted["train"], fitted["validation"]
    rates, dtype = _rates(method), machine.dtype
    kept = checkpoints, ranks
    how = train(result.model, seen, watched, shared, rates, seed, dtype, reporting, *kept)
    return result, how


def _rates(method: MethodParams) -> Rates:
    assert method.learning_rate is not None, "an imported method is not trained"
    assert method.weight_decay is not None
    ratio = method.lora.loraplus_lr_ratio if method.lora else None
    return Rates(method.learning_rate, method.weight_decay, ratio)


def _prepare(
    model: Network, training: TrainingParams, machine: Machine, progress: Progress, ranks: Ranks
) -> None:
    """Make ready a classifier whose trained parameters are chosen, in place."""
    lower_frozen(model, machine.dtype, keep=model.head_modules())
    if ranks.strategy == "fsdp":
        shard(model, machine.device, machine.dtype)
    else:
        model.to(machine.device)
    model.checkpointing = training.gradient_checkpointing
    if training.compile:
        progress.say("compile: the first steps take longer")
    if training.compile and not is_recorded(training, machine.device):
        require_compiler(machine.device)
        model.compile_blocks()
    if not any(p.requires_grad for head in model.head_modules() for p in head.parameters()):
        progress.say("the head keeps its random weights: adapt score, or put it in modules_to_save")


def require_compiler(device: torch.device) -> None:
    """Compile one sum, so that a missing compiler shows before the training.

    Args:
        device: Where the training is to run.

    Raises:
        ParamsError: This machine lacks what torch compiles with.

    Checked by tests/unit/training/test_finetuning.py.
    """
    from torch._dynamo.exc import BackendCompilerFailed

    try:
        torch.compile(torch.add)(torch.ones(2, device=device), 1)
    except BackendCompilerFailed as error:
        raise ParamsError(
            "Nothing can be compiled here.",
            where="params.yaml: training.compile",
            expected="a C++ compiler and Python's headers (on Debian and Ubuntu: g++, python3-dev)",
            actual=str(error).strip().splitlines()[0],
            next="install them, or set training.compile: false in params.yaml",
        ) from error
