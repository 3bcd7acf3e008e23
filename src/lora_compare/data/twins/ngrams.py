"""Texts as unit vectors of their n-grams, weighted by how rare these are among all texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array, vstack

LENGTHS = (3, 4, 5)
"""Characters of the n-grams, which are taken inside words of the normalised texts with a space
before and behind. They are weighted as scikit-learn's TfidfVectorizer does (analyzer char_wb);
the inverse document frequencies are those of all texts that are compared. On the split of the
book this gives 63 near twins of 300, 59 of them spam (tests/unit/data/test_golden_split.py)."""

CHUNK = 2**19
"""Characters that are looked at at once: some 200 bytes of memory each."""

Keys = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Counts:
    """The n-grams of some texts and how often each stands there.

    Attributes:
        ngrams: Keys of the different ones, shape (n_ngrams,), by first appearance.
        rows: Number of the text of each entry, shape (entries,), rising.
        places: Place in `ngrams` of each entry, shape (entries,), rising within a text.
        counts: How often it stands there, shape (entries,).
    """

    ngrams: Keys
    rows: Numbers
    places: Numbers
    counts: Numbers


class Vocabulary:
    """All n-grams of some texts, from the rarest to the commonest.

    Source: Salton and Buckley 1988, doi 10.1016/0306-4573(88)90021-0, with counts that are one
    higher than they are, as in scikit-learn: idf = ln((1 + n) / (1 + df)) + 1.
    Checked by tests/unit/data/test_twins.py, to the last bit where one chunk holds all texts.

    Attributes:
        idf: Inverse document frequency of each n-gram, shape (n_ngrams,), falling.
    """

    def __init__(self, texts: Sequence[str], copies: npt.NDArray[np.int64] | None = None) -> None:
        """Count in how many texts each n-gram stands.

        Args:
            texts: Normalised texts, none empty.
            copies: How many texts each of them stands for, shape (n,); None: one.
        """
        copies = np.ones(len(texts), dtype=np.int64) if copies is None else copies
        self._alphabet = _number_characters(texts)
        known, frequency = self._count_texts(texts, copies)
        order = np.argsort(frequency, kind="stable")
        self._known = known
        self._rank = np.empty(len(order), dtype=np.int32)
        self._rank[order] = np.arange(len(order), dtype=np.int32)
        self.idf = np.log((1 + copies.sum()) / (1 + frequency[order])) + 1

    def _count_texts(self, texts: Sequence[str], copies: Numbers) -> tuple[Keys, Numbers]:
        """Return the keys of all n-grams, rising, and the number of texts with each."""
        parts: list[tuple[Keys, Numbers]] = []
        waiting, merged = 0, 0
        for start, end in chunks(texts):
            found = self.count(texts[start:end])
            each = np.bincount(found.places, copies[start:end][found.rows], len(found.ngrams))
            parts.append((found.ngrams, each.astype(np.int64)))
            waiting += len(found.ngrams)
            # As many again as there are: what is added up twice is little.
            if waiting > merged:
                parts = [_add_up(parts)]
                waiting, merged = 0, len(parts[0][0])
        return _add_up(parts)

    def count(self, texts: Sequence[str], longest: bool = False) -> Counts:
        """Return the n-grams of some of the texts.

        Args:
            texts: Normalised texts.
            longest: Whether those of 5 characters are enough, and of shorter words the whole word.
        """
        rows, keys = _occurrences(texts, self._alphabet, longest)
        places, ngrams = pd.factorize(keys)
        width = max(1, len(ngrams))
        entries, counts = np.unique(rows * width + places, return_counts=True)
        return Counts(ngrams, entries // width, entries % width, counts)

    def rank(self, ngrams: Keys) -> npt.NDArray[np.int32]:
        """Return the place of each n-gram from the rarest to the commonest, shape (n_ngrams,)."""
        order = np.argsort(ngrams)
        ranks = np.empty(len(ngrams), dtype=np.int32)
        ranks[order] = self._rank[np.searchsorted(self._known, ngrams[order])]
        return ranks

    def vectors(self, texts: Sequence[str]) -> "Vectors":
        """Return the unit vector of each text, columns from the rarest to the commonest n-gram."""
        blocks, lengths = [], []
        for start, end in chunks(texts):
            found = self.count(texts[start:end])
            columns = self.rank(found.ngrams)[found.places]
            # Sums of squares depend on their order: this is scikit-learn's, to the last bit.
            squares = (found.counts * self.idf[columns]) ** 2
            lengths.append(np.sqrt(np.bincount(found.rows, squares)))
            bounds = np.searchsorted(found.rows, np.arange(end - start + 1))
            counts = found.counts.astype(np.min_scalar_type(found.counts.max()))
            shape = (end - start, len(self.idf))
            blocks.append(csr_array((counts, columns, bounds), shape=shape))
            blocks[-1].sort_indices()
        return Vectors(vstack(blocks, format="csr"), np.concatenate(lengths), self.idf)


@dataclass(frozen=True)
class Vectors:
    """Unit vectors in half of the memory: counts, which are small, instead of weights.

    Attributes:
        counts: Of each n-gram in each text, shape (n, n_ngrams), of one or two bytes.
        lengths: Norms of the weighted counts, shape (n,).
        idf: What a count of each n-gram weighs, shape (n_ngrams,).
    """

    counts: csr_array
    lengths: npt.NDArray[np.float64]
    idf: npt.NDArray[np.float64]

    def __getitem__(self, rows: Indices | slice) -> csr_array:
        """Return the vectors of some texts, shape (n_rows, n_ngrams), float64."""
        counts = self.counts[rows]
        weights = counts.data * self.idf[counts.indices]
        weights /= np.repeat(self.lengths[rows], np.diff(counts.indptr))
        return csr_array((weights, counts.indices, counts.indptr), shape=counts.shape)


def chunks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield where chunks of CHUNK characters begin and end; a longer text is one by itself."""
    ends = np.cumsum([len(text) for text in texts])
    start = 0
    while start < len(texts):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + CHUNK, side="right")))
        yield start, end
        start = end


def _number_characters(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return the number of each character by its code point, from 1 in their order."""
    codes = sorted({*map(ord, set().union(*texts)), ord(" ")})
    numbers = np.zeros(codes[-1] + 1, dtype=np.uint64)
    numbers[codes] = np.arange(1, len(codes) + 1, dtype=np.uint64)
    return numbers


def _add_up(parts: Sequence[tuple[Keys, Numbers]]) -> tuple[Keys, Numbers]:
    keys = np.concatenate([keys for keys, _ in parts])
    order = np.argsort(keys)
    keys, frequency = keys[order], np.concatenate([each for _, each in parts])[order]
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return keys[first], np.add.reduceat(frequency, first)


def _occurrences(
    texts: Sequence[str], alphabet: npt.NDArray[np.uint64], longest: bool
) -> tuple[Numbers, Keys]:
    """Return row and key of each n-gram where it stands, word by word, the short ones first.

    A key is the n-gram's characters as the digits of a number, so that keys have the order of
    the n-grams. Of more than 7,130 different characters, such as those of several scripts at once,
    5 digits overflow: then two of ten million n-grams share a key with odds of one in 400,000.
    """
    spaced = [f" {' '.join(text.split())} " for text in texts]
    codes = np.frombuffer("".join(spaced).encode("utf-32-le"), dtype=np.uint32)
    digits, base = alphabet[codes], alphabet.max() + np.uint64(1)
    space = codes == ord(" ")
    found = []
    key, inside = digits[:-1] * base + digits[1:], np.ones(len(codes) - 1, dtype=bool)
    for length in LENGTHS:
        n = len(codes) - length + 1
        key = key[:n] * base + digits[length - 1 :]
        inside = inside[:n] & ~space[length - 2 : length - 2 + n]
        wanted = inside
        if longest and length < max(LENGTHS):  # whole words alone
            wanted = inside & space[:n] & space[length - 1 :]
        starts = np.flatnonzero(wanted)
        missing = np.uint64(pow(int(base), max(LENGTHS) - length, 2**64))
        found.append((starts, key[starts] * missing))
    starts, keys = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    order = np.argsort(np.cumsum(space)[starts], kind="stable")
    rows = np.repeat(np.arange(len(texts)), [len(text) for text in spaced])
    return rows[starts[order]], keys[order]
