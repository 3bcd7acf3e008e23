"""What a trained classifier answers on every split, and what is known of it beside that."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare import lora
from lora_compare.compute.device import choose_machine
from lora_compare.evaluation.merging import merge_error
from lora_compare.evaluation.results import size_figures
from lora_compare.models.answers.targets import ONE_CLASS, Targets
from lora_compare.models.base import load_base
from lora_compare.models.batches import Examples
from lora_compare.models.methods import CONFIG_FILE, TENSORS_FILE, load_method
from lora_compare.params import TrainingParams
from lora_compare.project.files import read_json
from lora_compare.project.progress import Progress


@dataclass(frozen=True)
class Answers:
    """What one trained classifier answers.

    Attributes:
        classes: Names of the classes.
        chances: For each split the classes' probabilities, shape (n, n_classes).
        sizes: Its figures of `size_figures`.
        truncated: For each split the number of texts that were cut.
        truncated_tokens: For each split the share of its tokens that this took away.
        cut: Whether each text of the test split was cut, shape (n_test,).
        merge_error: What merging its adapter changes, as of `merge_error`; None without one.
        targets: What the probabilities are of.
    """

    classes: list[str]
    chances: dict[str, npt.NDArray[np.float64]]
    sizes: dict[str, Any]
    truncated: dict[str, int]
    truncated_tokens: dict[str, float]
    cut: npt.NDArray[np.bool_]
    merge_error: dict[str, float] | None
    targets: Targets = ONE_CLASS


def answer(
    folder: Path,
    base: Path,
    stage: str,
    splits: Mapping[str, Examples],
    training: TrainingParams,
    progress: Progress,
) -> Answers:
    """Return what the classifier in a folder of `save_method` answers, its adapter merged.

    Args:
        folder: The folder.
        base: That of the model that it was trained from.
        stage: The stage that wrote it, for error messages.
        splits: Whole texts.
        training: Device and precision.
        progress: Where to report.

    Raises:
        UserError: As `load_method`.
    """
    loaded = load_base(base)
    classifier = load_method(folder, loaded, stage)
    machine = choose_machine(training, loaded.width)
    classifier.model.to(machine.device)
    error = None
    if lora.active_adapter(classifier.model) is not None:
        error = merge_error(classifier, splits["validation"])
    chances = {
        name: classifier.chances(texts, progress, machine.dtype) for name, texts in splits.items()
    }
    config = read_json(folder / CONFIG_FILE)
    size = (folder / TENSORS_FILE).stat().st_size
    return Answers(
        classifier.classes,
        chances,
        size_figures(config["trainable_parameters"], config["total_parameters"], size),
        {name: classifier.fit(texts)[1] for name, texts in splits.items()},
        {name: classifier.lost(texts) for name, texts in splits.items()},
        classifier.is_cut(splits["test"]),
        error,
        classifier.targets,
    )


def of_all(
    answers: Sequence[Answers], right: Sequence[npt.NDArray[np.bool_]], in_folds: bool = False
) -> dict[str, Any]:
    """Return what is known of all classifiers of a method beside their answers.

    They are of one size; of their errors of merging the largest counts.

    Args:
        answers: What each classifier answers.
        right: For each of them whether its answer to each test message is right, shape (n_test,).
        in_folds: Whether each has test messages of its own, which count together then.
    """
    first = answers[0]
    cut, lost = dict(first.truncated), dict(first.truncated_tokens)
    is_cut, mean = first.cut, np.concatenate(right) if in_folds else np.mean(right, axis=0)
    if in_folds:
        cut["test"] = sum(own.truncated["test"] for own in answers)
        lost["test"] = math.fsum(own.truncated_tokens["test"] for own in answers) / len(answers)
        is_cut = np.concatenate([own.cut for own in answers])
    facts: dict[str, Any] = {**first.sizes, "truncated": cut, "truncated_tokens": lost}
    if is_cut.any():
        parts = {"cut": mean[is_cut], "whole": mean[~is_cut]}
        facts["truncated_accuracy"] = {n: float(m.mean()) for n, m in parts.items() if len(m)}
    if first.merge_error:
        errors = [own.merge_error or {} for own in answers]
        facts["merge_error"] = {key: max(e[key] for e in errors) for key in first.merge_error}
    return facts
