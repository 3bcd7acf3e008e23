"""Settings of the verdict: ranges, a reference that is a method, a positive class of the data."""

import re
from pathlib import Path

import pytest

from lora_compare.errors import ParamsError
from lora_compare.params import parse_params, require_costs, require_positive

TEXT = (Path(__file__).resolve().parents[3] / "recipes" / "default.yaml").read_text()


def changed(key: str, value: str) -> str:
    """The default with another value of a setting of `comparison`."""
    before, after = TEXT.split("\ncomparison:\n")
    after, times = re.subn(rf"(?m)^(  {key}:) \S+", rf"\1 {value}", after)
    assert times == 1
    return f"{before}\ncomparison:\n{after}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("metric", "macro_f1"),
        ("reference", "lora"),
        ("margin", "0.005"),
        ("level", "0.1"),
        ("cost", "training_state_bytes"),
    ],
)
def test_the_verdicts_settings_are_read(key: str, value: str) -> None:
    assert str(getattr(parse_params(changed(key, value)).comparison, key)) == value


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("metric", "f1", "comparison.metric: should be 'accuracy'"),
        ("margin", "0", "comparison.margin: should be greater than 0"),
        ("margin", "2", "comparison.margin: should be less than 1"),
        ("level", "95", "comparison.level: should be less than 1"),
        ("cost", "euros", "comparison.cost: should be 'trainable_parameters'"),
        (
            "reference",
            "Lora",
            "comparison: reference should be one of the methods (full, lora), not 'Lora'",
        ),
    ],
)
def test_what_it_does_not_know_is_refused_with_what_it_does(
    key: str, value: str, expected: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        parse_params(changed(key, value))
    assert expected in caught.value.where


def test_a_positive_class_that_the_data_does_not_have_is_refused() -> None:
    require_positive(None, ["ham", "spam"])
    require_positive("ham", ["ham", "spam"])
    with pytest.raises(ParamsError) as caught:
        require_positive("Spam", ["ham", "spam"])
    assert (caught.value.expected, caught.value.actual) == ("'ham', 'spam'", "Spam")
    with pytest.raises(ParamsError) as caught:
        require_positive("x", [f"c{i}" for i in range(700)])
    assert caught.value.expected == "'c0', 'c1', 'c2', 'c3', 'c4' and 695 more"


def test_costs_are_of_mistakes_and_0_or_more() -> None:
    params = parse_params(changed("costs", "{ham: {spam: 10, x: 0}}"))
    assert params.comparison.costs == {"ham": {"spam": 10.0, "x": 0.0}}
    for value, expected in {
        "{ham: {ham: 1}}": "a right answer costs nothing; leave 'ham' out of its own row",
        "{ham: {spam: -1}}": "comparison.costs.ham.spam: should be greater than or equal to 0",
        "{ham: {spam: .inf}}": "comparison.costs.ham.spam",
        "{ham: 3}": "comparison.costs.ham",
        "5": "comparison.costs",
    }.items():
        with pytest.raises(ParamsError) as caught:
            parse_params(changed("costs", value))
        assert expected in caught.value.where, value


def test_what_needs_costs_is_refused_without_them() -> None:
    with pytest.raises(ParamsError) as caught:
        parse_params(changed("metric", "expected_cost"))
    assert "expected_cost needs comparison.costs" in caught.value.where
    threshold = TEXT.replace("threshold: argmax", "threshold: cost")
    with pytest.raises(ParamsError) as caught:
        parse_params(threshold)
    assert "costs should be given, since classifier.threshold is cost" in caught.value.where
    assert parse_params(threshold.replace("costs: null", "costs: {}")).decides
    assert not parse_params(TEXT).decides
    assert parse_params(TEXT.replace("temperature: false", "temperature: true")).decides
    assert parse_params(TEXT.replace("prior: null", "prior: {ham: 0.9, spam: 0.1}")).decides


def test_a_margin_of_costs_may_be_more_than_1() -> None:
    text = changed("metric", "expected_cost").replace("costs: null", "costs: {ham: {spam: 500}}")
    assert parse_params(text.replace("margin: 0.02", "margin: 3.5")).comparison.margin == 3.5


def test_costs_and_a_threshold_must_suit_the_classes_of_the_data() -> None:
    params = parse_params(changed("costs", "{ham: {eggs: 10}, spams: {ham: 2}}"))
    with pytest.raises(ParamsError) as caught:
        require_costs(params, ["ham", "spam"])
    assert caught.value.actual == "'eggs', 'spams'"
    params = parse_params(TEXT.replace("threshold: argmax", "threshold: best_f1"))
    require_costs(params, ["ham", "spam"])
    with pytest.raises(ParamsError) as caught:
        require_costs(params, ["ham", "spam", "x"])
    assert caught.value.where == "params.yaml: classifier.threshold"
    assert caught.value.expected == "argmax, as the data has 3 classes"
