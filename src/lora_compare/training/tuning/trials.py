"""The trials of a search: how they are trained, written down, and read by who trains on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lora_compare.errors import ParamsError
from lora_compare.params import Architecture, MethodParams, Params, is_possible
from lora_compare.project.checksums import read_verified, seal
from lora_compare.project.files import canonical_json, replacing_folder, write_csv, write_json
from lora_compare.project.paths import Paths
from lora_compare.project.progress import Progress
from lora_compare.training.tuning.choosing import Settings, Trial, shown

if TYPE_CHECKING:
    from lora_compare.training.finished import Finished, Shared

NOT_SEARCHED: dict[str, Any] = {
    "settings": {},
    "searched": False,
    "at_edge": [],
    "extended": 0,
    "trials": 0,
}
"""The content of choice.json of a method without a search."""


class Trials:
    """The trials of a search as they are trained: each setting once, with every tuning seed.

    Where there are folds, all of them are of the first.

    Args:
        shared: What their trainings share.
        n_classes: Number of classes of the data.
        progress: Where to report.
        network: What adapters go on; None: a GPT, which is known by its name.

    Attributes:
        finished: All trainings so far.
    """

    def __init__(
        self,
        shared: "Shared",
        n_classes: int,
        progress: Progress,
        network: Architecture | None = None,
    ) -> None:
        self._shared, self._progress = shared, progress
        self._n_classes, self._network = n_classes, network
        self._method = shared.params.method(shared.method)
        self._tuning = shared.params.tuning
        epochs = self._tuning.epochs or shared.params.training.epochs
        self._training = shared.params.training.model_copy(update={"epochs": epochs})
        self._trials: dict[str, Trial] = {}
        self.finished: list[Finished] = []

    def possible(self, settings: Settings) -> bool:
        """Return whether the method can have such settings."""
        params, method = self._shared.params, self._shared.method
        return is_possible(params, method, settings, self._n_classes, self._network)

    def attempt(self, settings: Sequence[Settings]) -> list[Trial]:
        """Return the trials of settings, as many at once as the machine has room for.

        Raises:
            ParamsError: The method cannot have such settings.
            UserError: As `run_trainings`, but for a loss that is not finite.
        """
        by_name = {canonical_json(dict(one)): one for one in settings}
        new = [(name, one) for name, one in by_name.items() if name not in self._trials]
        if new:
            self._train(new)
        return [self._trials[canonical_json(dict(one))] for one in settings]

    def _train(self, new: Sequence[tuple[str, Settings]]) -> None:
        from lora_compare.training.finetuning import Training
        from lora_compare.training.trainings import run_trainings

        seeds, first = self._tuning.seeds, len(self._trials) + 1
        fold = self._shared.params.split.fold_numbers[0]
        trainings = []
        for number, (_, settings) in enumerate(new, start=first):
            self._require_possible(settings)
            method = self._method.with_settings(settings)
            names = ((seed, f"trial {number}, seed {seed}") for seed in seeds)
            trainings += [Training(n, method, seed, self._training, fold) for seed, n in names]
        finished = run_trainings(
            self._shared, trainings, self._progress, keep_model=False, may_diverge=True
        )
        self.finished += finished
        for number, (name, settings) in enumerate(new):
            own = finished[number * len(seeds) : (number + 1) * len(seeds)]
            losses = tuple(one.validation_loss for one in own)
            self._trials[name] = Trial(first + number, settings, losses)

    def _require_possible(self, settings: Settings) -> None:
        if not self.possible(settings):
            raise ParamsError(
                "The search has come to a method that cannot be.",
                where=f"params.yaml: methods.{self._shared.method}.search",
                actual=", ".join(f"{key}: {shown(value)}" for key, value in settings.items()),
                next="take one of these values out of the search, then dvc repro",
            )

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return every training of every trial, and the rows of their histories, as tables."""
        trained = [(trial, seed) for trial in self._trials.values() for seed in self._tuning.seeds]
        trials, history = [], []
        for (trial, seed), one in zip(trained, self.finished, strict=True):
            own = {"trial": trial.number}
            values = {key: shown(value) for key, value in trial.settings.items()}
            figures = {
                "validation_loss": "" if one.diverged else one.validation_loss,
                "validation_accuracy": "" if one.diverged else one.validation_accuracy,
                "status": "diverged" if one.diverged else "finished",
            }
            trials.append({**own, **values, "seed": seed, **figures})
            history += [{**own, "seed": seed, **row} for row in one.history]
        return {"trials": trials, "history": history}


def write_choice(
    folder: Path,
    choice: Mapping[str, Any],
    tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write what a method is trained with, in the place of what was there before.

    Args:
        folder: The folder.
        choice: The content of choice.json.
        tables: Rows by the name of the CSV.
        origin: The content of provenance.json; None: nothing was computed.
    """
    with replacing_folder(folder) as new:
        write_json(new / "choice.json", choice)
        for name, rows in (tables or {}).items():
            write_csv(new / f"{name}.csv", {key: [row[key] for row in rows] for key in rows[0]})
        if origin is not None:
            write_json(new / "provenance.json", origin)
        seal(new)


def chosen_method(paths: Paths, params: Params, name: str) -> MethodParams:
    """Return a method with the values that its search has come to; without a search as it is.

    Args:
        paths: The project.
        params: Its parameters.
        name: The method's name.

    Raises:
        MissingArtifactError: The search has not run.
        IntegrityError: Its result has changed since.
        ParamsError: It is that of another search.
    """
    method = params.method(name)
    if method.search is None:
        return method
    settings = json.loads(read_verified(paths.choice(name), f"tune@{name}"))["settings"]
    try:
        chosen = method.with_settings(settings)
    except (ValidationError, KeyError, TypeError):
        chosen = None
    if chosen is None or {*settings} != {*method.search}:
        raise ParamsError(
            "What was chosen is not of this search.",
            where=str(paths.choice(name)),
            expected=f"values of {', '.join(method.search)}",
            actual=f"values of {', '.join(settings) or 'nothing'}",
            next=f"dvc repro tune@{name}",
        )
    return chosen
