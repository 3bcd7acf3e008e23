"""What earlier stages measured about every method and baseline, read back and checked."""

import io
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lora_compare.comparison.outcomes import Outcome, Tuning
from lora_compare.errors import DataError
from lora_compare.evaluation.noise import read_out_of_sample
from lora_compare.params import Params
from lora_compare.project.checksums import read_verified
from lora_compare.project.corpus import (
    FOLD,
    GROUP,
    NO_LABEL,
    read_split,
)
from lora_compare.project.lineage import forget_methods
from lora_compare.project.paths import TFIDF, Paths

BASELINES = (TFIDF, "untuned")
"""What every method is shown beside: a linear model on TF-IDF, and no fine-tuning at all."""


@dataclass(frozen=True)
class Evidence:
    """All that a comparison is made of.

    Attributes:
        methods: The methods of params.yaml in its order.
        baselines: TF-IDF and the untuned model.
        split: metrics/split.json.
        training: The training split: Label, an index into the classes, and Text.
        source: data/raw/provenance.json: where the messages come from.
        tokens: reports/base/tokens.json: what the base model's tokenizer makes of them.
        out_of_sample: Probabilities by TF-IDF for the messages of the training split, each by a
            model that has not seen it, shape (n_train, C); empty where there are none.
        groups: The group that the data gives each test message, empty of one that is alone; none
            where the data has no groups.
        folds: The fold that tests each message, from 1; none where there is one split.
    """

    methods: tuple[Outcome, ...]
    baselines: tuple[Outcome, ...]
    split: Mapping[str, Any]
    training: Mapping[str, list[Any]]
    source: Mapping[str, Any]
    tokens: Mapping[str, Any]
    out_of_sample: npt.NDArray[np.float32]
    groups: Sequence[str] = ()
    folds: Sequence[int] = ()

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
    def several(self) -> bool:
        """Whether a message may have several labels."""
        return "labels" in self.split

    @property
    def answers(self) -> list[str]:
        """What an answer can be, in words: a class, or labels."""
        return self.methods[0].answers

    def named(self, label: Any) -> str:
        """Return a label of the training split in words."""
        names = compress(self.classes, label) if self.several else (self.classes[label],)
        return ", ".join(names) or NO_LABEL

    @property
    def texts(self) -> list[str]:
        """The test messages, in the order of every prediction."""
        return [str(text) for text in self.methods[0].messages["text"]]

    @property
    def labels(self) -> list[str]:
        """The right answer to each test message, in words."""
        first = self.methods[0]
        return [first.answers[i] for i in first.labels]


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
    folders = (paths.tuning(), paths.training(), paths.evaluated())
    inside = [path for folder in folders for path in folder.glob("*")]
    return [path for path in inside if path.name not in known]


def load_evidence(paths: Paths, params: Params) -> Evidence:
    """Return what earlier stages wrote about exactly the methods of `params`.

    Raises:
        MissingArtifactError: A file is missing; the message names the stage that writes it.
        IntegrityError: A file has changed since its stage wrote it.
        DataError: Two files of predictions are not about the same messages.
    """
    methods = tuple(
        _load_method(paths, name, settings.trainable, params.split.folds > 1)
        for name, settings in params.methods.items()
    )
    sums = {"baseline": paths.evaluated(BASELINES[0]), "split": paths.splits}
    metrics, split = (
        json.loads(read_verified(paths.metrics(stage), stage, folder))
        for stage, folder in sums.items()
    )
    baselines = tuple(
        Outcome(name, "baseline", metrics[name], {0: _read_predictions(paths, name, None)})
        for name in BASELINES
    )
    if "labels" in split:
        every = methods + baselines
        methods, baselines = (_with_combinations(some, every) for some in (methods, baselines))
    test = read_split(paths.split("test"))
    evidence = Evidence(
        methods,
        baselines,
        split,
        read_split(paths.split("train")),
        json.loads(read_verified(paths.provenance, "download")),
        json.loads(read_verified(paths.tokenization, "base_model")),
        read_out_of_sample(paths.out_of_sample),
        tuple(test.get(GROUP, ())),
        tuple(test.get(FOLD, ())),
    )
    _check_same_messages(paths, evidence)
    return evidence


def _with_combinations(
    outcomes: tuple[Outcome, ...], every: tuple[Outcome, ...]
) -> tuple[Outcome, ...]:
    """Return outcomes that know all combinations of labels, those of the most messages first."""
    frames = [frame for outcome in every for frame in outcome.predictions.values()]
    counts = Counter(every[0].messages["label"])
    for frame in frames:
        counts.update(dict.fromkeys(frame["predicted"], 0))
    combinations = tuple(text for text, _ in counts.most_common())
    return tuple(replace(outcome, combinations=combinations) for outcome in outcomes)


def _load_method(paths: Paths, name: str, trainable: str, in_folds: bool) -> Outcome:
    finetune = f"finetune@{name}"
    metrics = json.loads(read_verified(paths.evaluation(name), f"evaluate@{name}"))
    predictions = {seed: _read_predictions(paths, name, seed) for seed in metrics["seeds"]}
    if in_folds:
        predictions = {metrics["seeds"][0]: pd.concat(predictions.values(), ignore_index=True)}
    return Outcome(
        name,
        trainable,
        metrics,
        predictions,
        json.loads(read_verified(paths.cost_copy(name), finetune)),
        pd.read_csv(io.BytesIO(read_verified(paths.history(name), finetune))),
        _read_tuning(paths, name),
    )


def _read_tuning(paths: Paths, name: str) -> Tuning:
    stage, trials = f"tune@{name}", paths.tuning(name) / "trials.csv"
    choice = json.loads(read_verified(paths.choice(name), stage))
    found = io.BytesIO(read_verified(trials, stage)) if choice["searched"] else None
    return Tuning(choice, None if found is None else pd.read_csv(found))


def _read_predictions(paths: Paths, name: str, seed: int | None) -> pd.DataFrame:
    stage = "baseline" if seed is None else f"evaluate@{name}"
    return pd.read_csv(
        io.BytesIO(read_verified(paths.predictions(name, seed), stage)),
        dtype={"text": str, "label": str, "predicted": str},
        # A message that reads "NA" or "null", or is empty, is a message.
        keep_default_na=False,
        # pandas writes a carriage return inside a message without quotes.
        lineterminator="\n",
    )


def _check_same_messages(paths: Paths, evidence: Evidence) -> None:
    first = evidence.methods[0]
    for other in evidence.outcomes:
        for seed, frame in other.predictions.items():
            if first.messages.equals(frame[["text", "label"]]):
                continue
            known = None if other in evidence.baselines else seed
            named = other.name if known is None else f"{other.name} with the seed {seed}"
            raise DataError(
                f"{first.name} and {named} did not classify the same test messages.",
                where=str(paths.predictions(other.name, known)),
                expected=f"the {len(first.messages)} messages of {first.name}, in order",
                actual=f"{len(frame)} messages",
                next="dvc repro",
            )
