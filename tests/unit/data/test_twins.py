"""Twins are found as brute force over scikit-learn's vectors finds them."""

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer

from lora_compare.data import twins

FIRST = ["WINNER", "Call", "txt", "now", "free", "claim", "prize", "mobile", "urgent", "reply"]


def make_texts(seed: int, n: int) -> list[str]:
    """Return short texts of few words, many of them alike, with numbers and punctuation."""
    random = np.random.RandomState(seed)
    templates = [" ".join(random.choice(FIRST, 9)) for _ in range(n // 4)]
    return [
        random.choice(templates).replace("now", f"{random.randint(99)}!", 1)
        + (" " + random.choice(FIRST)) * random.randint(2)
        for _ in range(n)
    ]


def brute_force_cosines(texts: list[str]) -> np.ndarray:
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), lowercase=False)
    vectors = vectorizer.fit_transform([twins.normalize(text) for text in texts])
    return (vectors @ vectors.T).toarray()


def test_vectors_are_those_of_scikit_learn_to_the_last_bit() -> None:
    texts = [twins.normalize(text) for text in [*make_texts(1, 100), "a", "é ab", ":)", "xyz xyz"]]
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), lowercase=False)
    expected = vectorizer.fit_transform(texts)[:, np.argsort(-vectorizer.idf_, kind="stable")]
    np.testing.assert_array_equal(twins._vectorize(texts).toarray(), expected.toarray())


@pytest.mark.parametrize(("cells", "step"), [(2**24, 2**14), (500, 7)])
def test_near_twins_are_those_of_brute_force(
    cells: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "_CELLS", cells)
    monkeypatch.setattr(twins, "_PAIRS", step)
    texts, others = make_texts(1, 120), make_texts(2, 200) + make_texts(1, 30)
    cosines = brute_force_cosines(texts + others)[:120, 120:]
    expected = cosines.max(axis=1) > twins.NEAR
    assert 10 < expected.sum() < 120
    np.testing.assert_array_equal(twins.find_twins(texts, others)["near"], expected)


@pytest.mark.parametrize("cells", [2**24, 500])
def test_groups_are_the_connected_components(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "_CELLS", cells)
    texts = make_texts(3, 250)
    near = brute_force_cosines(texts) > twins.NEAR
    count, expected = connected_components(near, directed=False)
    groups = twins.near_duplicate_groups(texts)
    assert 1 < count < 250
    assert groups.max() + 1 == count
    same = groups[:, None] == groups[None, :]
    np.testing.assert_array_equal(same, expected[:, None] == expected[None, :])


def test_groups_are_numbered_by_first_appearance() -> None:
    groups = twins.near_duplicate_groups(
        ["see you at home", "WIN 100 now!", "see you at home", "ok"]
    )
    assert groups.tolist() == [0, 1, 0, 2]
    assert twins.near_duplicate_groups([]).tolist() == []
    assert twins.near_duplicate_groups(["a"]).tolist() == [0]


def test_each_kind_of_twin_contains_the_one_before() -> None:
    texts = ["Win 100 now!", "win 250 now", "Win 100 now, friend", "something else"]
    found = twins.find_twins(texts, ["Win 100 now!", "other words"])
    assert found["exact"].tolist() == [True, False, False, False]
    assert found["normalized"].tolist() == [True, True, False, False]
    assert found["near"][:2].all()
    assert not found["near"][3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("WIN  £1,000\tnow!!", "win 0 0 now"),
        ("Call 08001234567", "call 0"),
        (" :-) ", ":-)"),
        ("Straße", "strasse"),
        ("!!!", "!!!"),
    ],
)
def test_normalized_text(text: str, expected: str) -> None:
    assert twins.normalize(text) == expected


def test_smileys_are_no_twins_of_one_another() -> None:
    found = twins.find_twins([":-)", ":-("], [":-("])
    assert found["normalized"].tolist() == [False, True]
    assert found["near"].tolist() == [False, True]


def test_no_texts_have_no_twins() -> None:
    assert twins.find_twins([], ["a"])["near"].tolist() == []
    assert twins.find_twins(["a"], [])["near"].tolist() == [False]


def test_one_repeated_text_is_its_own_twin() -> None:
    assert twins.find_twins(["a"] * 3, ["a"])["near"].all()
    assert twins.near_duplicate_groups(["hello there"] * 3).tolist() == [0, 0, 0]


def test_the_closest_twin_is_that_of_brute_force() -> None:
    texts, others = make_texts(1, 120), make_texts(2, 200) + make_texts(1, 30)
    cosines = brute_force_cosines(texts + others)[:120, 120:]
    masks = twins.find_twins(texts, others)
    found = twins.closest_twins(texts, others)
    assert [twin.row for twin in found] == np.flatnonzero(np.any([*masks.values()], 0)).tolist()
    assert {twin.kind for twin in found} == {"exact", "normalized", "near"}
    for twin in found:
        assert twin.kind == next(kind for kind, mask in masks.items() if mask[twin.row])
        assert twin.cosine == pytest.approx(cosines[twin.row].max())
        assert cosines[twin.row, twin.other] == pytest.approx(twin.cosine)


def test_a_text_word_for_word_is_closer_than_one_but_for_digits() -> None:
    (twin,) = twins.closest_twins(["Call 5 now"], ["Call 7 now", "call 5 now", "Call 5 now"])
    assert twin == twins.Twin(0, 2, "exact", 1.0)
    assert twins.closest_twins(["a"], []) == []
