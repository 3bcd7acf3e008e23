"""What earlier stages measured about every method and baseline, read back and checked."""

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lora_compare.errors import DataError
from lora_compare.params import Params
from lora_compare.project.checksums import read_verified
from lora_compare.project.corpus import read_split
from lora_compare.project.lineage import forget_methods
from lora_compare.project.paths import TFIDF, Paths

BASELINES = (TFIDF, "untuned")
"""What every method is shown beside: a linear model on TF-IDF, and no fine-tuning at all."""


@dataclass(frozen=True)
class Tuning:
    """What the stage tune tried of one method, and what it chose.

    Attributes:
        choice: Its reports/tuning/M/choice.json.
        trials: Its reports/tuning/M/trials.csv; None of a method without a search.
    """

    choice: Mapping[str, Any]
    trials: pd.DataFrame | None = None


@dataclass(frozen=True)
class Outcome:
    """What the pipeline measured about one method or baseline.

    Attributes:
        name: The method's name in params.yaml, or the baseline's.
        trainable: What it trains, as in params.yaml; `baseline` for a baseline.
        metrics: Its metrics/M.json.
        cost: Its M_cost.json; None for a baseline.
        predictions: One row per test message: text, label, predicted, p_<class>...
        history: Losses and accuracies by step; None for a baseline.
        seeds: The seeds of its trainings; one for a baseline.
        tuning: What was tried before; None for a baseline.
    """

    name: str
    trainable: str
    metrics: Mapping[str, Any]
    predictions: pd.DataFrame
    cost: Mapping[str, Any] | None = None
    history: pd.DataFrame | None = None
    seeds: tuple[int, ...] = (0,)
    tuning: Tuning | None = None

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each test message was classified rightly, shape (n,)."""
        return np.asarray(self.predictions["label"] == self.predictions["predicted"], dtype=bool)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in order."""
        return [name[2:] for name in self.predictions.columns if name.startswith("p_")]


@dataclass(frozen=True)
class Evidence:
    """All that a comparison is made of.

    Attributes:
        methods: The methods of params.yaml in its order.
        baselines: TF-IDF and the untuned model.
        split: metrics/split.json.
        training: The training split: Label, an index into the classes, and Text.
        source: data/raw/provenance.json: where the messages come from.
    """

    methods: tuple[Outcome, ...]
    baselines: tuple[Outcome, ...]
    split: Mapping[str, Any]
    training: Mapping[str, list[Any]]
    source: Mapping[str, Any]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Methods, then baselines."""
        return self.methods + self.baselines

    @property
    def names(self) -> list[str]:
        """The methods' names."""
        return [method.name for method in self.methods]

    @property
    def classes(self) -> list[str]:
        """The names of the classes; a label in the training split is an index into them."""
        return list(self.split["classes"])

    @property
    def texts(self) -> list[str]:
        """The test messages, in the order of every prediction."""
        return [str(text) for text in self.methods[0].predictions["text"]]


def remove_leftovers(paths: Paths, params: Params) -> list[Path]:
    """Delete what methods left that are no longer in params.yaml; return what was deleted.

    DVC cannot list the methods as dependencies of `compare`, so that it depends on the folders of
    all: what is left over in them would be part of its inputs for ever. What dvc.lock records of
    such methods goes as well; a method that comes back, DVC restores from its cache.

    Args:
        paths: The project.
        params: Its parameters.

    Checked by tests/pipeline/test_remotes.py::test_a_removed_and_a_renamed_method_leave_nothing.
    """
    recorded = [paths.root / out for out in forget_methods(paths, params.methods)]
    folders = [path for path in _beside(paths, params) if path.is_dir()]
    left = sorted({*folders, *(path for path in recorded if path.exists())})
    for path in left:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return left


def foreign_files(paths: Paths, params: Params) -> list[Path]:
    """Return the files that no stage has written where `compare` depends on a whole folder."""
    return sorted(path for path in _beside(paths, params) if not path.is_dir())


def _beside(paths: Paths, params: Params) -> list[Path]:
    known = {*params.methods, *BASELINES}
    inside = [*paths.training().glob("*"), *paths.evaluated().glob("*")]
    return [path for path in inside if path.name not in known]


def load_evidence(paths: Paths, params: Params) -> Evidence:
    """Return what earlier stages wrote about exactly the methods of `params`.

    Raises:
        MissingArtifactError: A file is missing; the message names the stage that writes it.
        IntegrityError: A file has changed since its stage wrote it.
        DataError: Two files of predictions are not about the same messages.
    """
    methods = tuple(
        _load_method(paths, name, settings.trainable) for name, settings in params.methods.items()
    )
    sums = {"baseline": paths.evaluated(BASELINES[0]), "split": paths.splits}
    metrics, split = (
        json.loads(read_verified(paths.metrics(stage), stage, folder))
        for stage, folder in sums.items()
    )
    baselines = tuple(
        Outcome(
            name,
            "baseline",
            metrics[name],
            _read_predictions(paths, name, "baseline"),
        )
        for name in BASELINES
    )
    evidence = Evidence(
        methods,
        baselines,
        split,
        read_split(paths.split("train")),
        json.loads(read_verified(paths.provenance, "download")),
    )
    _check_same_messages(paths, evidence)
    return evidence


def _load_method(paths: Paths, name: str, trainable: str) -> Outcome:
    finetune, evaluate = f"finetune@{name}", f"evaluate@{name}"
    return Outcome(
        name,
        trainable,
        json.loads(read_verified(paths.evaluation(name), evaluate)),
        _read_predictions(paths, name, evaluate),
        json.loads(read_verified(paths.cost_copy(name), finetune)),
        pd.read_csv(io.BytesIO(read_verified(paths.history(name), finetune))),
    )


def _read_predictions(paths: Paths, name: str, stage: str) -> pd.DataFrame:
    return pd.read_csv(
        io.BytesIO(read_verified(paths.predictions(name), stage)),
        dtype={"text": str, "label": str, "predicted": str},
        # A message that reads "NA" or "null", or is empty, is a message.
        keep_default_na=False,
        # pandas writes a carriage return inside a message without quotes.
        lineterminator="\n",
    )


def _check_same_messages(paths: Paths, evidence: Evidence) -> None:
    first, *others = evidence.outcomes
    for other in others:
        if not first.predictions[["text", "label"]].equals(other.predictions[["text", "label"]]):
            raise DataError(
                f"{first.name} and {other.name} did not classify the same test messages.",
                where=str(paths.predictions(other.name)),
                expected=f"the {len(first.predictions)} messages of {first.name}, in order",
                actual=f"{len(other.predictions)} messages",
                next="dvc repro",
            )


def figures(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Return the few figures that DVC's tables show, every method beside the others.

    `accuracy` is of the test messages, TF-IDF's last; `validation` of those by which one may
    choose among experiments; `parameters` is the number of trained ones. None is a time: what
    the tables show as changed has changed.
    """
    methods = evidence.methods
    tfidf = evidence.baselines[BASELINES.index(TFIDF)]
    return {
        "accuracy": {o.name: o.metrics["test"]["accuracy"] for o in (*methods, tfidf)},
        "validation": {o.name: o.metrics["validation"]["accuracy"] for o in methods},
        "parameters": {o.name: o.metrics["trainable_parameters"] for o in methods},
    }


def curves(evidence: Evidence) -> dict[str, list[Any]]:
    """Return all histories as one long table: method, split, step, epoch, loss, accuracy."""
    table: dict[str, list[Any]] = {}
    for outcome in evidence.methods:
        assert outcome.history is not None
        for split in ("train", "validation"):
            part = {
                "method": [outcome.name] * len(outcome.history),
                "split": [split] * len(outcome.history),
                "step": outcome.history["step"].tolist(),
                "epoch": outcome.history["epoch"].tolist(),
                "loss": outcome.history[f"{split}_loss"].tolist(),
                "accuracy": outcome.history[f"{split}_accuracy"].tolist(),
            }
            for name, values in part.items():
                table.setdefault(name, []).extend(values)
    return table


def answers(evidence: Evidence) -> dict[str, list[str]]:
    """Return all answers to the test messages as one long table: method, label, predicted.

    Methods come first, then baselines, each with one row per message.
    """
    table: dict[str, list[str]] = {"method": [], "label": [], "predicted": []}
    for outcome in evidence.outcomes:
        table["method"] += [outcome.name] * len(outcome.predictions)
        for column in ("label", "predicted"):
            table[column] += outcome.predictions[column].tolist()
    return table
