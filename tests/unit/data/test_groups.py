"""No group of the data is in two splits, classes are in their shares, and groups join as graphs."""

from collections import defaultdict

import networkx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from grouped_messages import make_customers
from lora_compare.data.splits import split
from lora_compare.data.splits.groups import cut, join_groups, number_groups, split_groups
from lora_compare.errors import DataError
from lora_compare.project.corpus import count_classes, make_corpus
from split_settings import split_settings

APART = split_settings(twins="apart", balance="none")


def parts_of(groups: list[str], frames: dict[str, pd.DataFrame]) -> dict[str, set[str]]:
    """Return the splits in which each group has a message."""
    found = defaultdict(set)
    for name, frame in frames.items():
        for group in frame["Group"]:
            found[group].add(name)
    assert {*found} <= {*groups}
    return found


@pytest.mark.parametrize("twins", ["apart", "together"])
@pytest.mark.parametrize("balance", ["none", "train", "cap", "undersample"])
def test_no_group_is_in_two_splits(twins: str, balance: str) -> None:
    corpus = make_customers().drop(columns="time")
    params = split_settings(twins=twins, balance=balance, cap=1.5 if balance == "cap" else None)
    frames, metrics = split(corpus, params)
    for parts in parts_of([*corpus["group"]], frames).values():
        assert parts <= {"train", "unused"} or len(parts) == 1
    known = dict(zip(corpus["text"], corpus["group"], strict=True))
    for frame in frames.values():
        assert [known[text] for text in frame["Text"]] == list(frame["Group"])
    assert metrics["groups"] == {
        "groups": 120,
        "messages": len(corpus),
        "largest": int(corpus["group"].value_counts().max()),
        "alone": 0,
        "test": frames["test"]["Group"].nunique(),
    }
    train = metrics["splits"]["train"]["classes"]
    most = {"none": np.inf, "cap": int(1.5 * min(train.values()))}.get(balance, min(train.values()))
    assert max(train.values()) <= most


def test_messages_without_a_group_are_dealt_alone() -> None:
    corpus = make_customers().drop(columns="time")
    corpus.loc[corpus.index % 2 == 0, "group"] = ""
    frames, metrics = split(corpus, split_settings(balance="none"))
    assert {"train", "validation", "test"} <= parts_of([*corpus["group"]], frames)[""]
    assert metrics["groups"]["alone"] == (len(corpus) + 1) // 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40))
def test_groups_join_as_the_components_of_a_graph(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs).T
    graph = networkx.Graph()
    graph.add_edges_from((("a", a), ("b", b)) for a, b in pairs)
    expected = np.zeros(len(pairs), dtype=int)
    for number, component in enumerate(networkx.connected_components(graph)):
        expected[[("a", a) in component for a, _ in pairs]] = number
    found = join_groups(first, second)
    assert pd.factorize(expected)[0].tolist() == found.tolist()


def test_empty_names_are_groups_of_their_own() -> None:
    assert number_groups(["x", "", "y", "x", ""]).tolist() == [0, 1, 2, 0, 3]


def deviation(labels: pd.Series, parts: list[np.ndarray], shares: tuple[float, ...]) -> float:
    """Return how far classes are from their shares of the splits, the mean in messages."""
    counts = labels.value_counts()
    return float(
        np.mean(
            [
                abs((labels.iloc[part] == name).sum() - share * n)
                for part, share in zip(parts, shares, strict=True)
                for name, n in counts.items()
            ]
        )
    )


def test_classes_are_as_near_to_their_shares_as_scikit_learn_deals_them() -> None:
    shares = (0.6, 0.2, 0.2)  # of five equal folds, which is all that it has
    params = APART.model_copy(update={"train": 0.6, "validation": 0.2})
    ours, theirs = [], []
    for seed in range(5):
        pool = make_customers(150, seed).drop(columns="time")
        groups = number_groups(pool["group"])
        rows = split_groups(pool, groups, params.model_copy(update={"seed": seed}))
        ours.append(deviation(pool["label"], [*rows.values()], shares))
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        test = [fold for _, fold in folds.split(pool["text"], pool["label"], groups)]
        dealt = [np.concatenate(test[:3]), test[3], test[4]]
        theirs.append(deviation(pool["label"], dealt, shares))
    assert np.mean(ours) <= np.mean(theirs)


def test_twins_of_two_groups_join_them() -> None:
    corpus = make_customers().drop(columns="time")
    of_pairs = corpus["group"].str[1:].astype(int) // 2
    first = ~of_pairs.duplicated()
    # The first message of every two customers is the same but for a digit.
    twins = [f"{'of the pair ' * 3}{chr(97 + n % 26) * 4}{chr(97 + n // 26) * 5}" for n in of_pairs]
    second = ~pd.Series(corpus["group"]).duplicated() & ~first
    corpus.loc[first | second, "text"] = [
        f"{twin} {int(other)}"
        for twin, other in zip(np.array(twins)[first | second], second[first | second], strict=True)
    ]
    frames, metrics = split(corpus, split_settings(twins="together", balance="none"))
    parts = parts_of([*corpus["group"]], frames)
    torn = [n for n in range(60) if len(parts[f"c{2 * n}"] | parts[f"c{2 * n + 1}"]) > 1]
    assert torn == []
    assert metrics["near_duplicates"]["groups"] == 60


@pytest.mark.parametrize(
    ("twins", "words"),
    [
        ("apart", ["data.group_column\n", "name a column with more and smaller groups"]),
        ("together", ["data.group_column, split.twins", "set split.twins: apart"]),
    ],
)
def test_groups_that_are_too_large_are_refused_by_the_setting(twins: str, words: list[str]) -> None:
    corpus = make_customers().drop(columns="time")
    corpus["group"] = np.where(corpus.index < len(corpus) * 0.95, "all", corpus["group"])
    with pytest.raises(DataError) as error:
        split(corpus, split_settings(twins=twins, balance="none"))
    for word in words:
        assert word in str(error.value)


def test_a_class_too_small_for_every_split_is_refused_before_groups_are_dealt() -> None:
    corpus = make_corpus(["a"] * 60 + ["b"] * 2, [f"{i}" for i in range(62)])
    corpus["group"] = [f"g{i // 2}" for i in range(62)]
    with pytest.raises(DataError, match="b: 2 messages, none in validation"):
        split(corpus, APART)


def test_cap_cuts_train_alone() -> None:
    pool = make_customers(classes=("a", "b", "c", "d")).drop(columns=["time", "group"])
    params = split_settings(balance="cap", cap=2.5, twins="apart")
    rows = split_groups(pool, np.arange(len(pool)), params)
    kept = cut(rows, pool, params)
    before, after = (count_classes(pool.iloc[one["train"]]) for one in (rows, kept))
    most = int(2.5 * min(before.values()))
    assert after == {name: min(n, most) for name, n in before.items()}
    assert all((kept[part] == rows[part]).all() for part in ("validation", "test"))
    frames, _ = split(pool, params)
    assert len(frames["train"]) == sum(after.values())
    assert len(frames["unused"]) == len(rows["train"]) - len(kept["train"])
