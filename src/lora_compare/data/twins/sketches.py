"""Short sketches of texts, equal in a part where texts are alike: no text meets all others."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from lora_compare.data.twins.ngrams import Counts, Indices, Vocabulary, chunks
from lora_compare.data.twins.pairs import NEAR, PAIRS, Pairs, cosines

BANDS = 48
"""Parts of a sketch: two texts are looked at where one part is the same."""

ROWS = 5
"""Hash values of a part."""

ALIKE = 0.5
"""Share of equal hash values from which on a cosine is worked out. Of 68,000 pairs above 0.88, from
200,000 messages, all had 0.56 at least; of the others that met, 68 % had less than 0.5."""

WINDOW = 16
"""Texts with the same part that one is compared with."""

REMEMBERED = 22
"""Bits of a pair's place among those that have been looked at, four million of 8 bytes: texts that
are alike, and no twins, have several parts in common."""

Hashes = npt.NDArray[np.uint64]
Sketches = npt.NDArray[np.uint8]


def sketch(vocabulary: Vocabulary, texts: Sequence[str]) -> Sketches:
    """Return the sketch of each text, shape (n, BANDS * ROWS).

    A hash value is a byte of the n-gram that wins a race in which the chance of each is its share p
    of the square of the text's vector. Texts x and y have it in common with a chance of at least
    J = sum(min(p, q)) / sum(max(p, q)). Of texts that differ in some words and are alike else, a
    share c of the square is common, c is their cosine and J = c / (2 - c): 0.82 at NEAR, where one
    of the parts is the same with a chance of 1 - 10^-8; and nobody meets the many with a cosine of
    0.5. Only the longest n-grams of a word run: a third of all, which stand for the others.

    Args:
        vocabulary: Of these texts at least.
        texts: Normalised texts.

    Source: Moulton and Jiang 2018, arXiv:1809.04052 (P-MinHash); Broder 1997,
    doi 10.1109/SEQUEN.1997.666900; Indyk and Motwani 1998, doi 10.1145/276698.276876 (bands).
    Checked by tests/unit/data/test_twins.py against all pairs.
    """
    parts = [_sketch(vocabulary, texts[start:end]) for start, end in chunks(texts)]
    return np.concatenate(parts) if parts else np.zeros((0, BANDS * ROWS), dtype=np.uint8)


def _sketch(vocabulary: Vocabulary, texts: Sequence[str]) -> Sketches:
    found = vocabulary.count(texts, longest=True)
    starts = np.searchsorted(found.rows, np.arange(len(texts)))
    weights = vocabulary.idf[vocabulary.rank(found.ngrams)].astype(np.float32) ** 2
    several = np.flatnonzero(found.counts > 1)
    values = np.empty((len(texts), BANDS * ROWS), dtype=np.uint8)
    for number in range(BANDS * ROWS):
        hashes = _mixed(found.ngrams + np.uint64((number + 1) * _ODD % 2**64))
        # The lowest byte: the upper ones decide the race.
        winners = _winners(found, hashes, weights, several, starts)
        values[:, number] = hashes[winners].astype(np.uint8)
    return values


def _winners(
    found: Counts,
    hashes: Hashes,
    weights: npt.NDArray[np.float32],
    several: Indices,
    starts: Indices,
) -> Indices:
    """Return the place of the n-gram with the shortest time in each text, shape (n,).

    Times are exponential with the rate of an n-gram's share: time and place in one number, the
    time in its upper half, have the order of the times.
    """
    uniform = (hashes >> np.uint64(40)).astype(np.float32) + np.float32(0.5)
    times = -np.log(uniform * np.float32(2.0**-24)) / weights
    places = np.arange(len(times), dtype=np.uint64)
    runners = _with_place(times, places)[found.places]
    at = found.places[several]
    runners[several] = _with_place(
        times[at] / found.counts[several].astype(np.float32) ** 2, places[at]
    )
    return (np.minimum.reduceat(runners, starts) & np.uint64(2**32 - 1)).astype(np.intp)


def _with_place(times: npt.NDArray[np.float32], places: Hashes) -> Hashes:
    # The bits of positive floats have the order of their values.
    return times.view(np.uint32).astype(np.uint64) << np.uint64(32) | places


_ODD = 0x9E3779B97F4A7C15


def _mixed(values: Hashes) -> Hashes:
    """Return 64 bits that depend on all of each value's (Steele et al. 2014, SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def search_sketches(
    vocabulary: Vocabulary,
    texts: Sequence[str],
    n_left: int,
    first_right: int,
    groups: Indices | None = None,
    above: float = NEAR,
) -> Iterator[Pairs]:
    """Yield pairs as `search_all` does: nearly all, in time that grows as n log n.

    Args:
        vocabulary: Of these texts at least.
        texts: Normalised texts.
        n_left: As for `search_all`.
        first_right: As for `search_all`; 0 and all texts: they meet each other.
        groups: Number of each text's group, shape (n,), which the caller may change on the
            way: texts of one do not meet.
        above: As for `search_all`; the lower, the more pairs are missed.
    """
    sketches = sketch(vocabulary, texts)
    is_one = first_right == 0
    meeting = np.zeros(len(texts), dtype=bool)
    for band in range(BANDS):
        part = _part(sketches, band)
        if is_one:
            meeting |= pd.Series(part).duplicated(keep=False)
        else:
            left, right = pd.Series(part[:n_left]), pd.Series(part[first_right:])
            meeting[:n_left] |= left.isin(right)
            meeting[first_right:] |= right.isin(left)
    where = np.flatnonzero(meeting)
    vectors = vocabulary.vectors([texts[row] for row in where.tolist()])
    place = np.cumsum(meeting) - 1
    met = np.zeros(2**REMEMBERED, dtype=np.uint64)
    for band in range(BANDS):
        both = _part(sketches, band) << np.uint64(32)
        if is_one:  # between two sides, the same few would meet at one part after the other
            both |= _part(sketches, (band + 1) % BANDS)
        for rows, columns in meetings(both[:n_left], None if is_one else both[first_right:]):
            others = columns + first_right
            kept = _are_new(rows, others, met)
            if groups is not None:
                kept &= groups[rows] != groups[others]
            kept[kept] = _are_alike(sketches, rows[kept], others[kept])
            rows, columns = rows[kept], columns[kept]
            found = cosines(vectors, place[rows], place[others[kept]])
            near = found > above
            yield rows[near], columns[near], found[near]


def _part(sketches: Sketches, band: int) -> Hashes:
    """Return 32 bits that tell the hash values of a part, shape (n,)."""
    padded = np.zeros((len(sketches), 8), dtype=np.uint8)
    padded[:, :ROWS] = sketches[:, band * ROWS : (band + 1) * ROWS]
    return _mixed(padded.view("<u8").ravel()) >> np.uint64(32)


def _are_alike(sketches: Sketches, rows: Indices, others: Indices) -> npt.NDArray[np.bool_]:
    """Return which pairs have so many equal hash values that they may be near, shape (n_pairs,)."""
    equal = np.empty(len(rows), dtype=np.intp)
    for start in range(0, len(rows), PAIRS):
        part = slice(start, start + PAIRS)
        equal[part] = (sketches[rows[part]] == sketches[others[part]]).sum(axis=1)
    return equal >= ALIKE * BANDS * ROWS


def _are_new(rows: Indices, others: Indices, met: Hashes) -> npt.NDArray[np.bool_]:
    """Return which pairs `met` does not hold, shape (n_pairs,), and put all of them there.

    A pair takes the place of another that has the same: at worst one is looked at twice.
    """
    first, second = np.minimum(rows, others), np.maximum(rows, others)
    pairs = _mixed(first.astype(np.uint64) << np.uint64(32) | second.astype(np.uint64))
    places = pairs >> np.uint64(64 - REMEMBERED)
    new: npt.NDArray[np.bool_] = met[places] != pairs
    met[places] = pairs
    return new


def meetings(left: Hashes, right: Hashes | None) -> Iterator[tuple[Indices, Indices]]:
    """Yield rows of `left` and `right` with the same part, each row at most once at a time.

    Where more than WINDOW have it, each text meets the next ones in a circle, from those on that
    share the lower half too: in another part it meets others, and who is alike in a large group is
    alike to many.

    Args:
        left: One part of the sketch of each text, in the upper half of the number, shape (n,); the
            lower half brings those together that share it.
        right: The same of the others; None: the texts meet each other.

    Source: Bawa et al. 2005, doi 10.1145/1060745.1060840 (as long a prefix as there is).
    """
    others = left if right is None else right
    order = np.argsort(others, kind="stable")
    ordered = others[order]
    own = order if right is None else np.argsort(left, kind="stable")
    sought = left[own]  # in order: at random places, most of a search is waiting for memory
    lowest = sought & np.uint64(2**64 - 2**32)
    start = np.searchsorted(ordered, lowest)
    # Texts with the same number start at one after another.
    place = np.searchsorted(ordered, sought) + np.arange(len(left))
    place -= np.searchsorted(sought, sought)
    first, sizes, turn = (np.empty(len(left), dtype=np.intp) for _ in range(3))
    first[own] = start
    sizes[own] = np.searchsorted(ordered, lowest | np.uint64(2**32 - 1), side="right") - start
    turn[own] = place - start
    for step in range(int(right is None), WINDOW):
        is_met = sizes > step
        if right is None:  # a few meet once, not again from the other side
            is_met &= (sizes > WINDOW) | (turn + step < sizes)
        rows = np.flatnonzero(is_met)
        if len(rows):
            yield rows, order[first[rows] + (turn[rows] + step) % sizes[rows]]
