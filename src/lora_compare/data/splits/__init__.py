"""From the corpus to train, validation, test and unused messages."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lora_compare.data.classes import (
    CUT,
    dealt_sizes,
    require_in_every_split,
    stratified_sizes,
)
from lora_compare.data.splits.book import as_the_book_reads, split_as_the_book
from lora_compare.data.splits.dealing import deal
from lora_compare.data.twins import closest_twins, find_twins, near_duplicate_groups
from lora_compare.params import SplitParams
from lora_compare.project.corpus import count_classes, make_split
from lora_compare.project.paths import SPLITS

Frames = dict[str, pd.DataFrame]
"""The splits by name: train, validation, test and unused."""


def split(corpus: pd.DataFrame, params: SplitParams) -> tuple[Frames, dict[str, Any]]:
    """Return the splits of a corpus, and their sizes and leaks for metrics/split.json.

    The result depends on the corpus and the parameters alone: the random choices come from
    NumPy's RandomState, whose streams are frozen, so every machine draws the same split.

    Returns:
        The frames (columns Label, an index into the class names in order, and Text) and the
        metrics. `unused` holds what balancing left out, but no text that stands word for
        word in validation or test, and with `twins: together` none of a group that does:
        models may be pre-trained on it.

    Raises:
        DataError: A class is too small to be in every split, a group of near-duplicates too
            large to stay whole, or, for the book's mode, the messages do not fit on lines.
    """
    is_book = params.mode == "appendix_e"
    pool = as_the_book_reads(corpus) if is_book else corpus
    removed = 0
    if params.deduplicate == "exact":
        pool = deduplicate(corpus)
        removed = len(corpus) - len(pool)
    classes = list(count_classes(corpus))
    available = dict.fromkeys(classes, 0) | count_classes(pool)
    kin: pd.Series[Any] = pool["text"]
    if is_book:
        parts = split_as_the_book(pool, params)
        sizes = {name: count_classes(parts[name]) for name in SPLITS}
        require_in_every_split(sizes, available, params)
    else:
        require_in_every_split(dealt_sizes(available, params), available, params)
        if params.twins == "together":
            parts, kin = _split_together(pool, params)
        else:
            parts = _split_stratified(pool, params)
    evaluated = {*kin[parts["validation"].index], *kin[parts["test"].index]}
    unused = parts["unused"]
    parts["unused"] = unused[~kin[unused.index].isin(evaluated)]
    frames = {name: _encode(part, classes) for name, part in parts.items()}
    twins = find_twins(list(parts["test"]["text"]), list(parts["train"]["text"]))
    metrics = {
        "rows": len(corpus),
        "classes": count_classes(corpus),
        "duplicates_removed": removed,
        **({"near_duplicates": _describe_groups(kin)} if params.twins == "together" else {}),
        "conflicting_texts": count_conflicting(corpus),
        "splits": {name: _describe(part, classes) for name, part in parts.items()},
        "unused_rows_dropped_as_twins": len(unused) - len(parts["unused"]),
        "test_rows_with_twin_in_train": {kind: int(mask.sum()) for kind, mask in twins.items()},
    }
    return frames, metrics


def deduplicate(corpus: pd.DataFrame) -> pd.DataFrame:
    """Return the corpus with the first message of each text only.

    A text that stands under two labels keeps the label it has first: dropping it would favour
    the models on exactly the messages about which people disagree.
    """
    return corpus.drop_duplicates("text", keep="first", ignore_index=True)


def count_conflicting(corpus: pd.DataFrame) -> int:
    """Return the number of distinct texts that stand under more than one label."""
    return int((corpus.groupby("text")["label"].nunique() > 1).sum())


def _split_stratified(pool: pd.DataFrame, params: SplitParams) -> Frames:
    """Return the splits, each with every class in proportion to its share of all messages.

    One permutation decides everything: the first messages of a class go to train, the next
    to validation and to test, the last, where classes are balanced, are unused. The splits
    keep the permutation's order, `unused` the corpus's.
    """
    order = np.random.RandomState(params.seed).permutation(len(pool))
    labels = pool["label"].to_numpy()[order]
    classes = count_classes(pool)
    sizes = stratified_sizes(classes, params)
    chosen: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in (*SPLITS, "unused")}
    for name in classes:
        positions = np.flatnonzero(labels == name)
        bounds = np.cumsum([sizes[part][name] for part in SPLITS])
        for part, piece in zip(chosen, np.split(positions, bounds), strict=True):
            chosen[part].append(piece)
    rows = {part: order[np.sort(np.concatenate(pieces))] for part, pieces in chosen.items()}
    rows["unused"] = np.sort(rows["unused"])
    return {part: pool.iloc[index] for part, index in rows.items()}


def _split_together(pool: pd.DataFrame, params: SplitParams) -> tuple[Frames, "pd.Series[int]"]:
    """Return the splits of whole groups of near-duplicates, and the group of each message.

    Which messages are twins depends a little on what they are compared among, since n-grams are
    weighted by how rare they are there. Twins that are still found between two splits, looked at
    by themselves as in the report, join their groups, and all is dealt again, until there are none.
    """
    texts = pool["text"].to_numpy(dtype=object)
    groups = near_duplicate_groups(texts.tolist())
    while True:
        rows = split_groups(pool, groups, params)
        found = [
            (rows[part][twin.row], rows[other][twin.other])
            for part, other in (("test", "train"), ("test", "validation"), ("validation", "train"))
            for twin in closest_twins(texts[rows[part]].tolist(), texts[rows[other]].tolist())
        ]
        if not found:
            parts = {part: pool.iloc[index] for part, index in rows.items()}
            return parts, pd.Series(groups, index=pool.index)
        for row, other in found:
            groups[groups == groups[row]] = groups[other]


def split_groups(
    pool: pd.DataFrame, groups: npt.NDArray[np.int64], params: SplitParams
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the rows of each split, no group in two of them, and what balancing cuts as `unused`.

    The splits keep the order of one permutation, `unused` the pool's.

    Args:
        pool: The messages.
        groups: Number of each message's group, shape (len(pool),), whatever makes it one.
        params: Shares, balance and seed.

    Raises:
        DataError: Groups are so large that a split has less than half of its share of a class.
    """
    random = np.random.RandomState(params.seed)
    order = random.permutation(len(pool))
    classes = list(count_classes(pool))
    index = {name: number for number, name in enumerate(classes)}
    labels = pool["label"].map(index).to_numpy()[order]
    dealt = deal(labels, groups[order], classes, params, random)
    rows, cut = {}, [order[:0]]
    for number, part in enumerate(SPLITS):
        places = np.flatnonzero(dealt == number)
        if part in CUT[params.balance]:
            smallest = np.bincount(labels[places]).min()
            kept = pd.Series(labels[places]).groupby(labels[places]).cumcount() < smallest
            cut.append(order[places[~kept]])
            places = places[kept]
        rows[part] = order[places]
    return rows | {"unused": np.sort(np.concatenate(cut))}


def _describe_groups(groups: "pd.Series[int]") -> dict[str, int]:
    """Return how many groups have several messages, how many messages, and the largest's size."""
    sizes = groups.value_counts()
    repeated = sizes[sizes > 1]
    return {
        "groups": len(repeated),
        "messages": int(repeated.sum()),
        "largest": int(sizes.max()),
    }


def _encode(part: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    index = {name: number for number, name in enumerate(classes)}
    return make_split([index[label] for label in part["label"]], list(part["text"]))


def _describe(part: pd.DataFrame, classes: list[str]) -> dict[str, Any]:
    counts = count_classes(part)
    return {"n": len(part), "classes": {name: counts.get(name, 0) for name in classes}}
