"""A method that was trained elsewhere: PEFT's adapter on this project's base."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from lora_compare import lora
from lora_compare.errors import CheckpointError
from lora_compare.exchange.peft.config import read_adapter
from lora_compare.exchange.peft.names import CONFIG_FILE, TENSORS_FILE
from lora_compare.exchange.peft.reading import Imported, from_peft
from lora_compare.models.base import Base
from lora_compare.models.batches import Examples
from lora_compare.models.classifier import TextClassifier, loss_and_accuracy, predict_logits
from lora_compare.models.methods import adapt, untuned
from lora_compare.params import ClassifierParams, MethodParams, TrainingParams
from lora_compare.project.files import read_json, sha256
from lora_compare.training.history import Evaluation, sample
from lora_compare.training.loop import TrainingResult

HEAD = ClassifierParams(position="last_token", bias=False)
"""The head of transformers' GPT2ForSequenceClassification."""

RECORD = "import.json"
"""What an imported adapter was checked against."""


def adopt(
    root: Path,
    method: MethodParams,
    base: Base,
    classes: list[str],
    splits: Mapping[str, Examples],
    training: TrainingParams,
    device: torch.device,
    on_evaluation: Callable[[Evaluation], None] = lambda row: None,
) -> tuple[TextClassifier, TrainingResult, MethodParams, lora.Count]:
    """Return an imported method as one that was trained here, with its one evaluation.

    Args:
        root: The project's folder.
        method: The method, with `trainable: imported`.
        base: The model that it adapts; its network becomes part of the result.
        classes: Names of the classes.
        splits: `train` and `validation`, not cut yet.
        training: Seed, longest text and the size of the evaluation.
        device: Where to evaluate; the result stays there.
        on_evaluation: Called with the row of the history.

    Returns:
        The classifier; a training of no step; the method as one that was trained here; and
        the numbers of parameters as PEFT counts them, with one A where there are three here.

    Raises:
        CheckpointError: The adapter is missing, is not the one of params.yaml, or does not fit.
        ParamsError: `method.classes` are not the classes.
    """
    assert method.adapter is not None, "params.yaml was checked"
    folder = root / method.adapter
    _verify(folder, method, base)
    imported = from_peft(read_adapter(folder), base.gpt, classes, method.classes)
    total = sum(p.numel() for p in base.gpt.parameters()) + len(classes) * base.gpt.config.n_embd
    classifier = build(imported, base, classes, training)
    classifier.model.to(device)
    result = TrainingResult([_evaluate(classifier, splits, training)], 0.0, 0, 0)
    on_evaluation(result.history[0])
    # The optimizer's settings do not matter any more.
    as_lora = MethodParams(
        trainable="lora", learning_rate=1.0, weight_decay=0.0, lora=imported.settings
    )
    return classifier, result, as_lora, lora.Count(imported.trainable, total + imported.factors)


def build(
    imported: Imported, base: Base, classes: list[str], training: TrainingParams
) -> TextClassifier:
    """Return the classifier of an imported adapter; the base's network becomes part of it.

    Raises:
        ParamsError: The adapter does not fit the model.
    """
    classifier = untuned(base, classes, HEAD, training.seed, training.max_length)
    adapt(classifier.model, imported.settings, initialise=False)
    # Biases that the adapter does not change have the base's values.
    own = lora.adapter_tensors(classifier.model)
    lora.load_adapter_tensors(classifier.model, {**own, **imported.tensors})
    return classifier


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


def _verify(folder: Path, method: MethodParams, base: Base) -> None:
    """Refuse files other than those of params.yaml, and another base than at the import."""
    wanted = {TENSORS_FILE: method.sha256, CONFIG_FILE: method.config_sha256}
    for name, expected in wanted.items():
        if not (folder / name).is_file():
            raise _missing(folder / name)
        actual = sha256(folder / name)
        if expected not in (None, actual):
            raise _refusal(folder / name, f"sha256 {expected}", f"sha256 {actual}")
    record = folder / RECORD
    checked = read_json(record)["base"] if record.is_file() else None
    current = {key: base.description[key] for key in ("name", "sha256")}
    if checked not in (None, current):
        raise _refusal(record, f"base model {checked}", f"base model {current}")


def _missing(path: Path) -> CheckpointError:
    adapter = f"inputs/adapters/{path.parent.name}"
    return CheckpointError(
        "The imported adapter is not here.",
        where=str(path),
        expected="what lora-compare import copied into the project",
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
