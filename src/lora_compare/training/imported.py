"""A method that was trained elsewhere: an adapter that `lora-compare import` has converted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lora_compare import lora
from lora_compare.errors import CheckpointError, ParamsError
from lora_compare.models.base import Base
from lora_compare.models.batches import Examples
from lora_compare.models.classifier import (
    TextClassifier,
    longest_text,
    loss_and_accuracy,
    predict_logits,
)
from lora_compare.models.methods import CONFIG_FILE, TENSORS_FILE, Trained, identity, restore
from lora_compare.params import MethodParams, TrainingParams
from lora_compare.project.files import read_json, sha256
from lora_compare.training.history import Evaluation, sample
from lora_compare.training.loop import TrainingResult

BEFORE = "adapter_model.safetensors"
"""What earlier versions kept of an import: PEFT's own file."""


def adopt(
    folder: Path,
    method: MethodParams,
    base: Base,
    classes: list[str],
    splits: Mapping[str, Examples],
    training: TrainingParams,
    device: torch.device,
    on_evaluation: Callable[[Evaluation], None] = lambda row: None,
) -> tuple[TextClassifier, TrainingResult, Trained, lora.Count]:
    """Return an imported method as one that was trained here, with its one evaluation.

    Args:
        folder: What the import wrote, in the format of `save_method`.
        method: The method, with `trainable: imported`.
        base: The model that it adapts; its network becomes part of the result.
        classes: Names of the classes.
        splits: `train` and `validation`, not cut yet.
        training: Seed, longest text and the size of the evaluation.
        device: Where to evaluate; the result stays there.
        on_evaluation: Called with the row of the history.

    Returns:
        The classifier; a training of no step; what was trained elsewhere; and the numbers of
        parameters as PEFT counts them, with one A where there are three here.

    Raises:
        CheckpointError: The adapter is missing, is not the one of params.yaml, or does not fit.
        ParamsError: `method.classes` are not the classes.
    """
    config = _verified(folder, method, base)
    order = head_order(classes, method.classes or config["classes"])
    stored = restore(config, folder / TENSORS_FILE, base)
    with torch.no_grad():
        head = stored.model.score.weight
        head.copy_(head[order])
    limit = longest_text(base, training.max_length)
    classifier = replace(stored, classes=classes, max_length=limit)
    classifier.model.to(device)
    result = TrainingResult([_evaluate(classifier, splits, training)], 0.0, 0, 0)
    on_evaluation(result.history[0])
    count = lora.Count(config["trainable_parameters"], config["total_parameters"])
    return classifier, result, Trained.of_config(config), count


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
    classifier: TextClassifier, splits: Mapping[str, Examples], training: TrainingParams
) -> Evaluation:
    figures = []
    for name in ("train", "validation"):
        examples, _ = classifier.fit(splits[name])
        watched = sample(examples, training)
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
