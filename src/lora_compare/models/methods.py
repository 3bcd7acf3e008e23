"""What a method trains, and the files that hold it: the trained tensors and nothing else."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lora_compare import lora
from lora_compare.compute.seeding import seeded
from lora_compare.errors import CheckpointError
from lora_compare.models import weights
from lora_compare.models.base import Base
from lora_compare.models.classifier import Padding, TextClassifier
from lora_compare.models.network import GPT, Classifier
from lora_compare.params import ClassifierParams, LoraParams, MethodParams, gpt2_paths
from lora_compare.project.checksums import read_verified, seal, verified
from lora_compare.project.files import write_json


def untuned(
    base: Base,
    classes: list[str],
    classifier: ClassifierParams,
    seed: int,
    max_length: int | None = None,
    padded_length: int | None = None,
) -> TextClassifier:
    """Return the base model under a new head: where every method starts.

    Args:
        base: The network and its tokenizer; the network is used, not copied.
        classes: Names of the classes.
        classifier: Position and bias of the head.
        seed: Seed of the head's initial weights.
        max_length: Tokens after which a text is cut; None: the model's context length.
        padded_length: Tokens of every padded text for position `last_position`; also the
            length at which longer texts are cut.
    """
    limit = min(max_length or base.gpt.config.context_length, base.gpt.config.context_length)
    with seeded(seed):
        model = Classifier(base.gpt, len(classes), classifier.position, classifier.bias)
    return TextClassifier(
        model,
        base.encoding,
        classes,
        padded_length or limit,
        Padding(base.encoding.eot_token, padded_length),
    )


def choose_trainable(model: Classifier, method: MethodParams, seed: int) -> None:
    """Make the parameters that `method` trains, and no others, require a gradient, in place.

    Args:
        model: The classifier; for LoRA its targeted layers are wrapped.
        method: What to train.
        seed: Seed of the adapters' initial weights.

    Raises:
        ParamsError: The adapter does not fit the model.
    """
    if method.lora is not None:
        with seeded(seed):
            adapt(model, method.lora)
        return
    model.requires_grad_(False)
    for module in _trained_modules(model, method.trainable):
        module.requires_grad_(True)


def adapt(model: Classifier, settings: LoraParams, initialise: bool = True) -> None:
    """Put an adapter on the classifier, in place, its base quantised first where that is asked.

    Args:
        model: The classifier.
        settings: The adapter; modules may have GPT-2's names.
        initialise: False leaves the factors as they come, for a state that is loaded next.

    Raises:
        ParamsError: The adapter does not fit the model, or the library for 4 bit is missing.
    """
    if settings.quantization:
        # The head is new and small: rounding it would save nothing.
        lora.quantize(model, keep=["score"])
    lora.inject(model, settings, aliases=gpt2_paths, initialise=initialise)


def _trained_modules(model: Classifier, trainable: str) -> list[nn.Module]:
    gpt: GPT = model.gpt
    blocks = {"head": 0, "last_block": 1, "last_two_blocks": 2}
    if trainable == "all":
        return [model]
    count = blocks[trainable]
    if count == 0:
        return [model.score]
    # The book trains the final norm together with the last block.
    return [model.score, gpt.ln_f, *list(gpt.h)[-count:]]


def save_method(
    folder: Path,
    classifier: TextClassifier,
    method: MethodParams,
    seed: int,
    base: Base,
    count: lora.Count | None = None,
) -> int:
    """Write what training changed to `folder`: model.safetensors and config.json, and seal it.

    Args:
        folder: Where to write.
        classifier: The trained classifier.
        method: How it was trained.
        seed: Seed of the head's and the adapters' initial weights.
        base: The model that it started from.
        count: The numbers of parameters, where they are not those of the classifier's model.

    Returns:
        The size of model.safetensors in bytes.
    """
    path = folder / "model.safetensors"
    weights.save_state(path, _method_tensors(classifier.model, method))
    count = count or lora.count(classifier.model)
    config = {
        "base": {key: base.description[key] for key in ("name", "sha256")},
        "trainable": method.trainable,
        "lora": method.lora.model_dump() if method.lora else None,
        "classes": classifier.classes,
        "position": classifier.model.position,
        "bias": classifier.model.bias,
        "seed": seed,
        "max_length": classifier.max_length,
        "padded_length": classifier.padding.length,
        "trainable_parameters": count.trainable,
        "total_parameters": count.total,
    }
    write_json(folder / "config.json", config)
    seal(folder)
    return path.stat().st_size


def load_method(folder: Path, base: Base, stage: str = "finetune") -> TextClassifier:
    """Return the classifier that `save_method` wrote to `folder`, on the CPU.

    Args:
        folder: The method's folder.
        base: The model that it was trained from; it becomes part of the result.
        stage: The stage that writes the folder, for error messages.

    Raises:
        MissingArtifactError: A file is missing.
        IntegrityError: A file has changed since it was written.
        CheckpointError: The files belong to another base model or do not fit together.
    """
    config = json.loads(read_verified(folder / "config.json", stage))
    path = verified(folder / "model.safetensors", stage)
    expected = {key: base.description[key] for key in ("name", "sha256")}
    if config["base"] != expected:
        raise CheckpointError(
            "The method was trained from another base model.",
            where=str(folder / "config.json"),
            expected=_words(config["base"]),
            actual=_words(expected),
            next=f"dvc repro {stage}",
        )
    head = ClassifierParams(position=config["position"], bias=config["bias"])
    classifier = untuned(
        base, config["classes"], head, config["seed"], config["max_length"], config["padded_length"]
    )
    method = _method_of(config)
    if method.lora is None:
        choose_trainable(classifier.model, method, config["seed"])
    else:
        adapt(classifier.model, method.lora, initialise=False)
    own = _method_tensors(classifier.model, method)
    state = weights.load_state(path, {name: tuple(tensor.shape) for name, tensor in own.items()})
    if method.lora is None:
        # In place of the base's weights, not into them: other methods may share those.
        classifier.model.load_state_dict(state, strict=False, assign=True)
    else:
        lora.load_adapter_tensors(classifier.model, state)
    return classifier


def read_settings(folder: Path, stage: str = "finetune") -> LoraParams | None:
    """Return the adapter's settings in a folder of `save_method`; None if it holds no adapter.

    Raises:
        MissingArtifactError: The folder is missing.
        IntegrityError: Its config.json has changed since it was written.
    """
    return read_method(folder, stage).lora


def read_method(folder: Path, stage: str = "finetune") -> MethodParams:
    """Return what was trained, by a folder of `save_method`; the optimizer's settings are lost.

    Raises:
        MissingArtifactError: The folder is missing.
        IntegrityError: Its config.json has changed since it was written.
    """
    return _method_of(json.loads(read_verified(folder / "config.json", stage)))


def _method_tensors(model: Classifier, method: MethodParams) -> dict[str, Tensor]:
    """Return the tensors that a method's file holds, not copied, by name."""
    if method.lora is not None:
        return lora.adapter_tensors(model)
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _method_of(config: dict[str, Any]) -> MethodParams:
    # The optimizer's settings do not matter any more; what was trained does.
    adapter = LoraParams(**config["lora"]) if config["lora"] else None
    return MethodParams(
        trainable=config["trainable"], learning_rate=1.0, weight_decay=0.0, lora=adapter
    )


def _words(base: dict[str, str]) -> str:
    return f"{base['name']} with sha256 {base['sha256']}"
