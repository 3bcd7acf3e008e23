"""Which values a search tries for one setting of a method."""

import math
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, FiniteFloat, ValidationInfo, field_validator

from lora_compare.params.sections import Count, Positive, Section, Seeds

TPE_TRIALS = 15
"""Fewest trials of `tpe`: it draws the first ten at random, and only then begins to learn."""


class TuningParams(Section):
    """How the methods that have a `search` are tuned: the same budget for each of them.

    docs/tuning.md tells how values are chosen.
    """

    trials: Annotated[int, Field(ge=2)] = 4
    """Settings that are tried for a method: 2 or more, for `tpe` at least 15. A choice at the edge
    of its range adds one or two."""

    seeds: Seeds = Field(default_factory=lambda: [101, 102])
    """Seeds of the trainings of each trial, at least one: 0 to 4294967295; none that
    `training.seeds` has, so that the comparison repeats none of them."""

    sampler: Literal["grid", "tpe"] = "grid"
    """`grid` takes evenly spaced values of one setting, or all combinations of several; `tpe`
    (Optuna's, with a fixed seed) looks for good ones among several."""

    epochs: Count | None = None
    """Passes over the training split in a trial: 1 or more; null: as many as `training.epochs`."""

    @field_validator("sampler")
    @classmethod
    def _learn_from_enough(cls, sampler: str, info: ValidationInfo) -> str:
        trials = info.data.get("trials", TPE_TRIALS)
        if sampler == "tpe" and trials < TPE_TRIALS:
            raise ValueError(f"tpe needs {TPE_TRIALS} trials or more, which are {trials}")
        return sampler


class Space(Section):
    """The values of one setting that a search tries, in Optuna's words: a range or choices.

    The key is the setting's own, with dots: `learning_rate`, `lora.r`. Where a method has no
    `search`, or null, the values that it names are taken.
    """

    low: FiniteFloat | None = None
    """Smallest value, any number that the setting may be; a choice at this end of a grid's range
    adds values below it."""

    high: FiniteFloat | None = None
    """Largest value, any number above `low`; likewise."""

    log: bool = False
    """Whether neighbouring values have the same ratio instead of the same difference; `low` is
    then above 0."""

    step: Positive | None = None
    """Difference between neighbouring values: above 0, not with `log`; null: by the number of
    trials."""

    choices: Annotated[list[Any], Field(min_length=2)] | None = Field(
        default=None, validate_default=True
    )
    """The values themselves, two or more, instead of a range."""

    @field_validator("high")
    @classmethod
    def _rise(cls, high: float | None, info: ValidationInfo) -> float | None:
        low = info.data.get("low")
        if low is not None and high is not None and not low < high:
            raise ValueError(f"must be above low: {low:g}")
        return high

    @field_validator("log")
    @classmethod
    def _start_above_zero(cls, log: bool, info: ValidationInfo) -> bool:
        low = info.data.get("low")
        if log and low is not None and low <= 0:
            raise ValueError(f"needs a low above 0, which is {low:g}")
        return log

    @field_validator("step")
    @classmethod
    def _stay_within(cls, step: float | None, info: ValidationInfo) -> float | None:
        low, high = info.data.get("low"), info.data.get("high")
        if step is not None and info.data.get("log"):
            raise ValueError("does not go with log: true")
        if step is not None and low is not None and high is not None and step > high - low:
            raise ValueError(f"must be at most high - low: {high - low:g}")
        return step

    @field_validator("choices")
    @classmethod
    def _be_one_of_two(cls, choices: list[Any] | None, info: ValidationInfo) -> list[Any] | None:
        given = [key for key in ("low", "high", "log", "step") if info.data.get(key)]
        if choices is None and {"low", "high"} <= {*info.data}:
            missing = [key for key in ("low", "high") if info.data[key] is None]
            if missing:
                raise ValueError(f"needs low and high, or choices; missing: {', '.join(missing)}")
        if choices is not None and given:
            raise ValueError(f"choices go without {', '.join(given)}")
        if choices is not None and len({*map(repr, choices)}) < len(choices):
            raise ValueError("one of the choices stands twice")
        return choices

    def count(self, trials: int) -> int:
        """Return how many values a grid takes, if it may take `trials` of a range."""
        if self.choices is not None:
            return len(self.choices)
        if self.step is None:
            return trials
        low, high = self.ends
        return math.floor((high - low) / self.step + 1e-9) + 1

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the range."""
        assert self.low is not None
        assert self.high is not None, "it has choices, and no range"
        return self.low, self.high

    def at(self, place: int, count: int, whole: bool) -> float | int:
        """Return a value of the evenly spaced ones in the range, or beyond it.

        Args:
            place: Its place: 0 is `low`, count - 1 the last in the range; others lie outside.
            count: How many there are in the range, as `count` says.
            whole: Whether the setting is a whole number.
        """
        low, high = self.ends
        if self.step is None and place in (0, count - 1):
            return self.extremes(whole)[min(place, 1)]  # type: ignore[no-any-return]
        if self.step is not None:
            value = low + place * self.step
        elif self.log:
            value = low * (high / low) ** (place / (count - 1))
        else:
            value = low + (high - low) * place / (count - 1)
        # Six digits: what stands in a table is what was computed with.
        return round(value) if whole else float(f"{value:.6g}")

    def values(self, trials: int, whole: bool) -> list[Any]:
        """Return the values of a grid, in order, none twice.

        Args:
            trials: How many to take of a range without `step`.
            whole: Whether the setting is a whole number.
        """
        if self.choices is not None:
            return self.choices
        count = self.count(trials)
        return list(dict.fromkeys(self.at(place, count, whole) for place in range(count)))

    def extremes(self, whole: bool) -> list[Any]:
        """Return the values that all others lie between; all choices.

        Args:
            whole: Whether the setting is a whole number.
        """
        if self.choices is not None:
            return self.choices
        return [int(end) if whole and end == int(end) else end for end in self.ends]


def count_trials(search: Mapping[str, Space] | None, tuning: TuningParams) -> int:
    """Return the most settings that a search tries, but for those beyond a range; 0 without one.

    Args:
        search: The search of a method, if it has one.
        tuning: The budget.
    """
    if search is None:
        return 0
    if tuning.sampler == "tpe":
        return tuning.trials
    return math.prod(space.count(tuning.trials) for space in search.values())


def is_whole(section: type[Section], key: str) -> bool:
    """Return whether the setting of a section under a dotted key is a whole number.

    Args:
        section: The section.
        key: The key, of a setting that is there.
    """
    first, _, rest = key.partition(".")
    kinds = {*_kinds(section.model_fields[first].annotation)}
    if rest:
        (inner,) = (k for k in kinds if isinstance(k, type) and issubclass(k, Section))
        return is_whole(inner, rest)
    return int in kinds and float not in kinds


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield the types that a field may have, list's and dict's own left out."""
    if isinstance(annotation, type) and annotation is not NoneType:
        yield annotation
    for argument in get_args(annotation):
        yield from _kinds(argument)
