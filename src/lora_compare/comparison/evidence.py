"""What earlier stages measured about every method and baseline, read back and checked."""

import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lora_compare.errors import DataError
from lora_compare.evaluation.noise import read_out_of_sample
from lora_compare.params import Params
from lora_compare.project.checksums import read_verified
from lora_compare.project.corpus import (
    FOLD,
    GROUP,
    NO_LABEL,
    labels_of,
    read_split,
    shown_labels,
)
from lora_compare.project.lineage import forget_methods
from lora_compare.project.paths import TFIDF, Paths

BASELINES = (TFIDF, "untuned")
"""What every method is shown beside: a linear model on TF-IDF, and no fine-tuning at all."""


@dataclass(frozen=True)
class Tuning:
    """How a method's settings were found before it was trained.

    Attributes:
        choice: What was chosen: reports/tuning/M/choice.json.
        trials: One row a training that was tried; None where nothing was searched.
    """

    choice: Mapping[str, Any]
    trials: pd.DataFrame | None


@dataclass(frozen=True)
class Outcome:
    """What the pipeline measured about one method or baseline.

    A method was trained once per seed, and each of these models answered every test message. In
    the shapes below S is the number of seeds, n that of test messages, C that of classes, A that of
    answers. An answer is a class; where a message may have several labels it is a combination of
    them, of which those count that some message has or was given.

    Attributes:
        name: The method's name in params.yaml, or the baseline's.
        trainable: What it trains, as in params.yaml; `baseline` for a baseline.
        metrics: Its metrics/M.json.
        predictions: By seed one row per test message: text, label, predicted, p_<class>...; a
            baseline has the one key 0. Where each seed is of a fold, those of all folds, one behind
            the other, have the first seed's: S is 1 then.
        cost: Its M_cost.json; None for a baseline.
        history: Losses and accuracies by seed and step; None for a baseline.
        tuning: How its settings were found; None for a baseline.
        combinations: The answers of all outcomes as files have them; none of one class a message.
    """

    name: str
    trainable: str
    metrics: Mapping[str, Any]
    predictions: Mapping[int, pd.DataFrame]
    cost: Mapping[str, Any] | None = None
    history: pd.DataFrame | None = None
    tuning: Tuning | None = None
    combinations: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its trainings, in the order of params.yaml."""
        return tuple(self.metrics.get("seeds", self.predictions))

    @property
    def messages(self) -> pd.DataFrame:
        """The test messages, one row each: text and label."""
        return self.predictions[self.seeds[0]][["text", "label"]]

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in order."""
        columns = map(str, self.predictions[self.seeds[0]].columns)
        return [name[2:] for name in columns if name.startswith("p_")]

    @property
    def answers(self) -> list[str]:
        """What an answer can be, in words."""
        return [shown_labels(text) for text in self.combinations] or self.classes

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """The index of each test message's right answer, shape (n,)."""
        return self._indices(self.messages["label"])

    @cached_property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The index of the answer that each seed's model gave each test message, shape (S, n)."""
        return np.stack([self._indices(f["predicted"]) for f in self.predictions.values()])

    def in_targets(self, answers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return answers by index as `models.answers.targets` has labels.

        Args:
            answers: Shape (...); the result has the same, or an axis of C labels behind it.
        """
        return self._members[answers] if self.combinations else answers

    @cached_property
    def _members(self) -> npt.NDArray[np.int64]:
        """1 for each label that a combination has and 0 for the others, shape (A, C)."""
        combined = [{*labels_of(text)} for text in self.combinations]
        return np.array([[name in own for name in self.classes] for own in combined], np.int64)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each seed's model classified each test message rightly, shape (S, n)."""
        return np.asarray(self.predicted == self.labels, dtype=bool)

    @property
    def chances(self) -> npt.NDArray[np.float64]:
        """The classes' probabilities by each seed's model for each message, shape (S, n, C)."""
        columns = [f"p_{name}" for name in self.classes]
        frames = [frame[columns].to_numpy(np.float64) for frame in self.predictions.values()]
        return np.stack(frames)

    def answer_chances(self) -> Iterator[npt.NDArray[np.float64]]:
        """Yield each answer's probability by each seed's model for each message, shape (n, A).

        That of a combination is the product of its labels' own and those of lacking the others:
        to a sigmoid they are independent.
        """
        for chances in self.chances:
            if not self.combinations:
                yield chances
                continue
            eps = np.finfo(np.float64).eps
            sure = np.clip(chances, eps, 1 - eps)
            there, lacking = np.log(sure), np.log1p(-sure)
            yield np.exp(there @ self._members.T + lacking @ (1 - self._members.T))

    @cached_property
    def mean_history(self) -> pd.DataFrame:
        """The history as means over the seeds, by step, with `<column>_low` and `<column>_high`.

        The rows are the steps that every seed has: one that ended early would bend the mean.
        """
        assert self.history is not None, "a baseline is not trained"
        by_step = self.history.drop(columns="seed").groupby("step")
        table = by_step.mean()
        for end, values in {"low": by_step.min(), "high": by_step.max()}.items():
            table = table.join(values.add_suffix(f"_{end}"))
        return table[by_step.size() == len(self.seeds)].reset_index()

    def _indices(self, names: "pd.Series[str]") -> npt.NDArray[np.int64]:
        known = list(self.combinations) or self.classes
        return pd.Categorical(names, known).codes.astype(np.int64)


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
