"""One method from the base model to a trained classifier."""

from collections.abc import Mapping

from lora_compare.compute.device import Machine
from lora_compare.compute.optimizers import Rates
from lora_compare.compute.precision import lower_frozen
from lora_compare.models.base import Base
from lora_compare.models.batches import Examples
from lora_compare.models.classifier import TextClassifier, start
from lora_compare.models.methods import Trained, choose_trainable
from lora_compare.models.network import Classifier
from lora_compare.params import ClassifierParams, MethodParams, TrainingParams
from lora_compare.project.progress import Progress
from lora_compare.training.history import NOBODY, Reporting
from lora_compare.training.loop import TrainingResult, train
from lora_compare.training.resume import Checkpoints, circumstances, digest


def finetune(
    base: Base,
    classes: list[str],
    splits: Mapping[str, Examples],
    classifier: ClassifierParams,
    training: TrainingParams,
    method: MethodParams,
    machine: Machine,
    reporting: Reporting = NOBODY,
) -> tuple[TextClassifier, TrainingResult]:
    """Return a classifier trained by one method, and how the training went.

    Args:
        base: The model to start from; its network is trained in place.
        classes: Names of the classes.
        splits: `train` and `validation`, not cut yet.
        classifier: The head.
        training: What all methods share.
        method: What is trained, and how fast.
        machine: Where to train, and in what arithmetic; the result stays there.
        reporting: What to tell meanwhile, and where to keep the last state.

    Raises:
        Interrupted: A signal asked for the end; a checkpoint is kept.
        ParamsError: The method does not fit the model.
        TrainingError: The loss is not finite.
    """
    progress = reporting.progress
    start_point = start(base, classes, splits["train"], classifier, training)
    _prepare(start_point.model, training, Trained.of(method), machine, progress)
    fitted = {name: start_point.fit(splits[name]) for name in ("train", "validation")}
    if cut := sum(number for _, number in fitted.values()):
        progress.say(f"{cut} messages were cut at {start_point.max_length} tokens")
    seen = {name: examples for name, (examples, _) in fitted.items()}
    checkpoints = Checkpoints()
    if reporting.checkpoint is not None:
        facts = {
            "training": training.model_dump(exclude={"checkpoint_every"}),
            "method": method.model_dump(),
            "classifier": classifier.model_dump(),
            "classes": classes,
            "base": base.description["sha256"],
            **{name: digest(examples) for name, examples in seen.items()},
            **circumstances(machine),
        }
        every = training.checkpoint_every
        checkpoints = Checkpoints(reporting.checkpoint, facts, every, progress)
    result = train(
        start_point.model,
        seen["train"],
        seen["validation"],
        training,
        _rates(method),
        machine.dtype,
        reporting,
        checkpoints,
    )
    return start_point, result


def _rates(method: MethodParams) -> Rates:
    assert method.learning_rate is not None, "an imported method is not trained"
    assert method.weight_decay is not None
    ratio = method.lora.loraplus_lr_ratio if method.lora else None
    return Rates(method.learning_rate, method.weight_decay, ratio)


def _prepare(
    model: Classifier,
    training: TrainingParams,
    trained: Trained,
    machine: Machine,
    progress: Progress,
) -> None:
    """Make of an untuned classifier one that is trained by a method, in place."""
    choose_trainable(model, trained, training.seed)
    model.to(machine.device)
    lower_frozen(model, machine.dtype, keep=(model.score,))
    model.gpt.checkpointing = training.gradient_checkpointing
    if training.compile:
        # Here, because torch's compiler takes seconds to import.
        from lora_compare.training.compilation import compile_blocks

        progress.say("compile: the first steps take longer")
        compile_blocks(model.gpt)
    if not any(p.requires_grad for p in model.score.parameters()):
        progress.say("the head keeps its random weights: adapt score, or put it in modules_to_save")
