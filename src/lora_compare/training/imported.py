"""A method that was trained elsewhere: an adapter that `lora-compare import` has converted."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lora_compare import lora
from lora_compare.compute.device import Machine
from lora_compare.errors import CheckpointError, ParamsError
from lora_compare.models.answers.targets import targets_of
from lora_compare.models.base import Base, load_base
from lora_compare.models.batches import Examples
from lora_compare.models.classifier import (
    TextClassifier,
    longest_text,
    loss_and_accuracy,
    predict_logits,
)
from lora_compare.models.methods import (
    CONFIG_FILE,
    TENSORS_FILE,
    Trained,
    identity,
    restore,
    save_method,
)
from lora_compare.models.tokens import read_examples
from lora_compare.params import MethodParams, TrainingParams
from lora_compare.project.corpus import read_classes
from lora_compare.project.files import read_json, sha256
from lora_compare.project.paths import require
from lora_compare.training.finetuning import Training
from lora_compare.training.finished import MODEL, Finished, Shared
from lora_compare.training.history import Evaluation, sample
from lora_compare.training.meters import cost_figures
from lora_compare.training.trainings import Show

BEFORE = "adapter_model.safetensors"
"""What earlier versions kept of an import: PEFT's own file."""


def adopt(
    folder: Path,
    method: MethodParams,
    base: Base,
    classes: list[str],
    splits: Mapping[str, Examples],
    training: TrainingParams,
    seed: int,
    device: torch.device,
) -> tuple[TextClassifier, Evaluation, Trained, lora.Count]:
    """Return an imported method as one that was trained here, with its one evaluation.

    Args:
        folder: What the import wrote, in the format of `save_method`.
        method: The method, with `trainable: imported`.
        base: The model that it adapts; its network becomes part of the result.
        classes: Names of the classes.
        splits: `train` and `validation`, not cut yet.
        training: Longest text and the size of the evaluation.
        seed: Seed of the choice of the evaluation's texts.
        device: Where to evaluate; the result stays there.

    Returns:
        The classifier; its evaluation; what was trained elsewhere; and the numbers of
        parameters as PEFT counts them, with one A where there are three here.

    Raises:
        CheckpointError: The adapter is missing, is not the one of params.yaml, or does not fit.
        ParamsError: `method.classes` are not the classes.
    """
    config = _verified(folder, method, base)
    order = head_order(classes, method.classes or config["classes"])
    stored = restore(config, folder / TENSORS_FILE, base)
    with torch.no_grad():
        for name in ("weight", "bias"):
            if (rows := getattr(stored.model.output, name, None)) is not None:
                rows.copy_(rows[order])
    limit = longest_text(base, training.max_length)
    classifier = replace(
        stored,
        classes=classes,
        max_length=limit,
        truncation=training.truncation,
        targets=targets_of(splits["train"].labels),
    )
    classifier.model.to(device)
    row = _evaluate(classifier, splits, training, seed)
    count = lora.Count(config["trainable_parameters"], config["total_parameters"])
    return classifier, row, Trained.of_config(config), count


def take_over(shared: Shared, machine: Machine, show: Show = lambda row: None) -> Finished:
    """Return an imported method as the one training of its method, with the first of all seeds.

    Args:
        shared: The project, its parameters and the method's name.
        machine: Where to evaluate.
        show: Called with the row of its history.

    Raises:
        UserError: As `adopt`.
    """
    paths, params = shared.paths, shared.params
    seed, method = params.training.seeds[0], params.method(shared.method)
    assert method.adapter is not None
    base = load_base(paths.base)
    classes = read_classes(require(paths.classes, "split"))
    splits = {name: read_examples(paths.tokens(name)) for name in ("train", "validation")}
    classifier, row, trained, count = adopt(
        paths.root / method.adapter,
        method,
        base,
        classes,
        splits,
        params.training,
        seed,
        machine.device,
    )
    show({"seed": seed, **row.to_dict()})
    whole, _ = classifier.fit(splits["validation"])
    logits = predict_logits(classifier.model, whole)
    loss, accuracy = loss_and_accuracy(logits, whole.labels)
    classifier = classifier.decided_by(logits, whole.labels)
    save_method(shared.folder / MODEL, classifier, trained, seed, base, count)
    training = Training("imported", method, seed, params.training)
    cost = cost_figures(0.0, 0, 0, machine)
    return Finished(training, shared.folder, [row.to_dict()], cost, loss, accuracy, diverged=False)


def head_order(classes: Sequence[str], rows: Sequence[str]) -> list[int]:
    """Return the row of an imported head for each class.

    Args:
        classes: The data's classes.
        rows: Their names in the order of the head's rows.

    Raises:
        ParamsError: These are not the same names.
    """
    if sorted(classes) != sorted(rows):
        raise ParamsError(
            "These are not the classes of the data.",
            where="classes",
            expected=f"{', '.join(classes)}, each once, in the order of the adapter's head",
            actual=", ".join(rows),
            next="name exactly these: --classes of lora-compare import, or the method's classes",
        )
    return [list(rows).index(name) for name in classes]


def _evaluate(
    classifier: TextClassifier,
    splits: Mapping[str, Examples],
    training: TrainingParams,
    seed: int,
) -> Evaluation:
    figures = []
    for name in ("train", "validation"):
        examples, _ = classifier.fit(splits[name])
        watched = sample(examples, training, seed)
        logits = predict_logits(classifier.model, watched)
        figures.append(loss_and_accuracy(logits, watched.labels))
    return Evaluation(0, 0.0, 0.0, *figures[0], *figures[1])


def _verified(folder: Path, method: MethodParams, base: Base) -> dict[str, Any]:
    """Return the adapter's settings; refuse other files, and another base than at the import."""
    wanted = {TENSORS_FILE: method.sha256, CONFIG_FILE: method.config_sha256}
    for name, expected in wanted.items():
        if not (folder / name).is_file():
            raise _missing(folder / name)
        actual = sha256(folder / name)
        if expected != actual:
            raise _refusal(folder / name, f"sha256 {expected}", f"sha256 {actual}")
    config: dict[str, Any] = read_json(folder / CONFIG_FILE)
    if config["base"] != (current := identity(base)):
        raise _refusal(folder / CONFIG_FILE, f"base model {config['base']}", f"{current}")
    return config


def _missing(path: Path) -> CheckpointError:
    if (path.parent / BEFORE).exists():
        return CheckpointError(
            "The adapter was imported by an earlier version, in another format.",
            where=str(path.parent),
            expected=f"{TENSORS_FILE} and {CONFIG_FILE}, as lora-compare import writes them",
            actual=f"{BEFORE}, as PEFT wrote it",
            next="move the folder elsewhere, remove the method from params.yaml, and import it\n"
            f"again: lora-compare import FOLDER --name {path.parent.name}",
        )
    adapter = f"inputs/adapters/{path.parent.name}"
    return CheckpointError(
        "The imported adapter is not here.",
        where=str(path),
        expected="what lora-compare import wrote into the project",
        actual="nothing",
        next=f"dvc pull, if there is {adapter}.dvc; or import it again.\n"
        f"dvc add {adapter} and git add {adapter}.dvc take it along to experiments and clones",
    )


def _refusal(path: Path, expected: str, actual: str) -> CheckpointError:
    return CheckpointError(
        "The imported adapter is not the one that was checked.",
        where=str(path),
        expected=expected,
        actual=actual,
        next="remove the method from params.yaml and its folder, and import it again:\n"
        "  lora-compare import PATH --name NAME",
    )
