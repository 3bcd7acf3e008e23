"""Settings of the verdict: ranges, a reference that is a method, a positive class of the data."""

import re
from pathlib import Path

import pytest

from lora_compare.errors import ParamsError
from lora_compare.params import parse_params, require_positive

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
