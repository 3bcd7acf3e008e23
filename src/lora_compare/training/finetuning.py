"""One method from the base model to a trained classifier."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from lora_compare.compute.optimizers import Rates
from lora_compare.compute.precision import choose_precision, lower_frozen
from lora_compare.models.base import Base
from lora_compare.models.batches import Examples
from lora_compare.models.classifier import TextClassifier
from lora_compare.models.methods import choose_trainable, untuned
from lora_compare.models.network import Classifier
from lora_compare.params import ClassifierParams, MethodParams, TrainingParams
from lora_compare.project.progress import SILENT, Progress
from lora_compare.training.history import Evaluation
from lora_compare.training.loop import TrainingResult, train
from lora_compare.training.resume import Checkpoints, circumstances, digest


def start(
    base: Base,
    classes: list[str],
    train_examples: Examples,
    classifier: ClassifierParams,
    training: TrainingParams,
) -> TextClassifier:
    """Return the untuned classifier: the base model under a new head.

    Args:
        base: The network and its tokenizer; the network becomes part of the result.
        classes: Names of the classes.
        train_examples: The training split; position `last_position` pads to its longest text.
        classifier: The head.
        training: Seed and longest text.
    """
    arguments = (base, classes, classifier, training.seed, training.max_length)
    unpadded = untuned(*arguments)
    if classifier.position != "last_position":
        return unpadded
    longest = min(int(train_examples.lengths.max()), unpadded.max_length)
    return untuned(*arguments, padded_length=longest)


def finetune(
    base: Base,
    classes: list[str],
    splits: Mapping[str, Examples],
    classifier: ClassifierParams,
    training: TrainingParams,
    method: MethodParams,
    device: torch.device,
    on_evaluation: Callable[[Evaluation], None] = lambda row: None,
    progress: Progress = SILENT,
    description: str = "finetune",
    checkpoint: Path | None = None,
) -> tuple[TextClassifier, TrainingResult]:
    """Return a classifier trained by one method, and how the training went.

    Args:
        base: The model to start from; its network is trained in place.
        classes: Names of the classes.
        splits: `train` and `validation`, not cut yet.
        classifier: The head.
        training: What all methods share.
        method: What is trained, and how fast.
        device: Where to train; the result stays there.
        on_evaluation: Called with every row of the history.
        progress: Where to report.
        description: What the progress says is being done.
        checkpoint: File of the training's last state, from which it goes on; None: none.

    Raises:
        Interrupted: A signal asked for the end; a checkpoint is kept.
        ParamsError: The method does not fit the model.
        TrainingError: The loss is not finite.
    """
    assert method.learning_rate is not None, "an imported method is not trained"
    assert method.weight_decay is not None
    start_point = start(base, classes, splits["train"], classifier, training)
    dtype = choose_precision(training.precision, device, base.gpt.config.n_embd)
    _prepare(start_point.model, training, method, device, dtype, progress)
    (train_examples, train_cut), (validation_examples, validation_cut) = (
        start_point.fit(splits[name]) for name in ("train", "validation")
    )
    if cut := train_cut + validation_cut:
        progress.say(f"{cut} messages were cut at {start_point.max_length} tokens")
    checkpoints = Checkpoints()
    if checkpoint is not None:
        facts = {
            "training": training.model_dump(exclude={"checkpoint_every"}),
            "method": method.model_dump(),
            "classifier": classifier.model_dump(),
            "classes": classes,
            "base": base.description["sha256"],
            "train": digest(train_examples),
            "validation": digest(validation_examples),
            **circumstances(device, dtype),
        }
        checkpoints = Checkpoints(checkpoint, facts, training.checkpoint_every, progress)
    ratio = method.lora.loraplus_lr_ratio if method.lora else None
    result = train(
        start_point.model,
        train_examples,
        validation_examples,
        training,
        Rates(method.learning_rate, method.weight_decay, ratio),
        dtype,
        on_evaluation,
        progress,
        description,
        checkpoints,
    )
    return start_point, result


def _prepare(
    model: Classifier,
    training: TrainingParams,
    method: MethodParams,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress,
) -> None:
    """Make of an untuned classifier one that is trained by `method`, in place."""
    choose_trainable(model, method, training.seed)
    model.to(device)
    lower_frozen(model, dtype, keep=(model.score,))
    model.gpt.checkpointing = training.gradient_checkpointing
    if training.compile:
        # Here, because torch's compiler takes seconds to import.
        from lora_compare.training.compilation import compile_blocks

        progress.say("compile: the first steps take longer")
        compile_blocks(model.gpt)
    if not any(p.requires_grad for p in model.score.parameters()):
        progress.say("the head keeps its random weights: adapt score, or put it in modules_to_save")
