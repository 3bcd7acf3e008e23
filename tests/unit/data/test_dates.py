"""What is tested on is newer than all that is learned from, and no date is in two splits."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grouped_messages import make_customers
from lora_compare.data.classes import apportion, split_shares
from lora_compare.data.splits import split
from lora_compare.data.splits.dates import split_by_time
from lora_compare.errors import DataError
from lora_compare.project.corpus import make_corpus
from split_settings import split_settings

APART = split_settings(balance="none")


def dated(days: list[int]) -> pd.DataFrame:
    """Return messages of two classes with these days of 2026."""
    times = [f"2026-{1 + day // 28:02}-{1 + day % 28:02}T00:00:00" for day in days]
    texts = [f"message {i}" for i in range(len(days))]
    return make_corpus([("ham", "spam")[i % 2] for i in range(len(days))], texts, time=times)


@pytest.mark.parametrize("twins", ["apart", "together"])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("balance", ["none", "train", "undersample"])
def test_test_is_newer_than_all_that_is_learned_from(
    twins: str, grouped: bool, balance: str
) -> None:
    corpus = make_customers(150)
    corpus = corpus if grouped else corpus.drop(columns="group")
    frames, metrics = split(corpus, split_settings(twins=twins, balance=balance))
    known = corpus.set_index("text")
    times = {name: known["time"][frame["Text"]] for name, frame in frames.items()}
    assert times["train"].max() < times["validation"].min()
    assert times["validation"].max() < times["test"].min()
    assert metrics["time"]["spans"] == {
        part: [times[part].min(), times[part].max()] for part in ("train", "validation", "test")
    }
    if balance != "undersample":
        assert times["test"].max() == corpus["time"].max()
    if grouped:
        groups = {name: {*known["group"][frame["Text"]]} for name, frame in frames.items()}
        assert not groups["test"] & (groups["train"] | groups["validation"] | groups["unused"])
        assert not groups["validation"] & groups["train"]
        assert metrics["time"]["left_out"] > 0
    else:
        assert metrics["time"]["left_out"] == 0
    if balance == "none":
        sizes = {part: metrics["splits"][part]["n"] for part in ("train", "validation", "test")}
        assert sum(sizes.values()) + metrics["time"]["left_out"] == len(corpus)
        assert abs(sizes["test"] - 0.2 * len(corpus)) <= 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=5, max_size=40),
    st.sampled_from([(0.7, 0.1), (0.5, 0.25), (0.34, 0.33)]),
    st.integers(0, 99),
)
def test_borders_are_the_nearest_changes_of_date(
    counts: list[int], shares: tuple[float, float], seed: int
) -> None:
    days = np.repeat(np.arange(len(counts)), counts)
    np.random.RandomState(seed).shuffle(days)
    pool = dated(days.tolist())
    params = APART.model_copy(update={"train": shares[0], "validation": shares[1], "seed": seed})
    try:
        rows = split_by_time(pool, np.arange(len(pool)), params)
    except DataError:
        return
    parts = [rows[part] for part in ("train", "validation", "test")]
    assert sorted(np.concatenate(parts)) == [*range(len(pool))]
    spans = [{*days[own]} for own in parts]
    assert max(spans[0]) < min(spans[1])
    assert max(spans[1]) < min(spans[2])
    # No other change of date is nearer to where test should begin.
    target = sum(apportion(len(pool), list(split_shares(params).values()))[:2])
    assert abs(len(pool) - len(parts[2]) - target) == min(abs(np.cumsum(counts) - target))


def test_of_equally_near_dates_the_earlier_is_taken_and_validation_has_one() -> None:
    pool = dated(np.repeat(np.arange(4), 25).tolist())
    rows = split_by_time(pool, np.arange(100), APART)
    assert {part: len(rows[part]) for part in ("train", "validation", "test")} == {
        "train": 50,
        "validation": 25,
        "test": 25,
    }


def refused(pool: pd.DataFrame, groups: list[int] | None = None) -> str:
    numbers = np.arange(len(pool)) if groups is None else np.array(groups)
    with pytest.raises(DataError, match="do not part the messages") as error:
        split_by_time(pool, numbers, APART)
    return str(error.value)


def test_one_date_only_is_refused() -> None:
    message = refused(dated([3] * 50))
    assert "all messages have one date; 0 of 35 in train" in message
    assert "data.time_column: null" in message


def test_a_date_of_most_messages_is_refused_with_its_count() -> None:
    message = refused(dated([*range(20), *[20] * 80]))
    assert "21 dates; 80 of 100 messages have 2026-01-21T00:00:00" in message


def test_a_group_that_lasts_all_the_time_is_refused_with_what_it_leaves_out() -> None:
    message = refused(dated([*range(100)]), [0] * 100)
    assert "80 messages are left out, whose group has newer ones in a later split" in message
    assert "split.twins: apart" in message


def test_of_a_repeated_text_the_newest_stays() -> None:
    corpus = dated([*range(100)])
    corpus.loc[[2, 50, 99], "text"] = "the same"
    frames, metrics = split(corpus, split_settings(balance="none"))
    assert metrics["duplicates_removed"] == 2
    assert "the same" in set(frames["test"]["Text"])


def test_a_class_that_only_new_messages_have_is_refused() -> None:
    corpus = dated([*range(100)])
    corpus.loc[90:, "label"] = "complaint"
    with pytest.raises(DataError) as error:
        split(corpus, split_settings(balance="none"))
    assert "1 of 3 classes are missing in train" in str(error.value)
    assert "complaint: 0 in train, 0 in validation, 10 in test" in str(error.value)
    assert "params.yaml: data.time_column" in str(error.value)
