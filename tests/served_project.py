"""Real models of a moment: a random base of a few tokens, and methods that were never trained."""

from pathlib import Path

import torch

from lora_compare.models.base import load_base, make_base, save_base
from lora_compare.models.classifier import untuned
from lora_compare.models.methods import Trained, choose_trainable, save_method
from lora_compare.params import ClassifierParams, ModelParams, PretrainingParams
from lora_compare.project.paths import Paths, seed_folder
from lora_compare.project.seeds import save_seeds
from lora_settings import lora_settings

CLASSES = ["ham", "spam"]
HEAD = ClassifierParams(position="last_token", bias=True)
METHODS = {"full": Trained("all"), "lora": Trained("lora", lora_settings())}
TOKENS_FROM = [f"win prize {i} now" for i in range(8)] + [f"see you at {i} then" for i in range(8)]


def write_base(folder: Path, seed: int = 1) -> None:
    """Write a small base with random weights to `folder`."""
    tokens = PretrainingParams(vocabulary_size=300)
    model = ModelParams(name="gpt2-nano", weights="random", seed=seed, pretraining=tokens)
    save_base(make_base(model, TOKENS_FROM, torch.device("cpu")), folder)


def write_method(
    models: Path, name: str, method: Trained, *seeds: int, chosen: int | None = None
) -> None:
    """Write a method to `models`/`name`, its tensors moved by random steps of each seed.

    The first one is chosen where none is given.
    """
    for seed in seeds:
        _write_training(models, name, method, seed)
    chosen = seeds[0] if chosen is None else chosen
    save_seeds(models / name, {seed: float(seed != chosen) for seed in seeds})


def _write_training(models: Path, name: str, method: Trained, seed: int) -> None:
    base = load_base(models / "base")
    classifier = untuned(base, CLASSES, HEAD, seed)
    choose_trainable(classifier.model, method, seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in classifier.model.parameters():
            if parameter.requires_grad:
                step = torch.randn(parameter.shape, generator=random)
                parameter.add_(0.1 * parameter.abs().mean().clamp(min=0.1) * step)
    save_method(models / name / seed_folder(seed), classifier, method, seed, base)


def write_models(paths: Paths, **seeds: int) -> None:
    """Write a base and the methods `full` and `lora` to a project, with these seeds."""
    write_base(paths.base)
    for name, method in METHODS.items():
        write_method(paths.base.parent, name, method, seeds.get(name, 0))
