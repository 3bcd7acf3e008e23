"""Messages that stand twice: word for word, but for digits and punctuation, or nearly."""

import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array

NEAR = 0.9
"""Two messages are nearly the same above this cosine of their n-gram vectors."""

NGRAM_LENGTHS = (3, 4, 5)
"""Characters of the n-grams, which are taken inside words of the normalised texts with a space
before and behind. They are weighted as scikit-learn's TfidfVectorizer does (analyzer char_wb);
the inverse document frequencies are those of all texts that are compared. On the split of the
book this gives 63 near twins of 300, 59 of them spam (tests/unit/data/test_golden_split.py)."""

COMMON = 0.8
"""Norm of the part of a vector, its commonest n-grams, that the first look leaves out."""

_MARGIN = 1e-6
"""Keeps pairs that rounding would lose in the first look; exact cosines decide on them."""

_CELLS = 2**24
"""Most entries of one intermediate product, about 200 MB."""

_PAIRS = 2**14
"""Pairs whose exact cosine is computed at once."""

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]


def normalize(text: str) -> str:
    """Return `text` without what spammers vary: case, numbers, punctuation and spacing.

    Case is folded, a run of digits becomes one 0, and a run of anything but letters, digits
    and underscores becomes one space. A text with nothing else, such as a smiley, is only
    case-folded and stripped.
    """
    folded = text.casefold()
    return re.sub(r"\W+", " ", re.sub(r"\d+", "0", folded)).strip() or folded.strip()


def find_twins(texts: Sequence[str], others: Sequence[str]) -> dict[str, Mask]:
    """Return which of `texts` have a twin among `others`, by three ever wider meanings.

    Returns:
        `exact`: the same text; `normalized`: the same by `normalize`; `near`: a cosine above
        NEAR by NGRAM_LENGTHS. Each a mask of shape (len(texts),).
    """
    normalized, other_normalized = [[normalize(t) for t in side] for side in (texts, others)]
    near = np.zeros(len(texts), dtype=bool)
    if normalized and other_normalized:
        vectors = _vectorize(normalized + other_normalized)
        for rows, _ in _near_pairs(vectors[: len(texts)], vectors[len(texts) :]):
            near[rows] = True
    return {
        "exact": _contained(texts, others),
        "normalized": _contained(normalized, other_normalized),
        "near": near,
    }


@dataclass(frozen=True)
class Twin:
    """A text and the text most like it among others.

    Attributes:
        row: Of the text.
        other: Row of its twin among the others.
        kind: The narrowest meaning by which they are twins, as `find_twins` has them.
        cosine: Of their n-gram vectors, in 0..1.
    """

    row: int
    other: int
    kind: Literal["exact", "normalized", "near"]
    cosine: float


def closest_twins(texts: Sequence[str], others: Sequence[str]) -> list[Twin]:
    """Return each of `texts` that has a twin among `others` with the one most like it.

    The texts are those of which `find_twins` says so; of equally close twins the first counts.
    """
    normalized, other_normalized = [[normalize(t) for t in side] for side in (texts, others)]
    places, normalized_places = _first_places(others), _first_places(other_normalized)
    near = _nearest(normalized, other_normalized)
    twins = []
    for row, (text, plain) in enumerate(zip(texts, normalized, strict=True)):
        if text in places:
            twins.append(Twin(row, places[text], "exact", 1.0))
        elif plain in normalized_places:
            twins.append(Twin(row, normalized_places[plain], "normalized", 1.0))
        elif row in near:
            twins.append(Twin(row, near[row][0], "near", near[row][1]))
    return twins


def _first_places(texts: Sequence[str]) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, place)
    return places


def _nearest(normalized: list[str], others: list[str]) -> dict[int, tuple[int, float]]:
    """Return the nearest of the others and its cosine for each row that has a near twin."""
    if not normalized or not others:
        return {}
    vectors = _vectorize(normalized + others)
    left, right = vectors[: len(normalized)], vectors[len(normalized) :]
    found: list[tuple[int, float, int]] = []
    for rows, columns in _near_pairs(left, right):
        distances = -_cosines(left, right, rows, columns)
        found.extend(zip(rows.tolist(), distances.tolist(), columns.tolist(), strict=True))
    nearest: dict[int, tuple[int, float]] = {}
    for row, distance, column in sorted(found):
        nearest.setdefault(row, (column, -distance))
    return nearest


def near_duplicate_groups(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the group of each text, shape (len(texts),), numbered by first appearance.

    Texts are in one group where a chain of near twins (a cosine above NEAR) leads from one
    to the other; most groups have one member.
    """
    from scipy.sparse.csgraph import connected_components

    if not texts:
        return np.zeros(0, dtype=np.int64)
    vectors = _vectorize([normalize(text) for text in texts])
    pairs = list(_near_pairs(vectors, vectors))
    rows = np.concatenate([row for row, _ in pairs])
    columns = np.concatenate([column for _, column in pairs])
    shape = (len(texts), len(texts))
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=shape)
    _, component = connected_components(graph, directed=False)
    return by_appearance(component)


def by_appearance(groups: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Return the same groups, shape (n,), numbered from 0 in the order in which they appear."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _contained(texts: Sequence[str], others: Sequence[str]) -> Mask:
    known = set(others)
    return np.array([text in known for text in texts], dtype=bool)


def _vectorize(normalized: list[str]) -> csr_array:
    """Return unit vectors, columns ordered from the rarest n-gram to the commonest.

    Source: Salton and Buckley 1988, doi 10.1016/0306-4573(88)90021-0, with counts that are one
    higher than they are, as in scikit-learn: idf = ln((1 + n) / (1 + df)) + 1.
    Checked by tests/unit/data/test_twins.py to the last bit.
    """
    numbers: dict[str, int] = {}
    # Of 512 MB of text, the most there is, there are fewer than 2**31 n-grams.
    columns, counts, ends = array("i"), array("i"), array("i", [0])
    for text in normalized:
        found = Counter(_ngrams(text)).items()
        # Sums of squares depend on their order: this is scikit-learn's, to the last bit.
        row = sorted((numbers.setdefault(ngram, len(numbers)), count) for ngram, count in found)
        columns.extend(column for column, _ in row)
        counts.extend(count for _, count in row)
        ends.append(len(columns))
    places, bounds = np.asarray(columns), np.asarray(ends)
    frequency = np.bincount(places, minlength=len(numbers))
    weights = np.asarray(counts) * (np.log((1 + len(normalized)) / (1 + frequency)) + 1)[places]
    rows = np.repeat(np.arange(len(normalized)), np.diff(bounds))
    weights /= np.sqrt(np.bincount(rows, weights**2))[rows]
    ranks = np.argsort(np.lexsort((np.array(list(numbers)), frequency))).astype(np.int32)
    shape = (len(normalized), len(numbers))
    vectors = csr_array((weights, ranks[places], bounds), shape=shape)
    vectors.sort_indices()
    return vectors


def _ngrams(text: str) -> Iterator[str]:
    """Yield the n-grams of a text; a word shorter than one is one itself."""
    for word in text.split():
        padded = f" {word} "
        for length in NGRAM_LENGTHS:
            for start in range(max(1, len(padded) - length + 1)):
                yield padded[start : start + length]
            if len(padded) <= length:
                break


def _near_pairs(left: csr_array, right: csr_array) -> Iterator[tuple[Indices, Indices]]:
    """Yield row numbers of `left` and `right` whose cosine is above NEAR, in bounded memory.

    The rare n-grams of x decide which pairs are worth a whole product: the others have the
    norm COMMON at most, so x . y <= x_rare . y + COMMON. Rare n-grams stand in few messages,
    which makes this 10 to 18 times as fast as all products at 10,000 messages.

    Source: Bayardo et al. 2007, doi 10.1145/1242572.1242591 (bounds on partial products).
    """
    rare, transposed = _rare_part(left), right.T.tocsr()
    step = max(1, _CELLS // max(1, right.shape[0]))
    for start in range(0, left.shape[0], step):
        partial = (rare[start : start + step] @ transposed).tocoo()
        possible = partial.data > NEAR - COMMON - _MARGIN
        rows, columns = partial.row[possible] + start, partial.col[possible]
        near = _cosines(left, right, rows, columns) > NEAR
        yield rows[near], columns[near]


def _rare_part(vectors: csr_array) -> csr_array:
    """Return unit vectors without their commonest n-grams, whose norm is at most COMMON."""
    squares = vectors.data**2
    before = np.cumsum(squares) - squares
    starts = np.append(before, 0.0)[vectors.indptr[:-1]]
    lengths = np.diff(vectors.indptr)
    remaining = 1.0 - (before - np.repeat(starts, lengths))
    kept = remaining > COMMON**2 - _MARGIN
    rows = np.repeat(np.arange(vectors.shape[0]), lengths)[kept]
    return csr_array((vectors.data[kept], (rows, vectors.indices[kept])), shape=vectors.shape)


def _cosines(
    left: csr_array, right: csr_array, rows: Indices, columns: Indices
) -> npt.NDArray[np.float64]:
    cosines = np.zeros(len(rows))
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        products = left[rows[part]].multiply(right[columns[part]])
        cosines[part] = np.asarray(products.sum(axis=1)).ravel()
    return cosines
