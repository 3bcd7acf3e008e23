"""Splits of the data stay as they are: repeats leave train, and a validation comes from train."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from grouped_messages import make_customers
from lora_compare.data.splits import deduplicate, plan, split
from lora_compare.data.splits.coverage import describe_missing
from lora_compare.data.splits.describing import describe_split
from lora_compare.errors import DataError
from lora_compare.project.corpus import count_classes, make_corpus
from split_settings import split_settings

PARTS = ("train", "validation", "test")


def settings_(**changes: Any) -> Any:
    return split_settings(**{"balance": "none", "train": None, "validation": None, **changes})


def given(per_part: tuple[int, int, int] = (60, 20, 30), **columns: list[str]) -> pd.DataFrame:
    """Return messages of two classes that say which split they are of."""
    parts = np.repeat(PARTS, per_part)
    np.random.RandomState(3).shuffle(parts)
    n = len(parts)
    words = [f"{np.random.RandomState(i).bytes(12).hex()}" for i in range(n)]
    labels = [("ham", "spam")[i % 3 == 0] for i in range(n)]
    return make_corpus(labels, words, split=list(parts), **columns)


@pytest.mark.parametrize("twins", ["apart", "together"])
def test_nothing_is_moved(twins: str) -> None:
    corpus = given()
    frames, metrics = split(corpus, settings_(twins=twins))
    for part in PARTS:
        assert {*frames[part]["Text"]} == {*corpus["text"][corpus["split"] == part]}
    assert len(frames["unused"]) == 0
    assert metrics["given"] == {
        "validation_from_train": False,
        "train_rows_in_test": 0,
        "validation_rows_in_test": 0,
        "train_rows_in_validation": 0,
    }
    # Messages are not in the file's order: curves look at the first of a split.
    assert list(frames["test"]["Text"]) != list(corpus["text"][corpus["split"] == "test"])


def repeated() -> pd.DataFrame:
    """Return messages of which some stand in several splits."""
    corpus = given()
    places = {part: np.flatnonzero(corpus["split"] == part) for part in PARTS}
    texts = corpus["text"].to_numpy(dtype=object)
    for part, other, n in (("train", "test", 5), ("validation", "test", 3), ("test", "test", 2)):
        texts[places[part][:n]] = texts[places[other][10 : 10 + n]]
    texts[places["train"][20:24]] = texts[places["validation"][10:14]]
    texts[places["train"][30:31]] = texts[places["train"][40:41]]
    return corpus.assign(text=texts.astype(str))


def test_repeats_leave_train_and_never_test() -> None:
    corpus = repeated()
    frames, metrics = split(corpus, settings_())
    assert metrics["given"] == {
        "validation_from_train": False,
        "train_rows_in_test": 5,
        "validation_rows_in_test": 3,
        "train_rows_in_validation": 4 + 3,
    }
    assert sorted(frames["test"]["Text"]) == sorted(corpus["text"][corpus["split"] == "test"])
    assert [len(frames[part]) for part in PARTS] == [60 - 5 - 4 - 1, 20 - 3, 30]
    assert metrics["duplicates_removed"] == 13
    assert metrics["test_rows_with_twin_in_train"]["exact"] == 0
    said = describe_split(metrics, settings_())
    assert (
        "texts in two of them: 5 of train in test, 3 of validation in test, 7 of train in" in said
    )
    assert "7 of train in validation, which were removed; no split is cut" in said


def test_repeats_stay_where_they_are_asked_to() -> None:
    corpus = repeated()
    frames, metrics = split(corpus, settings_(deduplicate="none"))
    assert [len(frames[part]) for part in PARTS] == [60, 20, 30]
    assert metrics["given"]["train_rows_in_test"] == 5
    assert metrics["test_rows_with_twin_in_train"]["exact"] >= 5
    assert "removed" not in describe_split(metrics, settings_(deduplicate="none"))
    assert len(deduplicate(corpus)) == 97


@pytest.mark.parametrize("twins", ["apart", "together"])
def test_a_validation_is_taken_from_train_by_class(twins: str) -> None:
    corpus = given((120, 0, 30))
    frames, metrics = split(corpus, settings_(validation=0.25, twins=twins))
    assert {*frames["test"]["Text"]} == {*corpus["text"][corpus["split"] == "test"]}
    train = count_classes(corpus[corpus["split"] == "train"])
    for part, share in (("validation", 0.25), ("train", 0.75)):
        for name, n in metrics["splits"][part]["classes"].items():
            assert abs(n - share * train[name]) <= 1
    assert metrics["given"]["validation_from_train"]


def test_a_validation_from_train_has_whole_groups_and_no_twins_of_train() -> None:
    corpus = make_customers(150).drop(columns="time")
    corpus["split"] = np.where(corpus["group"].str[1:].astype(int) % 5 == 0, "test", "train")
    corpus.loc[::7, "text"] = [f"template {i % 9} {i}" for i in range(len(corpus[::7]))]
    frames, metrics = split(corpus, settings_(validation=0.2, twins="together"))
    groups = {part: {*frames[part]["Group"]} for part in PARTS}
    assert not groups["validation"] & groups["train"]
    assert metrics["near_duplicates"]["groups"] > 0
    assert metrics["test_rows_with_twin_in_train"]["near"] > 0  # the data's own, and counted


def refused(corpus: pd.DataFrame, **changes: Any) -> str:
    with pytest.raises(DataError) as error:
        split(corpus, settings_(**changes))
    with pytest.raises(DataError) as planned:
        plan(corpus.to_dict("list"), settings_(**changes))
    assert str(error.value) == str(planned.value)
    return str(error.value)


def test_a_split_without_messages_is_refused() -> None:
    message = refused(given((60, 20, 0)))
    assert "The data gives no message of test" in message
    assert "60 train, 20 validation, 0 test" in message


def test_a_validation_that_is_missing_or_given_twice_is_refused() -> None:
    assert "There is no validation split" in refused(given((60, 0, 30)))
    message = refused(given(), validation=0.2)
    assert "split.validation: 0.2, and in the data 60 train, 20 validation, 30 test" in message


def test_groups_in_two_of_them_are_refused_with_their_counts() -> None:
    corpus = given()
    groups = np.array([f"g{i}" for i in range(len(corpus))])
    for part, first, group in (("train", 0, "a"), ("test", 0, "a"), ("train", 2, "b")):
        groups[np.flatnonzero(corpus["split"] == part)[first : first + 2]] = group
    groups[np.flatnonzero(corpus["split"] == "validation")[:2]] = "b"
    corpus["group"] = groups
    message = refused(corpus)
    assert "2 of 104 groups, of 8 messages, are in several splits" in message
    assert "'a': 2 train, 2 test" in message
    assert "'b': 2 train, 2 validation" in message
    assert "data.group_column" in message


def test_a_label_that_only_test_has_is_refused() -> None:
    corpus = given()
    corpus.loc[corpus.index[corpus["split"] == "test"][:4], "label"] = "new"
    message = refused(corpus)
    assert "1 of 3 classes are missing in train" in message
    assert "new: 0 in train, 0 in validation, 4 in test" in message
    assert "correct their splits" in message


def test_of_two_classes_test_needs_both() -> None:
    corpus = given()
    corpus.loc[corpus["split"] == "test", "label"] = "ham"
    assert "1 of 2 classes are missing in test" in refused(corpus)


def test_of_more_classes_test_may_lack_one_which_is_said() -> None:
    corpus = given()
    corpus.loc[corpus.index[corpus["split"] == "train"][:6], "label"] = "rare"
    _, metrics = split(corpus, settings_())
    assert metrics["splits"]["test"]["classes"]["rare"] == 0
    assert describe_missing(metrics) == (
        "validation has no message of rare; test has no message of rare: there are no figures of "
        "these classes, nor means over all, such as macro-F1"
    )


def test_only_train_is_cut() -> None:
    frames, metrics = split(given(), settings_(balance="train"))
    assert len({*metrics["splits"]["train"]["classes"].values()}) == 1
    assert [len(frames[part]) for part in PARTS[1:]] == [20, 30]
    said = describe_split(metrics, settings_(balance="train"))
    assert said.startswith("the splits are the data's own; no text is in two of them; train is")
