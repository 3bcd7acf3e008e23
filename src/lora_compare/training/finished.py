"""What is kept of a stage's trainings in `.checkpoints/`, and how it becomes a method's folder.

A training's files lie in a folder whose name stands for all that its result depends on. A stage
that runs again takes from there what is finished, and goes on with what is not.
"""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_compare.errors import IntegrityError, MissingArtifactError
from lora_compare.models.methods import CONFIG_FILE, TENSORS_FILE
from lora_compare.params import Params
from lora_compare.project.checksums import SUMS, read_verified, seal, verified
from lora_compare.project.files import replacing_folder, sha256_of, storage_faults, write_json
from lora_compare.project.paths import Paths, seed_folder
from lora_compare.project.progress import Progress
from lora_compare.project.seeds import Seeds, save_seeds
from lora_compare.training.finetuning import Training
from lora_compare.training.resume import forget

RESULT, MODEL = "result.json", "model"
"""In the folder of a finished training: how it went, and the folder of what it changed."""


@dataclass(frozen=True)
class Shared:
    """What all trainings of a stage share.

    Attributes:
        paths: The project.
        params: Its parameters.
        stage: The stage of dvc.yaml that trains: `finetune`, or another.
        method: The name of the method in params.yaml.
    """

    paths: Paths
    params: Params
    stage: str
    method: str

    @property
    def folder(self) -> Path:
        """The folder of this stage's trainings, begun and finished."""
        return self.paths.checkpoints(f"{self.stage}@{self.method}")


@dataclass(frozen=True)
class Finished:
    """A training that has ended.

    Attributes:
        training: The training.
        folder: Where its files lie; `model` in it is a folder of `save_method`, where it was kept.
        history: The rows of its history by column, the first before any step.
        cost: Its cost figures; of a training that diverged, none.
        validation_loss: Mean cross-entropy in nats of the kept weights over the whole validation
            split; infinite if it diverged.
        validation_accuracy: Fraction of that split that they classify rightly; None likewise.
        diverged: Whether a loss was not finite.
    """

    training: Training
    folder: Path
    history: list[dict[str, float]]
    cost: dict[str, Any]
    validation_loss: float
    validation_accuracy: float | None
    diverged: bool


@dataclass(frozen=True)
class Job:
    """A training as its process gets it.

    Attributes:
        shared: What it shares with others.
        training: The training.
        facts: All that its result depends on, as a JSON value.
        keep_model: Whether to keep what it changes.
        may_diverge: Whether a loss that is not finite is a result, not a mistake.
        is_first: Whether it is the one that says how long it will take.
        side_by_side: How many trainings share the machine.
    """

    shared: Shared
    training: Training
    facts: Mapping[str, Any]
    keep_model: bool
    may_diverge: bool
    is_first: bool = True
    side_by_side: int = 1

    @property
    def description(self) -> str:
        """What it is, in words."""
        return f"{self.shared.stage} {self.shared.method}, {self.training.name}"

    @property
    def folder(self) -> Path:
        """Where its files lie once it is finished."""
        return self.shared.folder / self._name(self.facts)

    @property
    def checkpoint(self) -> Path:
        """The file of its last state until then, of several processes the folder."""
        suffix = ".safetensors" if self.training.training.strategy == "single" else ".shards"
        return self.shared.folder / (self._name(self.lasting_facts) + suffix)

    @property
    def lasting_facts(self) -> Mapping[str, Any]:
        """What its state until then depends on: others than those who began may go on."""
        if self.training.training.strategy == "single":
            return self.facts
        facts = {key: value for key, value in self.facts.items() if key != "threads"}
        settings = facts["training"]
        return facts | {"training": {k: v for k, v in settings.items() if k != "devices"}}

    def _name(self, facts: Mapping[str, Any]) -> str:
        return f"seed-{self.training.seed}-{sha256_of(facts)[:16]}"


def mark_finished(job: Job, result: Mapping[str, Any]) -> None:
    """Keep how a training has gone; from then on it is finished.

    Args:
        job: The training; its model, where it is kept, lies in its folder.
        result: Its `history`, `cost`, `validation_loss` and `validation_accuracy`.
    """
    write_json(job.folder / RESULT, result)
    seal(job.folder)  # its presence is the mark
    forget(job.checkpoint)


def read_finished(job: Job, progress: Progress) -> Finished | None:
    """Return a training that has ended, from its folder; None: it has not, or is damaged."""
    if not (job.folder / SUMS).is_file():
        return None
    try:
        result = json.loads(read_verified(job.folder / RESULT, job.shared.stage))
        if job.keep_model:
            for name in (CONFIG_FILE, TENSORS_FILE):
                verified(job.folder / MODEL / name, job.shared.stage)
    except (IntegrityError, MissingArtifactError) as error:
        progress.say(f"{job.description} is trained again: {error.what}")
        shutil.rmtree(job.folder)
        return None
    loss = result["validation_loss"]
    diverged = loss is None
    return Finished(
        job.training,
        job.folder,
        result["history"],
        result["cost"],
        math.inf if diverged else loss,
        result["validation_accuracy"],
        diverged,
    )


def publish(shared: Shared, finished: Sequence[Finished]) -> Seeds:
    """Make the folder of a method's trained models, and choose the one to use.

    Args:
        shared: What they share.
        finished: Trainings whose models are kept, one for each seed.
    """
    with replacing_folder(shared.paths.model(shared.method)) as new:
        for one in finished:
            _link(one.folder / MODEL, new / seed_folder(one.training.seed))
        losses = {one.training.seed: one.validation_loss for one in finished}
        return save_seeds(new, losses, in_folds=finished[0].training.fold is not None)


def _link(folder: Path, new: Path) -> None:
    """Let a folder have the files of another, where that is possible without taking room."""
    new.mkdir()
    for file in sorted(folder.glob("[!.]*")):
        try:
            os.link(file, new / file.name)
        except OSError:  # a file system without links, or another one
            with storage_faults(new / file.name, file.stat().st_size):
                shutil.copyfile(file, new / file.name)


def clear(shared: Shared, finished: Sequence[Finished]) -> None:
    """Delete what is kept of trainings that the stage has not named, or whose method is gone.

    Args:
        shared: What they share.
        finished: All trainings that the stage has named.
    """
    named = {one.folder for one in finished}
    for path in shared.folder.glob("*"):
        if path not in named:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for folder in shared.paths.checkpoints().glob(f"{shared.stage}@*/"):
        if folder.name.partition("@")[2] not in shared.params.methods:
            shutil.rmtree(folder)


def mean_cost(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the cost figures of a training of a method, from all its trainings.

    What differs between them is averaged, but for the most memory and the most trainings at a
    time, of which the largest counts.

    Args:
        costs: The content of a cost file for each training.
    """
    return {key: _typical(key, [cost[key] for cost in costs]) for key in costs[0]}


def _typical(key: str, values: Sequence[Any]) -> Any:
    if all(value == values[0] for value in values):
        return values[0]
    if key in ("peak_memory_bytes", "side_by_side"):
        return max(values)
    mean = math.fsum(values) / len(values)
    return round(mean) if isinstance(values[0], int) else round(mean, 6)
