"""The splits share out every message once, in exact sizes, and the same way everywhere."""

import hashlib
import io
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_compare.data import bundled, splits
from lora_compare.data.classes import stratified_sizes
from lora_compare.data.splits import deal_out, deduplicate, split
from lora_compare.data.twins import find_twins, near_duplicate_groups
from lora_compare.data.twins.pairs import NEAR, NEARLY_NEAR
from lora_compare.errors import DataError
from lora_compare.project.corpus import count_classes, make_corpus
from split_settings import split_settings


def make(**counts: int) -> pd.DataFrame:
    """Return a corpus of so many distinct messages of each class, classes mixed."""
    labels = np.repeat(list(counts), list(counts.values()))
    np.random.RandomState(0).shuffle(labels)
    return make_corpus(list(labels), [f"message {i}" for i in range(len(labels))])


BOOK: dict[str, Any] = {"mode": "appendix_e", "deduplicate": "none"}


def test_balanced_split_has_exact_sizes_and_equal_classes() -> None:
    frames, metrics = split(make(ham=900, spam=100), split_settings())
    assert metrics["splits"] == {
        "train": {"n": 140, "classes": {"ham": 70, "spam": 70}},
        "validation": {"n": 20, "classes": {"ham": 10, "spam": 10}},
        "test": {"n": 40, "classes": {"ham": 20, "spam": 20}},
        "unused": {"n": 800, "classes": {"ham": 800, "spam": 0}},
    }
    assert metrics["rows"] == 1000
    assert metrics["classes"] == {"ham": 900, "spam": 100}
    assert {name: len(frame) for name, frame in frames.items()} == {
        name: part["n"] for name, part in metrics["splits"].items()
    }


def test_prior_is_kept_without_balancing() -> None:
    _, metrics = split(make(ham=900, spam=100), split_settings(balance="none"))
    assert metrics["splits"] == {
        "train": {"n": 700, "classes": {"ham": 630, "spam": 70}},
        "validation": {"n": 100, "classes": {"ham": 90, "spam": 10}},
        "test": {"n": 200, "classes": {"ham": 180, "spam": 20}},
        "unused": {"n": 0, "classes": {"ham": 0, "spam": 0}},
    }


@pytest.mark.parametrize("twins", ["apart", "together"])
def test_train_alone_is_cut(twins: str) -> None:
    corpus = make(ham=900, spam=100)
    # Texts that have nothing in common: each is a group of its own.
    corpus["text"] = [hashlib.sha256(text.encode()).hexdigest() for text in corpus["text"]]
    frames, metrics = split(corpus, split_settings(balance="train", twins=twins))
    assert metrics["splits"] == {
        "train": {"n": 140, "classes": {"ham": 70, "spam": 70}},
        "validation": {"n": 100, "classes": {"ham": 90, "spam": 10}},
        "test": {"n": 200, "classes": {"ham": 180, "spam": 20}},
        "unused": {"n": 560, "classes": {"ham": 560, "spam": 0}},
    }
    assert sorted(text for frame in frames.values() for text in frame["Text"]) == sorted(
        corpus["text"]
    )
    place = {text: row for row, text in enumerate(corpus["text"])}
    assert frames["unused"]["Text"].map(place).is_monotonic_increasing
    assert not frames["test"]["Text"].map(place).is_monotonic_increasing


WORDS = [a + b + c for a in ("kal", "tro", "min") for b in ("dor", "pel", "gan") for c in "xyz"]


def make_twins(ham: int, spam: int) -> pd.DataFrame:
    """Return messages of which about every third nearly repeats another, and some are repeated."""
    random = np.random.RandomState(1)
    texts = [" ".join(random.choice(WORDS, 12)) for _ in range(ham + spam)]
    for i in range(0, ham + spam - 4, 3):
        texts[i + 1] = f"{texts[i]} {i}" if i % 2 else texts[i]
    return make_corpus(["ham"] * ham + ["spam"] * spam, texts)


def require_no_twins(frames: dict[str, pd.DataFrame]) -> None:
    """Check that no split has a message with a twin in one that may be learned from before it."""
    texts = {name: list(frame["Text"]) for name, frame in frames.items()}
    for part, other in (("test", "train"), ("test", "validation"), ("validation", "train")):
        for kind, found in find_twins(texts[part], texts[other]).items():
            assert not found.any(), f"{kind}: {part}, {other}"
    for part in ("test", "validation"):
        assert not find_twins(texts[part], texts["unused"])["normalized"].any()


@pytest.mark.parametrize("balance", ["train", "undersample", "none"])
@pytest.mark.parametrize("deduplicate", ["exact", "none"])
def test_twins_stay_together(deduplicate: str, balance: str) -> None:
    corpus = make_twins(300, 120)
    params = split_settings(deduplicate=deduplicate, balance=balance, twins="together")
    frames, metrics = split(corpus, params)
    require_no_twins(frames)
    repeats = len(corpus) - corpus["text"].nunique()
    assert repeats > 0
    assert metrics["duplicates_removed"] == (repeats if deduplicate == "exact" else 0)
    kept = len(corpus) - metrics["duplicates_removed"]
    dropped = metrics["unused_rows_dropped_as_twins"]
    assert sum(map(len, frames.values())) + dropped == kept
    assert (dropped > 0) == (balance == "undersample")
    assert metrics["near_duplicates"]["groups"] > 50
    assert metrics["near_duplicates"]["messages"] >= 2 * metrics["near_duplicates"]["groups"]
    assert metrics["test_rows_with_twin_in_train"] == {"exact": 0, "normalized": 0, "near": 0}
    sizes = {name: part["classes"] for name, part in metrics["splits"].items()}
    planned = stratified_sizes(deduplicated_counts(corpus, deduplicate), params)
    assert {name: sizes[name] for name in planned} == planned
    again, _ = split(corpus, params)
    for name, frame in frames.items():
        pd.testing.assert_frame_equal(frame, again[name])


def deduplicated_counts(corpus: pd.DataFrame, how: str) -> dict[str, int]:
    return count_classes(deduplicate(corpus) if how == "exact" else corpus)


def test_whole_groups_need_neither_scikit_learn_nor_torch() -> None:
    program = (
        "import sys; from lora_compare.data.splits import split; "
        "from lora_compare.project.corpus import make_corpus; "
        "from lora_compare.params import SplitParams; "
        "split(make_corpus(['a', 'b'] * 20, [f'{i:b}'.replace('0', 'o').replace('1', 'i') "
        "for i in range(40)]), SplitParams(deduplicate='exact', twins='together', "
        "balance='train', train=0.7, validation=0.1, seed=1)); "
        "print({'torch', 'sklearn'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert ran.stdout.decode().strip() == "set()"


def test_twins_apart_may_be_in_two_splits() -> None:
    _, metrics = split(make_twins(300, 120), split_settings(balance="train"))
    assert metrics["test_rows_with_twin_in_train"]["near"] > 0
    assert "near_duplicates" not in metrics


@pytest.mark.parametrize("seed", [123, 3])
def test_no_message_of_the_bundled_corpus_has_a_twin_elsewhere(seed: int) -> None:
    labels, texts = zip(*bundled.messages(), strict=True)
    corpus = make_corpus(list(labels), list(texts))
    params = split_settings(twins="together", balance="train", seed=seed)
    frames, metrics = split(corpus, params)
    require_no_twins(frames)
    assert {name: part["classes"] for name, part in metrics["splits"].items()} == {
        "train": {"ham": 446, "spam": 446},
        "validation": {"ham": 460, "spam": 64},
        "test": {"ham": 921, "spam": 127},
        "unused": {"ham": 2775, "spam": 0},
    }


def test_twins_that_only_a_part_of_the_messages_shows_are_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = make_twins(300, 120)
    # As if no message were near another among all of them.
    monkeypatch.setattr(splits, "near_duplicate_groups", lambda texts, _: np.arange(len(texts)))
    frames, metrics = split(corpus, split_settings(twins="together", balance="none"))
    require_no_twins(frames)
    assert metrics["near_duplicates"]["groups"] > 0


def test_of_very_many_messages_the_nearly_near_stay_together_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = make_twins(300, 120).drop_duplicates("text", ignore_index=True)
    near, nearly_near = (near_duplicate_groups([*corpus["text"]], a) for a in (NEAR, NEARLY_NEAR))
    assert nearly_near.max() < near.max()
    for groups, at_most in ((near, splits.ALL_PAIRS), (nearly_near, len(corpus) ** 2 - 1)):
        monkeypatch.setattr(splits, "ALL_PAIRS", at_most)
        (dealt,) = deal_out(corpus, split_settings(twins="together", balance="none"))
        np.testing.assert_array_equal(dealt.kin, groups)


def test_messages_that_are_all_twins_are_refused() -> None:
    texts = [f"Your parcel {i} is waiting, pay {i} now" for i in range(60)]
    corpus = make_corpus(["ham", "spam"] * 30, texts)
    with pytest.raises(DataError, match="too large to stay whole"):
        split(corpus, split_settings(twins="together", balance="train"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(20, 150), min_size=2, max_size=5),
    st.sampled_from(["undersample", "none"]),
    st.sampled_from([(0.7, 0.1), (0.5, 0.25), (0.33, 0.33), (0.8, 0.1)]),
    st.integers(0, 2**32 - 1),
)
def test_every_message_is_in_one_split_in_its_share(
    counts: list[int], balance: str, shares: tuple[float, float], seed: int
) -> None:
    corpus = make(**{f"class{i}": count for i, count in enumerate(counts)})
    settings_ = split_settings(balance=balance, train=shares[0], validation=shares[1], seed=seed)
    frames, metrics = split(corpus, settings_)
    texts = [text for frame in frames.values() for text in frame["Text"]]
    assert sorted(texts) == sorted(corpus["text"])
    labels = dict(zip(corpus["text"], corpus["label"], strict=True))
    for frame in frames.values():
        assert [f"class{i}" for i in frame["Label"]] == [labels[text] for text in frame["Text"]]
    used = len(corpus) - len(frames["unused"])
    weights = dict(zip(("train", "validation", "test"), (*shares, 1 - sum(shares)), strict=True))
    for name, weight in weights.items():
        part = metrics["splits"][name]
        assert abs(part["n"] - used * weight) < 1
        for i, count in enumerate(counts):
            members = min(counts) if balance == "undersample" else count
            assert abs(part["classes"][f"class{i}"] - members * weight) < 2


def test_seed_alone_decides() -> None:
    corpus = make(a=50, b=40, c=30)
    first, again, other = (split(corpus, split_settings(seed=seed))[0] for seed in (1, 1, 2))
    for name in first:
        pd.testing.assert_frame_equal(first[name], again[name])
    assert not first["test"].equals(other["test"])


def test_split_is_the_same_on_every_machine() -> None:
    frames, _ = split(make(ham=20, spam=12), split_settings())
    assert [int(text.split()[1]) for text in frames["test"]["Text"]] == [20, 9, 10, 6, 29]
    assert [int(text.split()[1]) for text in frames["validation"]["Text"]] == [24, 22]


def test_splits_are_shuffled() -> None:
    frames, _ = split(make(ham=500, spam=500), split_settings())
    labels = frames["train"]["Label"].to_numpy()
    # 700 fair coins change 350 times, give or take 13.
    assert 280 < np.count_nonzero(np.diff(labels)) < 420
    assert frames["train"].index.tolist() == list(range(700))


def test_repeated_texts_are_removed_before_splitting() -> None:
    corpus = pd.concat([make(ham=30, spam=20)] * 2, ignore_index=True)
    frames, metrics = split(corpus, split_settings())
    assert metrics["rows"] == 100
    assert metrics["duplicates_removed"] == 50
    assert metrics["test_rows_with_twin_in_train"]["exact"] == 0
    assert sum(map(len, frames.values())) == 50


def test_repeated_texts_stay_and_are_counted_when_asked_for() -> None:
    corpus = pd.concat([make(ham=30, spam=20)] * 2, ignore_index=True)
    frames, metrics = split(corpus, split_settings(deduplicate="none"))
    assert metrics["duplicates_removed"] == 0
    train = set(frames["train"]["Text"])
    expected = sum(text in train for text in frames["test"]["Text"])
    assert metrics["test_rows_with_twin_in_train"]["exact"] == expected > 0


@pytest.mark.parametrize("settings_", [{"deduplicate": "none"}, BOOK])
def test_unused_holds_no_text_that_is_evaluated(settings_: dict[str, Any]) -> None:
    corpus = pd.concat([make(ham=60, spam=20), make(ham=60, spam=0)], ignore_index=True)
    frames, metrics = split(corpus, split_settings(**settings_))
    evaluated = {*frames["validation"]["Text"], *frames["test"]["Text"]}
    assert not evaluated & set(frames["unused"]["Text"])
    assert metrics["unused_rows_dropped_as_twins"] > 0
    dropped = metrics["unused_rows_dropped_as_twins"]
    assert sum(map(len, frames.values())) + dropped == len(corpus)


def test_text_with_two_labels_keeps_the_first_and_is_counted() -> None:
    corpus = make(ham=30, spam=20)
    again = make_corpus(["spam", "ham"], [corpus["text"][0], "new"])
    corpus = pd.concat([corpus, again, again], ignore_index=True)
    corpus.loc[0, "label"] = "ham"
    _, metrics = split(corpus, split_settings())
    assert metrics["conflicting_texts"] == 1
    assert metrics["duplicates_removed"] == 3
    kept = deduplicate(corpus)
    assert kept[kept["text"] == corpus["text"][0]]["label"].tolist() == ["ham"]


@pytest.mark.parametrize(
    "settings_", [{}, {"balance": "none"}, {"balance": "train", "twins": "together"}, BOOK]
)
def test_class_too_small_for_every_split_is_refused(settings_: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"spam: 2 messages, none in"):
        split(make(ham=40, spam=2), split_settings(**settings_))


@pytest.mark.parametrize("balance", ["train", "undersample"])
def test_of_whole_groups_only_the_class_that_is_too_small_is_named(balance: str) -> None:
    params = split_settings(balance=balance, twins="together")
    with pytest.raises(DataError) as error:
        split(make(ham=400, spam=2), params)
    assert error.value.actual == "spam: 2 messages, none in validation"


def test_class_that_duplicates_were_most_of_is_refused_with_its_count() -> None:
    corpus = pd.concat([make(ham=40, spam=0), make_corpus(["spam"] * 30, ["win"] * 30)])
    with pytest.raises(DataError, match="spam: 1 messages"):
        split(corpus.reset_index(drop=True), split_settings())


def book_split(lines: str, seed: int) -> list[pd.DataFrame]:
    """Return what the book's notebook does, written again from its description."""
    frame = pd.read_csv(io.StringIO(lines), sep="\t", header=None, names=["Label", "Text"])
    n = (frame["Label"] == "spam").sum()
    ham = frame[frame["Label"] == "ham"].sample(n, random_state=seed)
    both = pd.concat([ham, frame[frame["Label"] == "spam"]])
    both["Label"] = both["Label"].map({"ham": 0, "spam": 1})
    both = both.sample(frac=1, random_state=seed).reset_index(drop=True)
    cuts = [int(len(both) * 0.7), int(len(both) * 0.7) + int(len(both) * 0.1)]
    return [both[: cuts[0]], both[cuts[0] : cuts[1]], both[cuts[1] :]]


@pytest.mark.parametrize("seed", [0, 123])
def test_book_mode_is_the_notebook(seed: int) -> None:
    corpus = make(ham=83, spam=41)
    corpus.loc[5, "text"] = '"a quote that swallows'
    corpus.loc[7, "text"] = 'the lines up to here"'
    lines = (corpus["label"] + "\t" + corpus["text"] + "\n").str.cat()
    frames, metrics = split(corpus, split_settings(**BOOK, seed=seed))
    for name, expected in zip(frames, book_split(lines, seed), strict=False):
        assert frames[name].to_csv(index=None) == expected.to_csv(index=None)
    assert sum(map(len, frames.values())) == 124 - 2
    assert metrics["rows"] == 124


def test_book_mode_balances_any_number_of_classes() -> None:
    _, metrics = split(make(c=90, a=50, b=60), split_settings(**BOOK))
    assert metrics["splits"]["train"]["n"] == 105
    assert metrics["splits"]["unused"]["classes"] == {"a": 0, "b": 10, "c": 40}


def test_book_mode_keeps_texts_that_pandas_takes_for_missing() -> None:
    corpus = make(ham=20, spam=20)
    corpus.loc[3, "text"] = "null"
    frames, _ = split(corpus, split_settings(**BOOK))
    assert sum((frame["Text"] == "null").sum() for frame in frames.values()) == 1


@pytest.mark.parametrize("text", ["a\tb", "a\nb", "a\rb"])
def test_book_mode_refuses_texts_that_are_no_lines(text: str) -> None:
    corpus = make(ham=20, spam=20)
    corpus.loc[3, "text"] = text
    with pytest.raises(DataError, match=r"messages\.tsv:5"):
        split(corpus, split_settings(**BOOK))


def test_book_mode_refuses_a_quote_that_never_closes() -> None:
    corpus = make(ham=20, spam=20)
    corpus.loc[3, "text"] = '"never closed'
    with pytest.raises(DataError, match=r"split\.mode: stratified"):
        split(corpus, split_settings(**BOOK))
