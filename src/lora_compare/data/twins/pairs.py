"""Pairs of texts whose vectors are nearly parallel: found among all pairs, or looked at."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from lora_compare.data.twins.ngrams import Indices, Vectors

NEAR = 0.9
"""Two messages are nearly the same above this cosine of their n-gram vectors."""

NEARLY_NEAR = 0.88
"""Above this cosine two messages may be near where n-grams are weighted among fewer of them: those
near between two splits of 100,000 or 200,000 had 0.885 at least among all."""

COMMON = 0.8
"""Norm of the part of a vector, its commonest n-grams, that the first look leaves out."""

_MARGIN = 1e-6
"""Keeps pairs that rounding would lose in the first look; exact cosines decide on them."""

_CELLS = 2**24
"""Most entries of one intermediate product, about 200 MB."""

PAIRS = 2**12
"""Pairs that are looked at at once: their vectors fit a processor's cache."""

FloatArray = npt.NDArray[np.float64]

Pairs = tuple[Indices, Indices, FloatArray]
"""Rows of one side, rows of the other, and their cosines, each of shape (n_pairs,)."""


def search_all(
    vectors: Vectors, n_left: int, first_right: int, above: float = NEAR
) -> Iterator[Pairs]:
    """Yield the pairs of a left and a right text whose cosine is above one, in bounded memory.

    The rare n-grams of x decide which pairs are worth a whole product: the others have the
    norm COMMON at most, so x . y <= x_rare . y + COMMON. Rare n-grams stand in few messages,
    which makes this 10 to 18 times as fast as all products at 10,000 messages.

    Args:
        vectors: Of all texts.
        n_left: So many texts from the first on are the left ones.
        first_right: Those from this one on are the right ones, numbered from 0.
        above: The cosine, above COMMON.

    Source: Bayardo et al. 2007, doi 10.1145/1242572.1242591 (bounds on partial products).
    """
    transposed = vectors[first_right:].T.tocsr()
    rare = _rare_part(vectors[:n_left])
    step = max(1, _CELLS // max(1, transposed.shape[1]))
    for start in range(0, n_left, step):
        partial = (rare[start : start + step] @ transposed).tocoo()
        possible = partial.data > above - COMMON - _MARGIN
        rows, columns = partial.row[possible] + start, partial.col[possible]
        found = cosines(vectors, rows, columns + first_right)
        near = found > above
        yield rows[near], columns[near], found[near]


def cosines(vectors: Vectors, rows: Indices, others: Indices) -> FloatArray:
    """Return the cosine of each of some pairs of texts, shape (n_pairs,)."""
    squares = vectors.idf**2
    found = np.empty(len(rows))
    for start in range(0, len(rows), PAIRS):
        part = slice(start, start + PAIRS)
        counts = vectors.counts[rows[part]].astype(np.float64)
        found[part] = counts.multiply(vectors.counts[others[part]]) @ squares
    return found / (vectors.lengths[rows] * vectors.lengths[others])


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
