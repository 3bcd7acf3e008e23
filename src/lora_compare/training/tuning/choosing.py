"""Which values a search tries, and which of them it chooses, by what losses they lead to."""

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from lora_compare.errors import TrainingError
from lora_compare.params import MethodParams, Space, TuningParams, is_whole

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

EXTENSIONS = 2
"""Times that a range grows by a step where its end was chosen: an optimum further away than that
is told, not chased at a cost that the other methods do not have."""

TOGETHER = 5
"""Trials that `tpe` asks for at once, whatever the number of processes: it learns after each such
batch, so that another number would ask for others."""

NEAR_AN_END = 0.05
"""Share of a range, at each end, in which what `tpe` has chosen counts as at the edge."""

Settings = Mapping[str, Any]
"""Values of a method's settings by their dotted keys."""


@dataclass(frozen=True)
class Trial:
    """Values that were tried.

    Attributes:
        number: From 1, in the order in which they were tried.
        settings: The values.
        losses: Validation loss in nats with each tuning seed; infinite where training diverged.
    """

    number: int
    settings: Settings
    losses: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean of the losses, infinite if one is."""
        return math.fsum(self.losses) / len(self.losses)

    @property
    def standard_error(self) -> float:
        """The standard error of the mean; 0 of a single loss, which has none."""
        if len(self.losses) == 1:
            return 0.0
        return statistics.stdev(self.losses) / math.sqrt(len(self.losses))


@dataclass(frozen=True)
class Choice:
    """What a search has come to.

    Attributes:
        trial: The trial that was chosen.
        trials: All of them, in the order in which they were tried.
        at_edge: Keys of the settings whose value is at an end of what was tried.
        extended: How often the range was extended.
    """

    trial: Trial
    trials: Sequence[Trial]
    at_edge: Sequence[str] = ()
    extended: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the content of choice.json."""
        return {
            "settings": dict(self.trial.settings),
            "searched": True,
            "at_edge": list(self.at_edge),
            "extended": self.extended,
            "trials": len(self.trials),
        }

    def __str__(self) -> str:
        """Return it in words."""
        values = ", ".join(f"{key} {shown(value)}" for key, value in self.trial.settings.items())
        said = f"{values}: validation loss {self.trial.mean:.4f}, of {len(self.trials)} trials"
        if not self.at_edge:
            return said
        return f"{said}; at an edge of what was tried: {', '.join(self.at_edge)}"


Attempt = Callable[[Sequence[Settings]], list[Trial]]
"""Trains with several settings at once, each with every tuning seed, and returns their trials."""

Possible = Callable[[Settings], bool]
"""Says whether a method can have such settings."""


def choose(
    method: MethodParams, tuning: TuningParams, attempt: Attempt, possible: Possible
) -> Choice:
    """Return the values that a method's search has come to, by validation loss.

    What is chosen depends on nothing but the losses: neither on how many trials run at once nor
    on the order of the search's keys.

    Args:
        method: The method, with a search.
        tuning: The budget.
        attempt: Tries settings.
        possible: Whether the method can have settings beyond a range.

    Raises:
        TrainingError: Every trial has diverged.
    """
    assert method.search is not None
    spaces = dict(sorted(method.search.items()))
    if tuning.sampler == "tpe":
        return _sampled(spaces, tuning, attempt)
    ((key, space), *others) = spaces.items()
    if not others and space.choices is None:
        return _along_a_line(key, space, tuning, attempt, possible)
    return _of_all(spaces, tuning, attempt)


def best(trials: Sequence[Trial]) -> Trial:
    """Return the trial of the lowest mean loss, of equal ones the first.

    Raises:
        TrainingError: Every trial has diverged.
    """
    found = min(trials, key=lambda trial: trial.mean)
    if math.isinf(found.mean):
        raise TrainingError(
            "No trial of the search has a finite loss with every seed.",
            where=f"{len(trials)} trials of {', '.join(found.settings)}",
            expected="one that can be chosen",
            kept="the trials, which are not trained again",
            next="search lower learning rates, or set training.max_grad_norm, in params.yaml",
        )
    return found


def middle(trials: Sequence[Trial]) -> Trial:
    """Return the middle one of the trials that are within one standard error of the best.

    Losses along a setting such as the learning rate form a plateau, and behind it a cliff: the
    lowest of a few noisy losses may stand at its brink, the middle does not. Of two in the middle
    it is the one of the lower mean. The standard error is that of the best trial's mean: one of
    the differences to it would grow with the noise of a trial over the cliff, and let that in.

    Args:
        trials: In the order of their values.

    Raises:
        TrainingError: Every trial has diverged.

    Source: the one standard error rule of Breiman et al. 1984, Classification and Regression
        Trees, section 3.4.3.
    """
    lowest = best(trials)
    near = [trial for trial in trials if trial.mean <= lowest.mean + lowest.standard_error]
    half = (len(near) - 1) // 2
    return best(near[half : len(near) - half])


def _along_a_line(
    key: str, space: Space, tuning: TuningParams, attempt: Attempt, possible: Possible
) -> Choice:
    """Return the choice of a single setting with a range, which grows where its end is chosen."""
    whole = is_whole(MethodParams, key)
    count = space.count(tuning.trials)
    trials = attempt([{key: value} for value in space.values(tuning.trials, whole)])
    places = [0, count - 1]
    for extended in range(EXTENSIONS + 1):
        chosen = middle(trials)
        end = {trials[0].number: -1, trials[-1].number: 1}.get(chosen.number, 0)
        ordered = sorted(trials, key=lambda trial: trial.number)
        if not end:
            return Choice(chosen, ordered, extended=extended)
        place = places[0] - 1 if end < 0 else places[1] + 1
        settings = {key: space.at(place, count, whole)}
        if extended == EXTENSIONS or settings == chosen.settings or not possible(settings):
            break
        if end < 0:
            trials, places[0] = [*attempt([settings]), *trials], place
        else:
            trials, places[1] = [*trials, *attempt([settings])], place
    return Choice(chosen, ordered, [key], extended)


def _of_all(spaces: Mapping[str, Space], tuning: TuningParams, attempt: Attempt) -> Choice:
    """Return the best of all combinations."""
    values = {k: s.values(tuning.trials, is_whole(MethodParams, k)) for k, s in spaces.items()}
    combinations = [dict(zip(values, found, strict=True)) for found in product(*values.values())]
    trials = attempt(combinations)
    chosen = best(trials)
    ranges = [key for key, space in spaces.items() if space.choices is None]
    ends = {key: (values[key][0], values[key][-1]) for key in ranges}
    return Choice(chosen, trials, [k for k in ranges if chosen.settings[k] in ends[k]])


def _sampled(spaces: Mapping[str, Space], tuning: TuningParams, attempt: Attempt) -> Choice:
    """Return the best of what Optuna's tree-structured Parzen estimator has asked for."""
    # Here, because it takes half a second to import.
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=tuning.seeds[0]))
    distributions = {key: _distribution(key, space, tuning) for key, space in spaces.items()}
    trials: dict[int, Trial] = {}
    for first in range(0, tuning.trials, TOGETHER):
        asked = [study.ask(distributions) for _ in range(min(TOGETHER, tuning.trials - first))]
        tried = attempt([dict(_values(spaces, one.params)) for one in asked])
        for one, trial in zip(asked, tried, strict=True):
            study.tell(one, trial.mean)
            trials[trial.number] = trial
    chosen = best([*trials.values()])
    return Choice(chosen, [*trials.values()], [*_near_an_end(spaces, chosen.settings)])


def _distribution(key: str, space: Space, tuning: TuningParams) -> "BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if space.choices is not None:
        return CategoricalDistribution(range(len(space.choices)))  # which may be lists
    low, high = space.ends
    whole = is_whole(MethodParams, key)
    if space.step is not None:  # Optuna warns where the last step ends below `high`
        count = space.count(tuning.trials)
        high = space.at(count - 1, count, whole)
    if whole:
        return IntDistribution(int(low), int(high), space.log, int(space.step or 1))
    return FloatDistribution(low, high, space.log, space.step)


def _values(spaces: Mapping[str, Space], params: Settings) -> Iterator[tuple[str, Any]]:
    for key, space in spaces.items():
        yield key, params[key] if space.choices is None else space.choices[params[key]]


def _near_an_end(spaces: Mapping[str, Space], settings: Settings) -> Iterator[str]:
    for key, space in spaces.items():
        if space.choices is not None:
            continue
        low, value, high = (
            math.log(number) if space.log else number
            for number in (space.ends[0], settings[key], space.ends[1])
        )
        if not NEAR_AN_END <= (value - low) / (high - low) <= 1 - NEAR_AN_END:
            yield key


def shown(value: Any) -> Any:
    """Return a value as it stands in a table: numbers and texts as they are, others as JSON."""
    return value if type(value) in (int, float, str) else json.dumps(value)
