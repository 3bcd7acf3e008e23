"""A method's search: which values it tries, and what is refused of it before anything runs."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from lora_compare.errors import ParamsError
from lora_compare.params import MethodParams, Params, Space, is_whole, parse_params
from unit.params.test_params import TEXT

RATE = "learning_rate: 2.0e-3"


def with_search(search: str, **tuning: str) -> str:
    """Return the default parameters in which the method lora has a search."""
    text = TEXT.replace(RATE, f"{RATE}\n    search: {search}", 1)
    for key, value in tuning.items():
        text = re.sub(rf"(?m)^(tuning: .*{key}:) (\[.*?\]|\w+)", rf"\1 {value}", text)
    return text


def mistakes(text: str) -> str:
    with pytest.raises(ParamsError) as caught:
        parse_params(text)
    return str(caught.value)


def lora() -> MethodParams:
    return parse_params(TEXT).method("lora")


@pytest.mark.parametrize(
    ("space", "whole", "expected"),
    [
        ({"low": 5e-5, "high": 8e-4, "log": True}, False, [5e-5, 0.000125992, 0.00031748, 8e-4]),
        ({"low": 0.0, "high": 0.3}, False, [0.0, 0.1, 0.2, 0.3]),
        ({"low": 0.1, "high": 0.9999999}, False, [0.1, 0.4, 0.7, 0.9999999]),
        ({"low": 0.0, "high": 0.35, "step": 0.1}, False, [0.0, 0.1, 0.2, 0.3]),
        ({"low": 1, "high": 64, "log": True}, True, [1, 4, 16, 64]),
        ({"low": 1, "high": 3}, True, [1, 2, 3]),  # four places, three whole numbers
        ({"choices": ["none", "all"]}, False, ["none", "all"]),
    ],
)
def test_a_grid_is_evenly_spaced(space: dict[str, Any], whole: bool, expected: list[Any]) -> None:
    values = Space(**space).values(4, whole)
    assert values == expected
    assert [type(value) for value in values] == [type(value) for value in expected]


def test_beyond_a_range_the_spacing_is_the_same() -> None:
    space = Space(low=1e-3, high=8e-3, log=True)
    assert [space.at(place, 4, False) for place in (-2, -1, 4, 5)] == [2.5e-4, 5e-4, 0.016, 0.032]


@pytest.mark.parametrize(
    ("key", "whole"),
    [
        ("learning_rate", False),
        ("lora.r", True),
        ("lora.lora_alpha", False),
        ("lora.bias", False),
        ("lora.use_dora", False),
    ],
)
def test_the_type_of_a_setting_says_whether_it_is_a_whole_number(key: str, whole: bool) -> None:
    assert is_whole(MethodParams, key) is whole


def test_a_method_takes_what_was_chosen_and_has_no_search_then() -> None:
    method = parse_params(with_search("{lora.r: {choices: [1, 4]}}")).method("lora")
    chosen = method.with_settings({"lora.r": 4, "learning_rate": 1e-3})
    assert chosen.lora is not None
    assert (chosen.lora.r, chosen.learning_rate, chosen.search) == (4, 1e-3, None)
    assert chosen.weight_decay == method.weight_decay
    assert lora().with_settings({}) == lora()
    with pytest.raises(ValidationError):
        method.with_settings({"lora.r": 0})


def test_a_search_is_read_as_it_is_written() -> None:
    text = with_search("{learning_rate: {low: 5.0e-4, high: 8.0e-3, log: true}}")
    search = parse_params(text).method("lora").search
    assert search == {"learning_rate": Space(low=5e-4, high=8e-3, log=True)}
    assert parse_params(text).flat()["methods.lora.search.learning_rate.log"] is True


def test_without_its_section_the_default_tuning_holds() -> None:
    lines = [line for line in TEXT.splitlines() if not line.startswith("tuning:")]
    assert parse_params("\n".join(lines)).tuning == Params.model_fields["tuning"].default


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("{learning_rat: {choices: [1, 2]}}", ".learning_rat: no setting of this method that can"),
        ("{learning_rat: {choices: [1, 2]}}", "did you mean learning_rate?"),
        ("{trainable: {choices: [all, lora]}}", ".trainable: no setting of this method"),
        ("{r: {choices: [1, 2]}}", ".r: no setting of this method that can be searched"),
        ("{lora: {choices: [1, 2]}}", ".lora: no setting of this method"),
        ("{}", ": name at least one setting, or write null"),
        ("{learning_rate: {low: 1.0e-3}}", "needs low and high, or choices; missing: high"),
        ("{learning_rate: {}}", "missing: low, high"),
        ("{learning_rate: {low: 2, high: 1}}", ".learning_rate.high: must be above low: 2, not 1"),
        ("{learning_rate: {low: 1, high: 1}}", ".learning_rate.high: must be above low: 1"),
        (
            "{lora.lora_dropout: {low: 0.0, high: 0.5, log: true}}",
            ".lora.lora_dropout.log: needs a low above 0, which is 0",
        ),
        ("{learning_rate: {low: 1, high: 2, log: true, step: 1}}", "does not go with log: true"),
        ("{learning_rate: {low: 1, high: 2, step: 3}}", "step: must be at most high - low: 1"),
        ("{lora.r: {choices: [1, 2], low: 1}}", ".lora.r.choices: choices go without low"),
        ("{lora.r: {choices: [1, 1]}}", "one of the choices stands twice"),
        ("{lora.r: {choices: [1]}}", "at least 2"),
        ("{lora.r: {lwo: 1, high: 2}}", ".lora.r.lwo: unknown key; did you mean low?"),
        ("{lora.r: {low: 0, high: 4}}", ".lora.r: should be greater than or equal to 1, not 0"),
        ("{lora.r: {low: 1.5, high: 4}}", ".lora.r: should be a whole number, not 1.5"),
        ("{lora.r: {low: 1, high: 4, step: 0.5}}", ".lora.r.step: should be a whole number, not"),
        ("{lora.r: {choices: [1, 600]}}", ".lora.r: "),
        ("{lora.bias: {low: 0, high: 4}}", ".lora.bias: should be 'none', 'all' or 'lora_only'"),
        ("{lora.bias: {choices: [none, some]}}", "'lora_only', not 'some'"),
        ("{lora.use_dora: {choices: [1, 0]}}", ".lora.use_dora: should be true or false, not 1"),
        ("{lora.target_modules: {choices: [all-linear, [q_prj]]}}", ".lora.target_modules: "),
        (
            "{lora.layers_to_transform: {choices: [null, [0]]}, "
            "lora.target_modules: {choices: [all-linear, .*q_proj]}}",
            ": lora.layers_to_transform [0], lora.target_modules '.*q_proj' cannot be together",
        ),
        (
            "{learning_rate: {low: 1.0e-4, high: 1.0e-3, log: true}, lora.r: {choices: [1, 2]}}",
            ": 4 x 2 = 8 values are more than tuning.trials: 4; name fewer by choices or step, "
            "raise tuning.trials, or take tuning.sampler: tpe",
        ),
        (
            "{lora.r: {low: 1, high: 9, step: 2}}",
            ": 5 values are more than tuning.trials: 4",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused_with_its_key(search: str, expected: str) -> None:
    said = mistakes(with_search(search))
    assert "methods.lora.search" in said
    assert expected in said


def test_an_imported_method_is_not_searched() -> None:
    with pytest.raises(ValidationError, match="trains nothing; remove search"):
        MethodParams.model_validate(
            {
                "trainable": "imported",
                "adapter": "inputs/adapters/theirs",
                "sha256": "0" * 64,
                "config_sha256": "0" * 64,
                "search": {"learning_rate": {"low": 1.0, "high": 2.0}},
            }
        )


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("trials", "1", "tuning.trials: should be greater than or equal to 2, not 1"),
        ("seeds", "[]", "tuning.seeds"),
        ("seeds", "[0, 0]", "tuning.seeds: the seed 0 stands twice"),
        ("sampler", "tpe", "tuning.sampler: tpe needs 15 trials or more, which are 4"),
        ("sampler", "random", "tuning.sampler: should be 'grid' or 'tpe', not 'random'"),
        ("epochs", "0", "tuning.epochs"),
    ],
)
def test_a_budget_outside_the_rules_is_refused(key: str, value: str, expected: str) -> None:
    assert expected in mistakes(with_search("null", **{key: value}))


def test_several_settings_go_with_tpe() -> None:
    search = "{learning_rate: {low: 1.0e-4, high: 1.0e-3, log: true}, lora.r: {low: 1, high: 8}}"
    text = with_search(search, trials="15", sampler="tpe")
    assert len(parse_params(text).method("lora").search or {}) == 2


def test_parameters_take_what_the_searches_of_their_methods_have_come_to() -> None:
    params = parse_params(with_search("{lora.r: {choices: [1, 4]}}"))
    chosen = params.with_choices({"lora": {"lora.r": 1}, "full": {}})
    assert (chosen.method("lora").flat()["lora.r"], chosen.method("lora").search) == (1, None)
    assert chosen.method("full") == params.method("full")
    # Of an earlier search:
    assert params.with_choices({"lora": {"learning_rate": 1.0}}) == params
