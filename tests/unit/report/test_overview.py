"""The page's first screen: the axis of differences, and the prices."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comparison_inputs import METHODS, make_params
from lora_compare.report.overview import MOST_TICKS, describe, make_axis, prices, savings


def record(name: str, **figures: Any) -> dict[str, Any]:
    known = {
        "trainable_parameters": 1000,
        "step_cpu_seconds": 0.02,
        "training_state_bytes": 5_000_000,
        "artifact_bytes": 4000,
    }
    return {"method": name, **known, **figures}


def comparison(*methods: dict[str, Any]) -> dict[str, Any]:
    tfidf = record("tfidf", step_cpu_seconds=None, training_state_bytes=None)
    untuned = record("untuned", trainable_parameters=0, artifact_bytes=0)
    names = {method["method"] for method in methods}
    reference = {"full": "full", "lora": "lora"} if {"full", "lora"} <= names else None
    return {"methods": list(methods), "baselines": [tfidf, untuned], "reference": reference}


def pairs_of(*intervals: tuple[float, float], margin: float = 0.02) -> dict[str, Any]:
    return {"margin": margin, "pairs": [{"low": low, "high": high} for low, high in intervals]}


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.001, 0.2))
def test_the_axis_holds_every_interval_and_the_margin_with_ticks_that_fit(
    one: float, two: float, margin: float
):
    low, high = sorted((one, two))
    axis = make_axis(pairs_of((low, high), (-0.001, 0.001), margin=margin))
    assert all(axis.holds(end) for end in (low, high, -margin, 0, margin))
    assert 2 <= len(axis.ticks) <= MOST_TICKS
    assert (axis.ticks[0], axis.ticks[-1]) == (axis.low, axis.high)
    assert 0 in axis.ticks
    assert 0 < axis.place(axis.low) < axis.place(axis.high) < 100


def test_the_axis_is_as_near_as_its_ticks_allow():
    axis = make_axis(pairs_of((-0.009, 0.007), (-0.031, 0.001)))
    assert axis.ticks == (-0.04, -0.02, 0, 0.02)
    assert axis.place(-0.01) == 50
    assert make_axis(pairs_of((-0.009, 0.007), margin=0.01)).ticks == (
        -0.01,
        -0.005,
        0,
        0.005,
        0.01,
    )


def test_what_lies_beyond_the_axis_is_drawn_at_its_end():
    axis = make_axis(pairs_of((-0.009, 0.007)))
    assert not axis.holds(-0.4)
    assert axis.place(-0.4) == axis.place(axis.low)


def test_lora_beside_full_is_a_share_of_every_known_price():
    lora = record("lora", trainable_parameters=30)
    found = comparison(record("full"), lora)
    found["reference"] |= {"parameter_ratio": 0.03, "step_ratio": None, "artifact_ratio": 1.0}
    known = {one["title"]: one for one in savings(found)}
    assert known["trainable parameters"] == {
        "title": "trainable parameters",
        "share": "3 %",
        "lora": "30",
        "full": "1,000",
    }
    assert "step time" not in known
    assert savings(comparison(record("full"))) == []


def test_a_price_is_a_number_a_share_of_full_and_a_part_of_the_dearest():
    table = prices(comparison(record("full"), record("lora", trainable_parameters=140)))
    assert [price["title"] for price in table["lora"]] == [
        "Trainable parameters",
        "Training state",
        "Step time",
        "Artifact size",
    ]
    assert table["lora"][0] == {
        "title": "Trainable parameters",
        "value": "140",
        "share": "14 %",
        "part": 14.0,
    }
    assert [price["share"] for price in table["full"]] == [""] * 4
    assert [price["part"] for price in table["full"]] == [100.0] * 4


def test_what_was_not_paid_is_not_known_and_a_baseline_has_no_part():
    imported = record("theirs", step_cpu_seconds=None, training_state_bytes=None)
    table = prices(comparison(imported, record("head")))
    assert [price["value"] for price in table["theirs"]] == ["1,000", "n/a", "n/a", "4.0 kB"]
    assert [price["part"] for price in table["theirs"]] == [100.0, None, None, 100.0]
    assert [price["value"] for price in table["untuned"]] == ["0", "5.0 MB", "20.0 ms", "n/a"]
    assert {price["part"] for price in table["tfidf"]} == {None}
    assert {price["share"] for rows in table.values() for price in rows} == {""}


def test_of_one_method_there_is_nothing_to_compare_a_price_with():
    table = prices(comparison(record("full")))
    assert [price["part"] for price in table["full"]] == [None] * 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("full", "every weight"),
        ("lora_r4", "LoRA, r = 4"),
        ("last_block", "last block and head"),
        ("untuned", "before any fine-tuning"),
    ],
)
def test_a_method_is_described_in_a_few_words(name: str, words: str):
    assert describe(make_params(tuple(METHODS)))[name] == words
