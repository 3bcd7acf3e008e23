"""What a search tries and chooses, with trainings whose losses are known."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lora_compare.errors import TrainingError
from lora_compare.params import MethodParams, TuningParams
from lora_compare.training.tuning.choosing import Settings, Trial, choose, middle

Losses = Callable[[Settings], tuple[float, ...]]

RATES = {"learning_rate": {"low": 1e-3, "high": 8e-3, "log": True}}
"""A grid of four: 1, 2, 4 and 8 thousandths."""

LORA = {"r": 16, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": "all-linear"}


def method(search: dict[str, Any]) -> MethodParams:
    settings = {"trainable": "lora", "learning_rate": 1e-3, "weight_decay": 0.0, "search": search}
    return MethodParams.model_validate({**settings, "lora": {**LORA, "bias": "none"}})


class Trials:
    """Tries settings as a stage does, each once, by losses that a function gives."""

    def __init__(self, losses: Losses) -> None:
        self.losses = losses
        self.tried: list[Settings] = []
        self.batches: list[int] = []

    def __call__(self, settings: Sequence[Settings]) -> list[Trial]:
        self.batches.append(len(settings))
        for one in settings:
            if one not in self.tried:
                self.tried.append(one)
        return [Trial(self.tried.index(s) + 1, s, self.losses(s)) for s in settings]


def search(
    spaces: dict[str, Any],
    losses: Losses,
    possible: Callable[[Settings], bool] = lambda settings: True,
    **tuning: Any,
) -> tuple[dict[str, Any], Trials]:
    trials = Trials(losses)
    return choose(method(spaces), TuningParams(**tuning), trials, possible).to_dict(), trials


def by_rate(*losses: tuple[float, ...]) -> Losses:
    """Return the losses of the grid's rates and of those beyond, each a list by place."""
    return lambda settings: losses[round(math.log2(settings["learning_rate"] / 1e-3))]


def trials(*losses: tuple[float, ...]) -> list[Trial]:
    return [Trial(n, {"learning_rate": n}, loss) for n, loss in enumerate(losses, start=1)]


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        # The best has 0.30 and a standard error of 0.10; of three within it the middle one.
        ([(0.5, 0.7), (0.38, 0.40), (0.35, 0.37), (0.2, 0.4)], 3),
        # A plateau of four: of the two in the middle the lower.
        ([(0.3, 0.5), (0.38, 0.41), (0.38, 0.40), (0.4, 0.4)], 3),
        ([(0.3, 0.5), (0.38, 0.40), (0.38, 0.41), (0.4, 0.4)], 2),
        # Two seeds that agree leave no doubt.
        ([(0.31, 0.31), (0.3, 0.3), (0.32, 0.32), (0.4, 0.4)], 2),
        # One seed has no standard error.
        ([(0.31,), (0.3,), (0.29,), (0.4,)], 3),
        # Over the cliff with one seed: its own noise does not let it in.
        ([(0.5, 0.5), (0.3, 0.32), (0.25, 0.9), (math.inf, 0.3)], 2),
        # The earliest of equal ones.
        ([(0.3,), (0.3,), (0.4,), (0.4,)], 1),
    ],
)
def test_the_middle_of_what_is_as_good_as_the_best_is_chosen(
    losses: list[tuple[float, ...]], chosen: int
) -> None:
    assert middle(trials(*losses)).number == chosen


def test_a_choice_within_its_range_ends_the_search() -> None:
    choice, tried = search(RATES, by_rate((0.4,), (0.2,), (0.3,), (math.inf,)), seeds=[7])
    assert choice == {
        "settings": {"learning_rate": 2e-3},
        "searched": True,
        "at_edge": [],
        "extended": 0,
        "trials": 4,
    }
    assert tried.batches == [4]


@pytest.mark.parametrize(
    ("losses", "chosen", "extended", "at_edge", "tried"),
    [
        # Places: 0 to 3 in the range, 4 and 5 above it, -2 and -1 (from behind) below it.
        ({3: 0.2, 4: 0.3}, 8e-3, 1, [], [16e-3]),
        ({3: 0.3, 4: 0.2, 5: 0.25}, 16e-3, 2, [], [16e-3, 32e-3]),
        ({3: 0.3, 4: 0.2, 5: 0.1}, 32e-3, 2, ["learning_rate"], [16e-3, 32e-3]),
        ({3: 0.2, 4: math.inf}, 8e-3, 1, [], [16e-3]),
        ({0: 0.2, -1: 0.3}, 1e-3, 1, [], [0.5e-3]),
        ({0: 0.2, -1: 0.1, -2: 0.05}, 0.25e-3, 2, ["learning_rate"], [0.5e-3, 0.25e-3]),
    ],
)
def test_a_choice_at_an_edge_extends_the_range_twice_at_most(
    losses: dict[int, float], chosen: float, extended: int, at_edge: list[str], tried: list[float]
) -> None:
    def loss(settings: Settings) -> tuple[float, ...]:
        return (losses.get(round(math.log2(settings["learning_rate"] / 1e-3)), 0.9),)

    choice, done = search(RATES, loss)
    assert choice["settings"] == {"learning_rate": chosen}
    assert (choice["extended"], choice["at_edge"]) == (extended, at_edge)
    assert [one["learning_rate"] for one in done.tried[4:]] == tried
    assert choice["trials"] == 4 + len(tried)


def test_a_range_is_not_extended_to_what_cannot_be() -> None:
    choice, tried = search(
        {"lora.r": {"low": 1, "high": 64, "log": True}},
        lambda settings: (1 / settings["lora.r"],),
        lambda settings: settings["lora.r"] <= 128,
    )
    assert [one["lora.r"] for one in tried.tried] == [1, 4, 16, 64]
    assert (choice["settings"], choice["at_edge"]) == ({"lora.r": 64}, ["lora.r"])


def test_whole_numbers_too_close_for_another_step_are_at_the_edge() -> None:
    choice, tried = search(
        {"lora.r": {"low": 2, "high": 3, "log": True}}, lambda settings: (settings["lora.r"],)
    )
    assert [one["lora.r"] for one in tried.tried] == [2, 3]
    assert (choice["settings"], choice["at_edge"]) == ({"lora.r": 2}, ["lora.r"])


def test_of_choices_the_best_is_taken_and_of_equal_ones_the_first() -> None:
    losses = {"none": (0.3, 0.3), "all": (0.2, 0.4), "lora_only": (0.2, 0.39)}
    spaces = {"lora.bias": {"choices": [*losses]}}
    choice, tried = search(spaces, lambda settings: losses[settings["lora.bias"]])
    assert (choice["settings"], choice["at_edge"]) == ({"lora.bias": "lora_only"}, [])
    assert tried.batches == [3]
    choice, _ = search(spaces, lambda settings: (0.2,))
    assert choice["settings"] == {"lora.bias": "none"}


@pytest.mark.parametrize("turned", [False, True])
def test_several_settings_are_tried_in_all_combinations(turned: bool) -> None:
    spaces = {
        "learning_rate": {"low": 0.001, "high": 0.002, "step": 0.001},
        "lora.r": {"choices": [16, 2]},
    }
    spaces = dict(reversed(spaces.items())) if turned else spaces

    def loss(settings: Settings) -> tuple[float, ...]:
        return (settings["learning_rate"] * settings["lora.r"],)

    choice, tried = search(spaces, loss)
    assert tried.tried == [
        {"learning_rate": rate, "lora.r": r} for rate in (0.001, 0.002) for r in (16, 2)
    ]
    assert choice["settings"] == {"learning_rate": 0.001, "lora.r": 2}
    assert choice["at_edge"] == ["learning_rate"]


def test_where_everything_diverges_nothing_is_chosen() -> None:
    with pytest.raises(TrainingError, match="No trial of the search"):
        search(RATES, lambda settings: (0.1, math.inf))


SPACES = {
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "lora.r": {"low": 1, "high": 64, "log": True},
    "lora.lora_dropout": {"low": 0.0, "high": 0.35, "step": 0.1},
    "lora.target_modules": {"choices": ["all-linear", ["q_proj", "v_proj"]]},
}


def rough(settings: Settings) -> tuple[float, ...]:
    """A loss that is lowest at a rate of 0.003, rank 8 and all layers, and infinite above 0.03."""
    if settings["learning_rate"] > 0.03:
        return (math.inf, 0.1)
    loss = abs(math.log10(settings["learning_rate"] / 0.003)) + settings["lora.lora_dropout"] / 10
    loss += abs(math.log2(settings["lora.r"] / 8)) / 10
    return (loss + (settings["lora.target_modules"] != "all-linear"), loss)


def test_tpe_finds_what_is_good_and_asks_for_the_same_again() -> None:
    budget = {"sampler": "tpe", "trials": 33}
    choice, first = search(SPACES, rough, **budget)
    assert first.batches == [5, 5, 5, 5, 5, 5, 3]
    assert choice["trials"] == len(first.tried) <= 33
    assert choice["settings"]["lora.target_modules"] == "all-linear"
    assert 0.001 < choice["settings"]["learning_rate"] < 0.009
    assert all(method(SPACES).with_settings(settings) for settings in first.tried)
    again = search(dict(reversed(SPACES.items())), rough, **budget)[1]
    assert again.tried == first.tried
    other = search(SPACES, rough, seeds=[8], **budget)[1]
    assert other.tried != first.tried


def test_tpe_says_where_its_choice_is_near_an_end() -> None:
    spaces = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
    choice, _ = search(
        spaces, lambda settings: (settings["learning_rate"],), sampler="tpe", trials=30
    )
    assert choice["at_edge"] == ["learning_rate"]
    assert choice["settings"]["learning_rate"] < 1.5e-4
