"""Classes are shared out exactly, and one that is too small is named with what helps."""

from fractions import Fraction
from typing import Any

import pytest

from lora_compare.data.classes import (
    apportion,
    balanced_pool,
    count_available,
    describe_balance,
    likely_cause,
    proportional_sizes,
    require_in_every_split,
    show_counts,
    stratified_sizes,
)
from lora_compare.data.splits import split
from lora_compare.data.splits.describing import describe_split
from lora_compare.errors import DataError
from lora_compare.project.corpus import make_corpus
from split_settings import split_settings


def test_apportion_rounds_by_largest_remainder() -> None:
    assert apportion(10, [Fraction(7, 10), Fraction(1, 10), Fraction(2, 10)]) == [7, 1, 2]
    assert apportion(9, [Fraction(7, 10), Fraction(1, 10), Fraction(2, 10)]) == [6, 1, 2]
    assert apportion(5, [Fraction(1), Fraction(1)]) == [3, 2]
    assert apportion(0, [Fraction(0), Fraction(0)]) == [0, 0]


@pytest.mark.parametrize("deduplicate", ["exact", "none"])
def test_what_is_available_is_what_the_split_shares_out(deduplicate: str) -> None:
    labels = ["a", "b"] * 40 + ["b"] * 20
    texts = [f"text {i % 45}" for i in range(len(labels))]
    settings_ = split_settings(deduplicate=deduplicate, balance="none")
    _, metrics = split(make_corpus(labels, texts), settings_)
    shared = {c: sum(p["classes"][c] for p in metrics["splits"].values()) for c in "ab"}
    assert count_available({"label": labels, "text": texts}, settings_) == shared


def refusal(counts: dict[str, int], **settings: Any) -> DataError:
    settings_ = split_settings(**settings)
    with pytest.raises(DataError) as error:
        require_in_every_split(stratified_sizes(counts, settings_), counts, settings_)
    return error.value


def test_of_many_small_classes_the_five_rarest_are_named_and_all_counted() -> None:
    error = refusal({f"n{i}": 1 + i % 2 for i in range(330)} | {"large": 900})
    assert error.actual.splitlines() == [
        *(f"n{i}: 1 messages, none in validation, test" for i in (0, 10, 100, 102, 104)),
        "... and 326 more classes",
    ]
    assert "data.label_column" in error.where
    cut = refusal({"a": 2, "b": 500}).actual.splitlines()[1]
    assert cut.startswith("b: 500 messages, cut to 2 by split.balance: undersample, none in")
    assert len(str(error).splitlines()) < 14


@pytest.mark.parametrize(
    ("counts", "settings_"),
    [
        ({"a": 6, "b": 500}, {}),
        ({"a": 7, "b": 30, "c": 400}, {}),
        ({"a": 5, "b": 5}, {"balance": "none"}),
        ({"a": 5, "b": 5, "c": 5}, {}),
        ({"a": 4, "b": 40}, {"train": 0.8, "validation": 0.05}),
    ],
)
def test_the_setting_that_is_advised_helps(
    counts: dict[str, int], settings_: dict[str, Any]
) -> None:
    advice = refusal(counts, **settings_).next
    changes = dict(part.split(": ") for part in advice.split(" in params")[0][4:].split(", "))
    typed = {key.removeprefix("split."): value for key, value in changes.items()}
    helped = split_settings(
        **settings_ | {k: v if k == "balance" else float(v) for k, v in typed.items()}
    )
    require_in_every_split(stratified_sizes(counts, helped), counts, helped)


def test_where_no_setting_helps_none_is_advised() -> None:
    assert "label more messages" in refusal({"a": 2, "b": 500}).next
    assert "set split" not in refusal({"a": 2, "b": 500}).next


@pytest.mark.parametrize(
    ("labels", "cause"),
    [
        (
            [str(i % 330) for i in range(400)],
            "330 classes for 400 messages look like an identifier",
        ),
        (["0", "0,1", "1", "1,0", "0,2", "2"] * 9, "'0,1' look like several"),
        (["joy|fear", "joy", "fear|joy", "anger"] * 9, "'joy|fear' look like several"),
        (["[3]", "[3, 7]", "[7]"] * 9, "'[3, 7]' look like several"),
        (["0", "1.0", "0.0", "1"] * 9, "the labels '1' and '1.0' look like one number"),
        (["1.5", "1", "2.0"] * 9, ""),
        (["ham", "spam"] * 9, ""),
        (["Smith, J.", "Doe, A.", "Roe, B."] * 9, ""),
        (["a", "b", "c", "a"], ""),
    ],
)
def test_a_column_that_holds_no_classes_is_recognized(labels: list[str], cause: str) -> None:
    counts = {label: labels.count(label) for label in labels}
    found = likely_cause(counts)
    assert cause in found
    assert bool(cause) == bool(found)


def test_shares_are_those_of_the_modes() -> None:
    counts = {"ham": 4602, "spam": 637}
    for balance, train, test in (
        ("train", (446, 446), (921, 127)),
        ("undersample", (446, 446), (127, 127)),
        ("none", (3221, 446), (921, 127)),
    ):
        sizes = stratified_sizes(counts, split_settings(twins="together", balance=balance))
        assert tuple(sizes["train"].values()) == train
        assert tuple(sizes["test"].values()) == test
    # One by one, a split's total is exact: 254.8 messages are 255.
    assert sum(stratified_sizes(counts, split_settings())["test"].values()) == 255


def test_cutting_train_says_what_is_left_out_of_train() -> None:
    params = split_settings(balance="train")
    available = {"ham": 4602, "spam": 637}
    pool = balanced_pool(proportional_sizes(available, params), available, params)
    assert describe_balance(pool, params) == (
        "split.balance: train leaves out 2,775 of 3,667 train messages, since 'spam', the rarest "
        "class, has 446 there; none keeps them all"
    )
    found = {"train": {"ham": 446, "spam": 446}, "unused": {"ham": 2775, "spam": 0}}
    assert balanced_pool(found, available, params) == pool


def test_what_was_cut_and_kept_together_is_said() -> None:
    found = {"near_duplicates": {"groups": 320, "messages": 943, "largest": 17}}
    assert describe_split(found, split_settings(balance="train", twins="together")) == (
        "train is cut to its smallest class, validation and test keep the data's shares; "
        "943 messages are in 320 groups of near-duplicates, none in two splits; "
        "the largest group has 17"
    )
    assert describe_split({}, split_settings()) == "every split is cut to its smallest class"


def test_undersampling_that_leaves_most_out_names_the_rarest_class() -> None:
    said = describe_balance({"common": 500, "rare": 12}, split_settings())
    assert said.startswith("warning: split.balance: undersample leaves out 488 of 512 messages")
    assert "'rare', the rarest class, has 12" in said
    assert describe_balance({"common": 500, "rare": 12}, split_settings(balance="none")) == ""
    assert describe_balance({"common": 30, "rare": 12}, split_settings()) == ""
    # Enough is left to train on: a fact, no warning.
    assert describe_balance({"ham": 4600, "spam": 637}, split_settings()).startswith(
        "split.balance"
    )


def test_counts_of_many_classes_are_a_few_words() -> None:
    counts = {f"c{i}": 1000 + i for i in range(300)}
    assert show_counts(counts, 2) == "1,000 c0, 1,001 c1, ... and 298 more classes"
    assert show_counts({"a": 1}) == "1 a"
