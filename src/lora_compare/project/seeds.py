"""The trainings of a method in its folder, one for each seed, and which of them is used."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_compare.errors import MissingArtifactError
from lora_compare.project.checksums import read_verified, seal
from lora_compare.project.files import write_json
from lora_compare.project.paths import Paths, seed_folder

SEEDS_FILE = "seeds.json"
"""Beside the folders of a method's seeds: which there are, and which one is used."""


@dataclass(frozen=True)
class Seeds:
    """The trainings of a method, by the seeds of their heads, adapters, orders and dropout.

    Attributes:
        seeds: All of them, in the order of params.yaml.
        chosen: The one whose model is used where none is asked for.
        validation_loss: Mean cross-entropy in nats over the validation split, by seed.
        in_folds: Whether each is of a fold of its own.
    """

    seeds: tuple[int, ...]
    chosen: int
    validation_loss: dict[int, float]
    in_folds: bool = False

    def fold(self, seed: int) -> int | None:
        """Return the fold of a seed's training, from 1; None where there are no folds."""
        return self.seeds.index(seed) + 1 if self.in_folds else None


def save_seeds(folder: Path, losses: Mapping[int, float], in_folds: bool = False) -> Seeds:
    """Write which seeds a method was trained with, choose one, and seal its whole folder.

    Args:
        folder: The method's folder; the folders of its seeds are complete.
        losses: Mean cross-entropy in nats over the validation split, by seed; of the lowest comes
            the model that is used, of equal ones the first.
        in_folds: Whether each is of a fold of its own. Their losses are of different messages then,
            and the first fold's model is used: so all methods' are on one base, and the models of
            one fold.
    """
    best = next(iter(losses)) if in_folds else min(losses, key=losses.__getitem__)
    seeds = Seeds(tuple(losses), best, dict(losses), in_folds)
    by_name = {str(seed): loss for seed, loss in losses.items()}
    content = {"seeds": seeds.seeds, "chosen": seeds.chosen, "validation_loss": by_name}
    write_json(folder / SEEDS_FILE, content | ({"in_folds": True} if in_folds else {}))
    seal(folder)
    return seeds


def read_seeds(folder: Path, stage: str = "") -> Seeds:
    """Return which seeds a method was trained with.

    Args:
        folder: The method's folder.
        stage: The stage that writes it, for error messages; by default `finetune` of its name.

    Raises:
        MissingArtifactError: It is missing, or of an earlier version, without seeds.
        IntegrityError: Its seeds.json has changed since it was written.
    """
    content = read_verified(folder / SEEDS_FILE, stage or f"finetune@{folder.name}")
    found: dict[str, Any] = json.loads(content)
    losses = {int(seed): loss for seed, loss in found["validation_loss"].items()}
    return Seeds(tuple(found["seeds"]), found["chosen"], losses, found.get("in_folds", False))


def seed_of(folder: Path) -> int:
    """Return the seed of a folder that `chosen` returned."""
    return int(folder.name.removeprefix(seed_folder("")))


def chosen(folder: Path, seed: int | None = None, stage: str = "") -> Path:
    """Return the folder of one training of a method.

    Args:
        folder: The method's folder.
        seed: The training's seed; None takes the chosen one.
        stage: As in `read_seeds`.

    Raises:
        MissingArtifactError: There is no training with this seed, or none at all.
        IntegrityError: The method's seeds.json has changed since it was written.
    """
    there = read_seeds(folder, stage)
    if seed is not None and seed not in there.seeds:
        known = ", ".join(map(str, there.seeds))
        raise MissingArtifactError(
            f"{folder.name} was not trained with the seed {seed}.",
            where=str(folder),
            expected=f"one of its seeds: {known}",
            actual=str(seed),
            next=f"--seed {there.chosen}, the one that is used where none is named\n"
            "or add it to training.seeds in params.yaml, then dvc repro",
        )
    return folder / seed_folder(there.chosen if seed is None else seed)


def base_of(paths: Paths, method: str, seed: int | None = None) -> Path:
    """Return the folder of the model from which a training of a method started.

    Args:
        paths: The project.
        method: The method's name.
        seed: The training's seed; None: the chosen one's.

    Raises:
        MissingArtifactError: The method is not trained, or not with this seed.
        IntegrityError: The method's seeds.json has changed since it was written.
    """
    folder = chosen(paths.model(method), seed)
    return paths.base_of(read_seeds(paths.model(method)).fold(seed_of(folder)))
