"""Several labels a message: read, refused, and dealt by iterative stratification."""

from fractions import Fraction

import numpy as np
import pytest

from lora_compare.data.messages import make_messages
from lora_compare.data.splits import plan, split
from lora_compare.data.splits.dealing import NAMED
from lora_compare.data.splits.labels import deal_labels
from lora_compare.data.tables import Table
from lora_compare.errors import DataError
from lora_compare.params import SplitParams
from lora_compare.project.checksums import seal
from lora_compare.project.corpus import (
    make_corpus,
    read_messages,
    read_split,
    write_messages,
    write_split,
)

SHARES = {"train": Fraction(7, 10), "validation": Fraction(1, 10), "test": Fraction(2, 10)}
PARAMS = SplitParams(
    deduplicate="exact", twins="apart", balance="none", train=0.7, validation=0.1, seed=1
)
RATES = np.array([0.5, 0.3, 0.1, 0.03, 0.02])


def draw(n: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((n, len(RATES))) < RATES).astype(np.int64)


def sechidis(labels: np.ndarray, shares: list[float], seed: int) -> list[int]:
    """Return the subset of each example by algorithm 1 of Sechidis and others, line by line."""
    random = np.random.RandomState(seed)
    left = set(range(len(labels)))
    desired = [len(labels) * share for share in shares]
    of_label = [[labels[:, i].sum() * share for i in range(labels.shape[1])] for share in shares]
    subset = [-1] * len(labels)
    while left:
        counts = {i: sum(labels[x, i] for x in left) for i in range(labels.shape[1])}
        counts = {i: n for i, n in counts.items() if n}
        if not counts:  # examples without labels, of which the algorithm says nothing
            rest, by = sorted(left), lambda j: desired[j]
        else:
            fewest = [i for i, n in counts.items() if n == min(counts.values())]
            rarest = fewest[random.randint(len(fewest))]
            rest = sorted(x for x in left if labels[x, rarest])
            by = lambda j, i=rarest: of_label[j][i]  # noqa: E731
        for x in rest:
            most = max(by(j) for j in range(len(shares)))
            chosen = [j for j in range(len(shares)) if by(j) == most]
            most = max(desired[j] for j in chosen)
            chosen = [j for j in chosen if desired[j] == most]
            m = chosen[random.randint(len(chosen))] if len(chosen) > 1 else chosen[0]
            subset[x] = m
            left.discard(x)
            for i in np.flatnonzero(labels[x]):
                of_label[m][i] -= 1
            desired[m] -= 1
    return subset


@pytest.mark.parametrize("seed", range(3))
def test_messages_are_dealt_as_the_algorithm_says(seed: int) -> None:
    labels = draw(150, seed)
    random = np.random.RandomState(seed)
    dealt = deal_labels(labels, np.arange(150), SHARES, random, NAMED)
    assert dealt.tolist() == sechidis(labels, [0.7, 0.1, 0.2], seed)


def test_every_label_and_those_without_have_their_share() -> None:
    labels = draw(2000)
    dealt = deal_labels(labels, np.arange(2000), SHARES, np.random.RandomState(0), NAMED)
    without = labels.sum(axis=1, keepdims=True) == 0
    for column in np.hstack([labels, without]).T:
        counts = np.bincount(dealt[column == 1], minlength=3)
        assert counts == pytest.approx(column.sum() * np.array([0.7, 0.1, 0.2]), abs=10)


def test_groups_stay_whole_and_labels_keep_their_shares() -> None:
    dice = np.random.default_rng(0)
    groups = np.repeat(np.arange(600), dice.integers(1, 8, 600))
    labels = draw(len(groups))
    dealt = deal_labels(labels, groups, SHARES, np.random.RandomState(0), NAMED)
    assert all(len({*dealt[groups == group]}) == 1 for group in range(600))
    for column in labels.T:
        counts = np.bincount(dealt[column == 1], minlength=3)
        assert counts == pytest.approx(column.sum() * np.array([0.7, 0.1, 0.2]), abs=8)


def test_a_group_as_large_as_the_data_is_refused() -> None:
    labels, groups = draw(100), np.r_[np.zeros(90, np.int64), np.arange(1, 11)]
    with pytest.raises(DataError, match="too large to stay whole") as refused:
        deal_labels(labels, groups, SHARES, np.random.RandomState(0), NAMED)
    assert "90 of 100 messages are one group" in refused.value.actual


def corpus(n: int = 200, **columns: list[str]):
    names = np.array(["a", "b", "c", "d", "e"], dtype=object)
    found = [tuple(names[row == 1]) for row in draw(n)]
    letters = np.random.default_rng(0).integers(97, 123, (n, 15)).tolist()
    return make_corpus(found, ["".join(map(chr, row)) for row in letters], **columns)


def test_messages_and_splits_come_back_as_they_were(tmp_path) -> None:
    messages = corpus()
    write_messages(tmp_path / "messages.tsv", messages)
    frames, metrics = split(messages, PARAMS)
    for name, frame in frames.items():
        write_split(tmp_path / f"{name}.csv", frame)
    seal(tmp_path)
    assert read_messages(tmp_path / "messages.tsv").equals(messages)
    by_text = dict(zip(messages["text"], messages["label"], strict=True))
    for name in ("train", "validation", "test"):
        found = read_split(tmp_path / f"{name}.csv")
        assert len(found["Text"]) == metrics["splits"][name]["n"] > 0
        for row, text in zip(found["Label"], found["Text"], strict=True):
            assert tuple(c for c, there in zip("abcde", row, strict=True) if there) == by_text[text]
    counts = {c: sum(c in own for own in messages["label"]) for c in "abcde"}
    assert metrics["classes"] == counts
    assert metrics["labels"]["none"] == sum(not own for own in messages["label"])


def test_repeats_twins_and_planning_know_several_labels() -> None:
    messages = corpus()
    texts = [*messages["text"], *messages["text"][:50]]
    several = [*messages["label"], *messages["label"][:49], ("a", "b", "c", "d", "e")]
    doubled = make_corpus(several, texts)
    _, metrics = split(doubled, PARAMS.model_copy(update={"twins": "together"}))
    assert metrics["duplicates_removed"] == 50
    assert metrics["conflicting_texts"] == (several[49] != several[-1])
    assert metrics["near_duplicates"]["largest"] >= 1
    planned = plan({name: list(doubled[name]) for name in doubled}, PARAMS)
    assert planned["labels"] == metrics["labels"]


def test_given_splits_give_up_a_validation_with_every_label() -> None:
    given = ["test" if i % 5 == 0 else "train" for i in range(200)]
    params = PARAMS.model_copy(update={"train": None, "validation": 0.25})
    frames, _ = split(corpus(split=given), params)
    assert len(frames["test"]) == 40
    rows = np.array([*frames["validation"]["Label"]])
    assert (rows.sum(axis=0)[:3] > 0).all()


def table(*labels: object) -> Table:
    places = list(range(len(labels)))
    return Table("m.jsonl", labels=[*labels], texts=["x"] * len(labels), places=places)


def test_labels_are_lists_or_parts_of_a_cell() -> None:
    lists = make_messages(table(["b", "a"], [], None, [2, True], ["a"]))
    assert lists["label"] == [("a", "b"), (), (), ("2", "true"), ("a",)]
    cells = make_messages(table("b; a", "", " ", "a"), separator=";")
    assert cells["label"] == [("a", "b"), (), (), ("a",)]
    one = make_messages(table("b; a", "a"))
    assert one["label"] == ["b; a", "a"]


@pytest.mark.parametrize(
    ("labels", "separator", "expected"),
    [
        ((["a", "b"], ["a", None]), None, "m.jsonl:1: no label"),
        ((["a", "b"], ["a", 0.5]), None, "m.jsonl:1: the label is neither text nor a whole number"),
        ((["a", "b"], ["a", ["b"]]), None, "m.jsonl:1: the label is neither text nor a whole"),
        ((["a", "b"], {"a": 1}), None, "m.jsonl:1: no list of labels"),
        ((["a", "b"], "a"), None, "m.jsonl:1: no list of labels"),
        ((["a", "a"], ["a", "b"]), None, "m.jsonl:0: the label 'a' stands twice"),
        (("a;b", "a;;b"), ";", "m.jsonl:1: no label"),
        (("a,b", "c"), ";", "';' stands in no cell"),
        ((["a"], ["b"]), None, "the lists hold one label at most"),
        ((["a", "A"], ["b"]), None, "'a' 1 times, 'A' 1 times"),
    ],
)
def test_labels_that_cannot_be_used_are_named(labels, separator, expected) -> None:
    with pytest.raises(DataError) as refused:
        make_messages(table(*labels), separator=separator)
    assert expected in str(refused.value)
