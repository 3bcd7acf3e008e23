"""What a method trains, and the files that hold it: the trained tensors and nothing else.

A method has a folder; in it lies a folder for each seed that it was trained with.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lora_compare import lora
from lora_compare.compute.seeding import seeded
from lora_compare.errors import CheckpointError
from lora_compare.models import weights
from lora_compare.models.answers.decision import read_decision
from lora_compare.models.answers.targets import targets_of_config
from lora_compare.models.base import read_description
from lora_compare.models.classifier import TextClassifier, untuned
from lora_compare.models.network import Base, Network
from lora_compare.params import (
    Architecture,
    ClassifierParams,
    LoraParams,
    MethodParams,
    Trainable,
)
from lora_compare.project.checksums import read_verified, seal, verified, verified_part
from lora_compare.project.files import write_json

TENSORS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
"""The files of a method's training with one seed."""


@dataclass(frozen=True)
class Trained:
    """What a method trains; how fast, `compute.optimizers.Rates` says.

    Attributes:
        trainable: As in params.yaml, but never `imported`: such a method has trained `lora`.
        lora: The adapter; None without one.
    """

    trainable: Trainable
    lora: LoraParams | None = None

    @classmethod
    def of(cls, method: MethodParams) -> "Trained":
        """Return what a method of params.yaml trains."""
        return cls(method.trainable, method.lora)

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> "Trained":
        """Return what the config.json of a method says that was trained."""
        return cls(config["trainable"], LoraParams(**config["lora"]) if config["lora"] else None)


def choose_trainable(model: Network, trained: Trained, seed: int) -> None:
    """Make the parameters that a method trains, and no others, require a gradient, in place.

    Args:
        model: The classifier; for LoRA its targeted layers are wrapped.
        trained: What to train.
        seed: Seed of the adapters' initial weights.

    Raises:
        ParamsError: The adapter does not fit the model.
    """
    if trained.lora is not None:
        with seeded(seed):
            adapt(model, trained.lora)
        return
    model.requires_grad_(False)
    for module in _trained_modules(model, trained.trainable):
        module.requires_grad_(True)


def adapt(model: Network, settings: LoraParams, initialise: bool = True) -> None:
    """Put an adapter on the classifier, in place, its base quantised first where that is asked.

    Args:
        model: The classifier.
        settings: The adapter; modules may have any name of `model.aliases`.
        initialise: False leaves the factors as they come, for a state that is loaded next.

    Raises:
        ParamsError: The adapter does not fit the model, or the library for 4 bit is missing.
    """
    if settings.quantization:
        # The head is new and small: rounding it would save nothing.
        lora.quantize(model, keep=model.head)
    settings = model.customary(settings)
    lora.inject(model, settings, aliases=model.aliases, initialise=initialise)


def architecture(model: Network) -> Architecture:
    """Return a classifier as an adapter's settings see it."""
    head = () if model.adapts_head else model.head
    return Architecture(lora.describe_modules(model), model.aliases, model.model_type, head)


def architecture_of(folder: Path) -> Architecture | None:
    """Return what adapters go on of the base model in a folder, without loading its weights.

    Args:
        folder: The base model's folder.

    Returns:
        None for a GPT, which params.yaml's checks know by its name.

    Raises:
        ParamsError: transformers is not installed.
        MissingArtifactError: The folder or a file in it is missing.
        IntegrityError: A file has changed since it was written.
    """
    if read_description(folder)["kind"] != "hub":
        return None
    # Here, because transformers takes seconds to import, which GPT-2 does not need.
    from lora_compare.models.hub.base import FILES
    from lora_compare.models.hub.shape import load_shape

    return architecture(load_shape(verified_part(folder / FILES, folder, "base_model")))


def _trained_modules(model: Network, trainable: str) -> list[nn.Module]:
    if trainable == "all":
        return [model]
    return model.top({"head": 0, "last_block": 1, "last_two_blocks": 2}[trainable])


def save_method(
    folder: Path,
    classifier: TextClassifier,
    trained: Trained,
    seed: int,
    base: Base,
    count: lora.Count | None = None,
) -> None:
    """Write what training changed to `folder`: model.safetensors and config.json, and seal it.

    Args:
        folder: Where to write.
        classifier: The trained classifier.
        trained: What was trained.
        seed: Seed of the head's and the adapters' initial weights.
        base: The model that it started from.
        count: The numbers of parameters, where they are not those of the classifier's model.
    """
    weights.save_state(folder / TENSORS_FILE, _tensors(classifier.model, trained))
    count = count or lora.count(classifier.model)
    config = {
        "base": identity(base),
        "trainable": trained.trainable,
        "lora": trained.lora.model_dump() if trained.lora else None,
        "classes": classifier.classes,
        "position": classifier.model.position,
        "bias": classifier.model.bias,
        "seed": seed,
        "max_length": classifier.max_length,
        "padded_length": classifier.padding.length,
        "trainable_parameters": count.trainable,
        "total_parameters": count.total,
    }
    if classifier.truncation != "head":
        config["truncation"] = classifier.truncation
    write_json(folder / CONFIG_FILE, config | classifier.targets.settings(classifier.classes))
    seal(folder)


def load_method(
    folder: Path, base: Base, stage: str = "finetune", decision: Path | None = None
) -> TextClassifier:
    """Return the classifier that `save_method` wrote to `folder`, on the CPU.

    Args:
        folder: The folder of one of the method's seeds.
        base: The model that it was trained from; it becomes part of the result.
        stage: The stage that writes the folder, for error messages.
        decision: The file of `write_decision` with how its probabilities become answers; where
            there is none, the likeliest class is the answer. None: the answer is not asked for.

    Raises:
        MissingArtifactError: A file is missing.
        IntegrityError: A file has changed since it was written.
        CheckpointError: The files belong to another base model or do not fit together.
    """
    config = json.loads(read_verified(folder / CONFIG_FILE, stage))
    path = verified(folder / TENSORS_FILE, stage)
    if config["base"] != (expected := identity(base)):
        raise CheckpointError(
            "The method was trained from another base model.",
            where=str(folder / CONFIG_FILE),
            expected=_words(config["base"]),
            actual=_words(expected),
            next=f"dvc repro {stage}",
        )
    classifier = restore(config, path, base)
    return replace(classifier, decision=read_decision(decision, path, classifier.classes, stage))


def identity(base: Base) -> dict[str, str]:
    """Return how a method's config.json names its base: model and checksum of the weights."""
    return {key: base.description[key] for key in ("name", "sha256")}


def restore(config: Mapping[str, Any], path: Path, base: Base) -> TextClassifier:
    """Return the classifier of a method's files, on the CPU.

    Args:
        config: The content of its config.json.
        path: Its model.safetensors.
        base: The model that it was trained from; it becomes part of the result.

    Raises:
        CheckpointError: The files do not fit together.
    """
    head = ClassifierParams(position=config["position"], bias=config["bias"])
    lengths = config["max_length"], config["padded_length"], config.get("truncation", "head")
    targets = targets_of_config(config)
    classifier = untuned(base, config["classes"], head, config["seed"], *lengths, targets)
    trained = Trained.of_config(config)
    if trained.lora is None:
        choose_trainable(classifier.model, trained, config["seed"])
    else:
        adapt(classifier.model, trained.lora, initialise=False)
    own = _tensors(classifier.model, trained)
    state = weights.load_state(path, {name: tuple(tensor.shape) for name, tensor in own.items()})
    if trained.lora is None:
        # In place of the base's weights, not into them: other methods may share those.
        weights.assign(classifier.model, state)
    else:
        lora.load_adapter_tensors(classifier.model, state)
    return classifier


def read_method(folder: Path, stage: str = "finetune") -> Trained:
    """Return what was trained, by a folder of `save_method`.

    Raises:
        MissingArtifactError: The folder is missing.
        IntegrityError: Its config.json has changed since it was written.
    """
    return Trained.of_config(json.loads(read_verified(folder / CONFIG_FILE, stage)))


def _tensors(model: Network, trained: Trained) -> dict[str, Tensor]:
    """Return the tensors that a method's file holds, not copied, by name."""
    if trained.lora is not None:
        return lora.adapter_tensors(model)
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _words(base: dict[str, str]) -> str:
    return f"{base['name']} with sha256 {base['sha256']}"
