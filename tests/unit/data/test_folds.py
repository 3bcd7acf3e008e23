"""Folds: every message in test once, no group in two splits of a fold, and what cannot be dealt."""

from collections import Counter
from collections.abc import Callable

import pandas as pd
import pytest
from tests.grouped_messages import make_customers
from tests.split_settings import split_settings

from lora_compare.data.splits import Frames, plan, split
from lora_compare.data.twins import find_twins
from lora_compare.errors import DataError
from lora_compare.params import SplitParams
from lora_compare.project.corpus import FOLD, make_corpus
from lora_compare.project.paths import SPLITS

FOLDS = 4


def settings(**changes: object) -> SplitParams:
    plain = {"folds": FOLDS, "train": None, "balance": "none", "twins": "apart"}
    return split_settings(**{**plain, **changes})


def of_fold(frames: Frames, part: str, fold: int) -> pd.DataFrame:
    return frames[part][frames[part][FOLD] == fold]


def customers() -> pd.DataFrame:
    return make_customers(80).drop(columns="time")


@pytest.mark.parametrize("twins", ["apart", "together"])
def test_every_message_is_tested_once_and_no_group_is_in_two_splits_of_a_fold(twins: str) -> None:
    corpus = customers()
    frames, metrics = split(corpus, settings(twins=twins))
    assert Counter(frames["test"]["Text"]) == Counter(corpus["text"])
    assert list(metrics["folds"]) == [str(fold) for fold in range(1, FOLDS + 1)]
    for fold in range(1, FOLDS + 1):
        parts = {part: of_fold(frames, part, fold) for part in SPLITS}
        assert Counter(pd.concat(parts.values())["Text"]) == Counter(corpus["text"])
        groups = [set(part["Group"]) for part in parts.values()]
        assert sum(map(len, groups)) == len(set.union(*groups))
        assert {part: len(rows) for part, rows in parts.items()} == {
            part: metrics["folds"][str(fold)][part] for part in SPLITS
        }
    assert metrics["groups"]["test"] == corpus["group"].nunique()
    assert metrics["splits"]["test"]["n"] == len(corpus)


def test_single_messages_are_dealt_in_the_proportions_of_their_classes() -> None:
    corpus = make_corpus(["spam", "ham", "ham", "ham"] * 50, [f"text {i}" for i in range(200)])
    frames, _ = split(corpus, settings(validation=0.15))
    for fold in range(1, FOLDS + 1):
        counts = {
            part: of_fold(frames, part, fold)["Label"].value_counts().to_dict() for part in SPLITS
        }
        assert sum(counts["validation"].values()) == 30
        for own in counts.values():
            assert own[1] == pytest.approx(sum(own.values()) / 4, abs=1)


def test_no_near_duplicate_of_what_a_fold_tests_is_trained_or_pre_trained_on() -> None:
    messages = make_customers(60)["text"]
    texts = [f"{text} to room {copy}" for text in messages for copy in range(3)]
    labels = [["ham", "ham", "spam"][i % 3] for i in range(len(messages)) for _ in range(3)]
    frames, metrics = split(make_corpus(labels, texts), settings(twins="together", balance="train"))
    assert metrics["near_duplicates"]["groups"] == len(messages)
    for fold in range(1, FOLDS + 1):
        tested = list(of_fold(frames, "test", fold)["Text"])
        for part in ("train", "validation", "unused"):
            twins = find_twins(tested, list(of_fold(frames, part, fold)["Text"]))
            assert not any(mask.any() for mask in twins.values())
        balanced = of_fold(frames, "train", fold)["Label"].value_counts()
        assert balanced[0] == balanced[1]
    assert len(frames["unused"])
    assert metrics["test_rows_with_twin_in_train"] == {"exact": 0, "normalized": 0, "near": 0}


def test_the_folds_are_drawn_by_the_seed_alone() -> None:
    first, again, other = (split(customers(), settings(seed=seed))[0]["test"] for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def test_one_split_has_no_column_of_folds() -> None:
    frames, metrics = split(customers(), settings(folds=1, train=0.7))
    assert all(FOLD not in frame for frame in frames.values())
    assert "folds" not in metrics


def test_a_plan_is_of_the_messages_that_the_split_tests() -> None:
    corpus = customers()
    messages = {name: corpus[name].tolist() for name in corpus}
    found = plan(messages, settings())
    metrics = split(corpus, settings())[1]
    assert (found["splits"], found["folds"]) == (metrics["splits"], metrics["folds"])


def of_groups(spam: Callable[[int], str]) -> pd.DataFrame:
    labels = ["spam" if i % 4 == 0 else "ham" for i in range(160)]
    groups = [spam(i) if label == "spam" else f"h{i}" for i, label in enumerate(labels)]
    return make_corpus(labels, [f"text {i} {i * i}" for i in range(160)], group=groups)


def test_a_class_of_fewer_groups_than_folds_is_refused_with_what_would_do() -> None:
    with pytest.raises(DataError, match="fewer groups than there are folds") as caught:
        split(of_groups(lambda i: f"s{i % 3}"), settings())
    assert caught.value.actual == "spam: 3 groups of 40 messages"
    assert "split.folds: 3" in caught.value.next
    split(of_groups(lambda i: f"s{i % 36}"), settings(folds=3))


def test_a_group_that_leaves_a_fold_without_half_of_a_class_is_refused() -> None:
    large = of_groups(lambda i: "s" if i > 12 else f"s{i}")
    with pytest.raises(DataError, match="too large to stay whole") as caught:
        split(large, settings())
    assert "36 of 40 messages are one group" in caught.value.actual
    assert "the test of fold" in caught.value.actual


def test_a_class_too_small_for_a_validation_of_its_own_is_refused_with_shares_that_do() -> None:
    few = make_corpus(["spam"] * 6 + ["ham"] * 60, [f"text {i}" for i in range(66)])
    with pytest.raises(DataError, match="too small to be in every split") as caught:
        split(few, settings(validation=0.05))
    assert "split.train: null, split.validation: 0.2" in caught.value.next
    split(few, settings(validation=0.2))
