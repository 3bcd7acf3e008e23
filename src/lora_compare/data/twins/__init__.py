"""Messages that stand twice: word for word, but for digits and punctuation, or nearly."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lora_compare.data.twins.ngrams import Indices, Vocabulary
from lora_compare.data.twins.pairs import NEAR, Pairs, search_all
from lora_compare.data.twins.sketches import search_sketches

ALL_PAIRS = 2**29
"""Most pairs of texts that are all searched, those of 23,170 texts; of more, sketches tell which
are worth a look, and one of a hundred thousand near twins may be missed."""

KINDS = ("exact", "normalized", "near")
"""What twins are, by ever wider meanings."""

_NUMBER = re.compile(r"\d+")
_BETWEEN_WORDS = re.compile(r"\W+")

Mask = npt.NDArray[np.bool_]


def normalize(text: str) -> str:
    """Return `text` without what spammers vary: case, numbers, punctuation and spacing.

    Case is folded, a run of digits becomes one 0, and a run of anything but letters, digits
    and underscores becomes one space. A text with nothing else, such as a smiley, is only
    case-folded and stripped.
    """
    folded = text.casefold()
    return _BETWEEN_WORDS.sub(" ", _NUMBER.sub("0", folded)).strip() or folded.strip()


def find_twins(texts: Sequence[str], others: Sequence[str]) -> dict[str, Mask]:
    """Return which of `texts` have a twin among `others`, by three ever wider meanings.

    Returns:
        `exact`: the same text; `normalized`: the same by `normalize`; `near`: a cosine above
        NEAR by LENGTHS. Each a mask of shape (len(texts),).
    """
    masks, kinds = {}, set()
    twins = closest_twins(texts, others)
    for kind in KINDS:
        kinds.add(kind)
        masks[kind] = np.zeros(len(texts), dtype=bool)
        masks[kind][[twin.row for twin in twins if twin.kind in kinds]] = True
    return masks


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
    Where there are too many texts for all pairs, one with many twins meets some of them.
    """
    normalized, other_normalized = [[normalize(t) for t in side] for side in (texts, others)]
    places, normalized_places = _first_places(others), _first_places(other_normalized)
    near = _nearest(normalized, other_normalized, normalized_places)
    twins = []
    for row, (text, plain) in enumerate(zip(texts, normalized, strict=True)):
        if text in places:
            twins.append(Twin(row, places[text], "exact", 1.0))
        elif plain in normalized_places:
            twins.append(Twin(row, normalized_places[plain], "normalized", 1.0))
        elif plain in near:
            other, cosine = near[plain]
            twins.append(Twin(row, normalized_places[other], "near", cosine))
    return twins


def _first_places(texts: Sequence[str]) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, place)
    return places


def _nearest(
    normalized: Sequence[str], others: Sequence[str], known: dict[str, int]
) -> dict[str, tuple[str, float]]:
    """Return the nearest of the others, and its cosine, for each text that has a near twin.

    Args:
        normalized: Texts, among them ones of `known`, which need no search.
        others: The other texts.
        known: The different ones of the others, by first appearance.
    """
    copies = Counter([*normalized, *others])
    right = list(known)
    left = [text for text in _first_places(normalized) if text not in known]
    if not left or not right:
        return {}
    vocabulary = Vocabulary(list(copies), np.array(list(copies.values())))
    found: list[tuple[int, float, int]] = []
    for rows, columns, cosines in _near_pairs(vocabulary, left + right, len(left), len(left)):
        found.extend(zip(rows.tolist(), (-cosines).tolist(), columns.tolist(), strict=True))
    nearest: dict[str, tuple[str, float]] = {}
    for row, distance, column in sorted(found):
        nearest.setdefault(left[row], (right[column], -distance))
    return nearest


def near_duplicate_groups(texts: Sequence[str], above: float = NEAR) -> npt.NDArray[np.int64]:
    """Return the group of each text, shape (len(texts),), numbered by first appearance.

    Texts are in one group where a chain of pairs above the cosine leads from one to the other;
    most groups have one member.
    """
    if not texts:
        return np.zeros(0, dtype=np.int64)
    normalized = [normalize(text) for text in texts]
    copies = Counter(normalized)
    different = list(copies)
    vocabulary = Vocabulary(different, np.array(list(copies.values())))
    groups = np.arange(len(different))
    for rows, columns, _ in _near_pairs(vocabulary, different, len(different), 0, groups, above):
        if len(rows):
            groups[:] = _joined(groups, rows, columns)
    places = _first_places(different)
    return by_appearance(groups[[places[text] for text in normalized]])


def _joined(groups: Indices, rows: Indices, columns: Indices) -> Indices:
    """Return the groups, shape (n,), after those of each row and column have become one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = groups[rows], groups[columns]
    shape = (len(groups), len(groups))
    graph = coo_array((np.ones(len(rows), dtype=np.int8), edges), shape=shape)
    _, component = connected_components(graph, directed=False)
    return component[groups].astype(np.intp)


def _near_pairs(
    vocabulary: Vocabulary,
    texts: Sequence[str],
    n_left: int,
    first_right: int,
    groups: Indices | None = None,
    above: float = NEAR,
) -> Iterator[Pairs]:
    """Yield pairs of near twins: all of them where there are few texts, else nearly all."""
    if n_left * (len(texts) - first_right) <= ALL_PAIRS:
        return search_all(vocabulary.vectors(texts), n_left, first_right, above)
    return search_sketches(vocabulary, texts, n_left, first_right, groups, above)


def by_appearance(groups: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Return the same groups, shape (n,), numbered from 0 in the order in which they appear."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
