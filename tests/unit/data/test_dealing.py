"""Groups are dealt whole, classes in their proportions, and what cannot be is refused."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_compare.data.classes import proportional_sizes
from lora_compare.data.splits.dealing import deal
from lora_compare.data.splits.groups import cut, split_groups
from lora_compare.errors import DataError
from lora_compare.project.corpus import make_corpus
from split_settings import split_settings

SETTINGS = split_settings(twins="together", balance="none")


def dealt(labels: list[int], groups: list[int], seed: int = 0, **changes: object) -> list[int]:
    """Return the split of each message of the classes a, b, ..."""
    names = "abcde"[: max(labels) + 1]
    random = np.random.RandomState(seed)
    counts = {name: labels.count(place) for place, name in enumerate(names)}
    planned = proportional_sizes(counts, SETTINGS.model_copy(update=changes))
    return deal(np.array(labels), np.array(groups), planned, random).tolist()


def table(labels: list[int], parts: list[int]) -> list[list[int]]:
    """Return the messages of each split (rows) and class."""
    places = [np.flatnonzero(np.array(parts) == part) for part in range(3)]
    n_classes = max(labels) + 1
    return [np.bincount(np.array(labels)[p], minlength=n_classes).tolist() for p in places]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 6), max_size=40), st.integers(0, 2**32 - 1), st.data())
def test_groups_stay_whole_and_single_messages_make_up_the_shares(
    sizes: list[int], seed: int, data: Any
) -> None:
    labels, groups = [], []
    for number, size in enumerate(sizes):
        # Now and then a group stands under two labels.
        both = data.draw(st.sampled_from([(0,), (1,), (0, 1)]))
        labels += [both[i % len(both)] for i in range(size)]
        groups += [number] * size
    labels += [0] * 260 + [1] * 130
    groups += range(len(sizes), len(sizes) + 390)
    parts = dealt(labels, groups, seed)
    by_group: dict[int, set[int]] = {}
    for group, part in zip(groups, parts, strict=True):
        by_group.setdefault(group, set()).add(part)
    assert {len(found) for found in by_group.values()} == {1}
    counts = {"a": labels.count(0), "b": labels.count(1)}
    planned = proportional_sizes(counts, SETTINGS)
    found = table(labels, parts)
    for part, row in zip(planned.values(), found, strict=True):
        # Large groups may fill a small split up: then it has a few too many, never by a group more.
        assert all(abs(n - m) <= 6 for n, m in zip(row, part.values(), strict=True))


def test_large_groups_are_in_every_split_in_proportion() -> None:
    labels = [0, 1] * 1000
    groups = [i // 10 for i in range(1000)] + [*range(1000, 2000)]
    seeds = 40
    found = np.zeros(3)
    for seed in range(seeds):
        parts = dealt(labels, groups, seed)
        assert table(labels, parts) == [[700, 700], [100, 100], [200, 200]]
        found += np.bincount(parts[:1000], minlength=3)
    np.testing.assert_allclose(found / found.sum(), [0.7, 0.1, 0.2], atol=0.02)


def test_what_makes_a_group_is_open() -> None:
    # Ten people, who all write of both kinds: none of them is in two splits.
    people = np.arange(500) // 2 % 10
    pool = make_corpus(list("ab" * 250), [f"{i}" for i in range(500)])
    settings_ = split_settings(twins="together", balance="train", seed=5)
    rows = cut(split_groups(pool, people, settings_), pool, settings_)
    sizes = {part: len(set(people[places])) for part, places in rows.items()}
    assert sizes == {"train": 7, "validation": 1, "test": 2, "unused": 0}
    assert sorted(np.concatenate(list(rows.values()))) == [*range(500)]


def test_where_no_group_fits_the_smallest_split_is_not_left_empty() -> None:
    labels = [0] * 100
    parts = dealt(labels, [i // 20 for i in range(100)])
    assert sorted(row[0] for row in table(labels, parts)) == [20, 20, 60]


def refused(labels: list[int], groups: list[int]) -> DataError:
    with pytest.raises(DataError, match="too large to stay whole") as error:
        dealt(labels, groups)
    assert "split.twins: apart" in error.value.next
    return error.value


def test_one_group_of_all_messages_is_refused() -> None:
    assert refused([0, 1] * 50, [7] * 100).actual.splitlines() == [
        "a: 50 of 50 messages are one group; 50 of 35 in train, 0 of 5 in validation, "
        "0 of 10 in test",
        "b: 50 of 50 messages are one group; 50 of 35 in train, 0 of 5 in validation, "
        "0 of 10 in test",
    ]


def test_a_class_in_one_group_is_refused_alone() -> None:
    error = refused([0] * 100 + [1] * 20, [*range(100)] + [100] * 20)
    assert error.actual == (
        "b: 20 of 20 messages are one group; 20 of 14 in train, 0 of 2 in validation, "
        "0 of 4 in test"
    )


def test_a_group_that_leaves_too_little_for_the_other_splits_is_refused() -> None:
    labels, groups = [0] * 100 + [1] * 100, [*range(100)] + [100] * 90 + [*range(101, 111)]
    error = refused(labels, groups)
    assert error.actual.startswith("b: 90 of 100 messages are one group; 90 of 70 in train, ")


def test_a_group_larger_than_the_small_splits_goes_to_train() -> None:
    labels, groups = [0] * 100 + [1] * 100, [*range(100)] + [100] * 60 + [*range(101, 141)]
    parts = dealt(labels, groups)
    assert set(parts[100:160]) == {0}
    assert table(labels, parts) == [[70, 70], [10, 10], [20, 20]]


def test_more_classes_than_are_shown_are_counted() -> None:
    pool = make_corpus([f"c{i % 8}" for i in range(160)], [f"{i}" for i in range(160)])
    with pytest.raises(DataError, match=r"c4: 20 of 20.*\n.*and 3 more classes"):
        split_groups(pool, pd.factorize(pool["label"])[0], SETTINGS)
