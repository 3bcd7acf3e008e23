"""Twins are found as brute force over scikit-learn's vectors finds them."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.messages import generate
from lora_compare.data import bundled, twins
from lora_compare.data.twins import ngrams, pairs, sketches

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
    found = ngrams.Vocabulary(texts).vectors(texts)[:]
    np.testing.assert_array_equal(found.toarray(), expected.toarray())


def test_chunks_change_no_more_than_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [twins.normalize(text) for text in [*make_texts(1, 100), "ab " * 300, "é ab", ":)"]]
    whole = ngrams.Vocabulary(texts).vectors(texts)[:]
    monkeypatch.setattr(ngrams, "CHUNK", 50)
    parts = ngrams.Vocabulary(texts).vectors(texts)[:]
    np.testing.assert_allclose(parts.toarray(), whole.toarray(), rtol=1e-14)


def test_a_text_stands_for_its_copies() -> None:
    texts = [twins.normalize(text) for text in make_texts(1, 40)]
    distinct = list(dict.fromkeys(texts))
    copies = np.array([texts.count(text) for text in distinct])
    assert len(distinct) < 40
    found = ngrams.Vocabulary(distinct, copies).vectors(distinct)[:]
    expected = ngrams.Vocabulary(texts).vectors(distinct)[:]
    np.testing.assert_array_equal(found.toarray(), expected.toarray())


def test_ngrams_of_more_characters_than_fit_in_a_key_are_told_apart() -> None:
    texts = ["".join(map(chr, range(start, start + 9))) for start in range(0x4E00, 0x9E00, 2)]
    found = ngrams.Vocabulary(texts)
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit(texts)
    assert len(found.idf) == len(vectorizer.idf_)


@pytest.mark.parametrize(("cells", "step"), [(2**24, 2**14), (500, 7)])
def test_near_twins_are_those_of_brute_force(
    cells: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "_CELLS", cells)
    monkeypatch.setattr(pairs, "PAIRS", step)
    texts, others = make_texts(1, 120), make_texts(2, 200) + make_texts(1, 30)
    cosines = brute_force_cosines(texts + others)[:120, 120:]
    expected = cosines.max(axis=1) > pairs.NEAR
    assert 10 < expected.sum() < 120
    np.testing.assert_array_equal(twins.find_twins(texts, others)["near"], expected)


@pytest.mark.parametrize("cells", [2**24, 500])
def test_groups_are_the_connected_components(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_CELLS", cells)
    texts = make_texts(3, 250)
    near = brute_force_cosines(texts) > pairs.NEAR
    count, expected = connected_components(near, directed=False)
    groups = twins.near_duplicate_groups(texts)
    assert 1 < count < 250
    assert groups.max() + 1 == count
    same = groups[:, None] == groups[None, :]
    np.testing.assert_array_equal(same, expected[:, None] == expected[None, :])


@pytest.mark.parametrize(
    ("make", "n"),
    [
        (lambda n: [text for _, text in bundled.messages()][:n], 3_000),
        (lambda n: make_texts(4, n), 2_000),
        pytest.param(
            lambda n: bundled._Author(bundled._Dice(5)).distinct("ham", n),
            20_000,
            marks=pytest.mark.slow,
        ),
        pytest.param(lambda n: [text for _, text in generate(n)], 20_000, marks=pytest.mark.slow),
    ],
    ids=["bundled", "giant groups", "of the bundled grammar", "invented words"],
)
def test_sketches_find_what_a_search_of_all_pairs_finds(
    make: Callable[[int], list[str]], n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = make(n)
    first, others = texts[: n // 3], texts[n // 3 :]
    groups, closest = twins.near_duplicate_groups(texts), twins.closest_twins(first, others)
    assert 1 < groups.max() < len(groups) - 100
    monkeypatch.setattr(twins, "ALL_PAIRS", 0)
    np.testing.assert_array_equal(twins.near_duplicate_groups(texts), groups)
    met = twins.closest_twins(first, others)
    assert [(twin.row, twin.kind) for twin in met] == [(twin.row, twin.kind) for twin in closest]
    # In a group of many, not every text meets all others, of which one may be a little nearer.
    assert np.mean([twin.cosine for twin in met]) > np.mean([t.cosine for t in closest]) - 1e-3


@pytest.mark.parametrize("above", [pairs.NEAR, pairs.NEARLY_NEAR, 0.84])
def test_groups_of_any_cosine_are_numbered_by_first_appearance(above: float) -> None:
    texts = make_texts(3, 250)
    _, expected = connected_components(brute_force_cosines(texts) > above, directed=False)
    groups = twins.near_duplicate_groups(texts, above)
    np.testing.assert_array_equal(groups, twins.by_appearance(expected))


def test_of_many_with_one_part_those_meet_that_share_the_next() -> None:
    crowd = np.arange(100, dtype=np.uint64) + np.uint64(7 << 32)
    crowd[[3, 60]] = 7 << 32 | 500
    met = set[tuple[int, int]]()
    for rows, columns in sketches.meetings(crowd, None):
        met.update(zip(rows.tolist(), columns.tolist(), strict=True))
    assert {(3, 60), (60, 3)} & met
    assert len(met) == len(crowd) * (sketches.WINDOW - 1)
    rows, columns = next(iter(sketches.meetings(crowd[[3]], crowd[50:])))
    assert (rows.tolist(), columns.tolist()) == ([0], [10])


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
