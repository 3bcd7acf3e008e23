"""What the pipeline measured about one method or baseline."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lora_compare.project.corpus import labels_of, shown_labels


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
