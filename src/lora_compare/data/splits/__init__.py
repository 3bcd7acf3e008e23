"""From the corpus to train, validation, test and unused messages."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lora_compare.data.classes import dealt_sizes, require_in_every_split, stratified_sizes
from lora_compare.data.splits.book import as_the_book_reads, split_as_the_book
from lora_compare.data.splits.coverage import require_classes
from lora_compare.data.splits.dates import describe_times, split_by_time
from lora_compare.data.splits.describing import describe_groups, describe_own_groups, describe_sizes
from lora_compare.data.splits.folds import split_in_folds
from lora_compare.data.splits.given import PRECEDENCE, count_shared, split_as_given
from lora_compare.data.splits.groups import (
    Groups,
    Rows,
    cut,
    join_groups,
    own_groups,
    split_groups,
)
from lora_compare.data.splits.labels import describe_labels
from lora_compare.data.twins import (
    ALL_PAIRS,
    KINDS,
    closest_twins,
    find_twins,
    near_duplicate_groups,
)
from lora_compare.data.twins.pairs import NEAR, NEARLY_NEAR
from lora_compare.params import SplitParams
from lora_compare.project.corpus import (
    CARRIED,
    FOLD,
    Messages,
    are_several,
    count_classes,
    make_corpus,
    make_split,
)
from lora_compare.project.paths import SPLITS

Frames = dict[str, pd.DataFrame]
"""The splits by name: train, validation, test and unused."""

EVALUATED = (("test", "train"), ("test", "validation"), ("validation", "train"))
"""Splits of which the first has no twin in the second, where twins stay together."""


@dataclass(frozen=True)
class Dealt:
    """Messages that have been dealt, before anything is written of them.

    Attributes:
        parts: The messages of each split, and those that it leaves out as `unused`.
        kin: Number of the group of near-duplicates of each message by its index; None where they
            were dealt one by one.
        removed: Repeated messages that were dropped before.
        facts: What metrics/split.json says of groups, dates and given splits.
    """

    parts: Frames
    kin: "pd.Series[int] | None"
    removed: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_free_of_twins(self) -> bool:
        """Whether they were dealt until no message of test had a twin in train."""
        return self.kin is not None and "given" not in self.facts


def split(corpus: pd.DataFrame, params: SplitParams) -> tuple[Frames, dict[str, Any]]:
    """Return the splits of a corpus, and their sizes and leaks for metrics/split.json.

    The result depends on the corpus and the parameters alone: the random choices come from
    NumPy's RandomState, whose streams are frozen, so every machine draws the same split.

    Returns:
        The frames (columns Label, an index into the class names in order, Text, Group where the
        data has groups, and Fold where there are folds) and the metrics. `unused` holds what
        balancing left out, but no text that stands word for word in validation or test, none of a
        group that does, and with `twins: together` no near-duplicate of one: models may be
        pre-trained on it. All that is of the fold. The metrics of train, validation and unused are
        of the first fold, those of test of all; `folds` has the sizes of each.

    Raises:
        DataError: A class is too small to be in every split, or missing where the splits are given
            or dealt by date; a group is too large to stay whole; dates or given splits cannot be
            used; or, for the book's mode, the messages do not fit on lines.
    """
    classes = list(count_classes(corpus))
    folds = deal_out(corpus, params)
    unused = [dealt.parts["unused"] for dealt in folds]
    for dealt, left_out in zip(folds, unused, strict=True):
        dealt.parts["unused"] = left_out[~_is_kin(left_out, dealt)]
    twins = dict.fromkeys(KINDS, 0)
    for parts in (dealt.parts for dealt in folds if not dealt.is_free_of_twins):
        found = find_twins(list(parts["test"]["text"]), list(parts["train"]["text"]))
        twins = {kind: twins[kind] + int(mask.sum()) for kind, mask in found.items()}
    first = folds[0]
    metrics = {
        "rows": len(corpus),
        "classes": count_classes(corpus),
        "duplicates_removed": first.removed,
        **_facts(folds),
        **describe_labels(corpus),
        "conflicting_texts": count_conflicting(corpus),
        "splits": describe_sizes([dealt.parts for dealt in folds], classes),
        "unused_rows_dropped_as_twins": len(unused[0]) - len(first.parts["unused"]),
        "test_rows_with_twin_in_train": twins,
    }
    return {name: _encode(folds, name, classes) for name in first.parts}, metrics


def plan(messages: Messages, params: SplitParams) -> dict[str, Any]:
    """Return what metrics/split.json will hold, as far as no search for twins is needed for it.

    Args:
        messages: The corpus as lists.
        params: How it is to be split.

    Raises:
        DataError: As `split`.
    """
    carried = {name: messages[name] for name in CARRIED if name in messages}
    corpus = make_corpus(messages["label"], messages["text"], **carried)
    folds = deal_out(corpus, params.model_copy(update={"twins": "apart"}))
    facts = {**_facts(folds), **describe_labels(corpus)}
    sizes = describe_sizes([dealt.parts for dealt in folds], list(count_classes(corpus)))
    return {"duplicates_removed": folds[0].removed, **facts, "splits": sizes}


def deal_out(corpus: pd.DataFrame, params: SplitParams) -> list[Dealt]:
    """Return which messages are for what, a fold each; arguments and errors as `split`."""
    if params.mode == "appendix_e":
        return [_deal_as_the_book(corpus, params)]
    pool = deduplicate(corpus) if params.deduplicate == "exact" else corpus
    removed = len(corpus) - len(pool)
    several = are_several(pool["label"])
    if not several and not {"split", "time"} & {*pool}:
        available = dict.fromkeys(count_classes(corpus), 0) | count_classes(pool)
        # Groups are dealt whole before anything is cut, whatever makes them.
        dealt_as = {"twins": "together"} if "group" in pool else {}
        settings = params.model_copy(update=dealt_as)
        require_in_every_split(dealt_sizes(available, settings), available, settings)
    is_plain = not several and params.twins == "apart" and params.folds == 1
    if is_plain and not {*CARRIED} & {*pool}:
        return [Dealt(_split_stratified(pool, params), None, removed)]
    folds, twins = _deal_whole(pool, list(count_classes(corpus)), params)
    kin = None if twins is None else pd.Series(twins, index=pool.index)
    facts = {} if kin is None else {"near_duplicates": describe_groups(kin)}
    if "group" in pool:
        test = np.concatenate([rows["test"] for rows in folds])
        facts["groups"] = describe_own_groups(pool, pool.iloc[test])
    if "time" in pool:
        facts["time"] = describe_times(pool, folds[0])
    if "split" in pool:
        taken = params.validation is not None
        facts["given"] = {"validation_from_train": taken, **count_shared(corpus)}
    return [
        Dealt({part: pool.iloc[rows[part]] for part in (*SPLITS, "unused")}, kin, removed, facts)
        for rows in folds
    ]


def _deal_as_the_book(corpus: pd.DataFrame, params: SplitParams) -> Dealt:
    pool = as_the_book_reads(corpus)
    available = dict.fromkeys(count_classes(corpus), 0) | count_classes(pool)
    parts = split_as_the_book(pool, params)
    sizes = {name: count_classes(parts[name]) for name in SPLITS}
    require_in_every_split(sizes, available, params)
    return Dealt(parts, None, 0)


def _is_kin(unused: pd.DataFrame, dealt: Dealt) -> "pd.Series[bool]":
    """Return which of the unused messages are of a text or a group that is evaluated with."""
    evaluated = pd.concat([dealt.parts["validation"], dealt.parts["test"]])
    found = unused["text"].isin({*evaluated["text"]})
    if "group" in unused:
        found |= unused["group"].isin({*evaluated["group"]} - {""})
    if dealt.kin is not None:
        found |= dealt.kin[unused.index].isin({*dealt.kin[evaluated.index]})
    return found


def deduplicate(corpus: pd.DataFrame) -> pd.DataFrame:
    """Return the corpus with one message of each text: the first, of dated ones the newest.

    A text that stands under two labels keeps the label it has first: dropping it would favour
    the models on exactly the messages about which people disagree. Of given splits test stays as
    it is, and train loses what stands in validation or test, validation what stands in test.
    """
    order, kept = corpus, pd.Series(data=False, index=corpus.index)
    if "time" in corpus:
        order = corpus.sort_values("time", kind="stable", ascending=False)
    if "split" in corpus:
        order = corpus.loc[corpus["split"].map(PRECEDENCE).sort_values(kind="stable").index]
        kept = corpus["split"] == "test"
    return corpus[kept | ~order["text"].duplicated()].reset_index(drop=True)


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


def _deal_whole(
    pool: pd.DataFrame, classes: list[str], params: SplitParams
) -> tuple[list[Rows], Groups | None]:
    """Return the rows of each fold's splits, and the group of each message; None: twins are apart.

    Which messages are twins depends a little on what they are compared among, since n-grams are
    weighted by how rare they are there. Of so many that hundreds would be twins between two splits
    alone, looked at as in the report, what is nearly as close stays together from the first on.
    Twins that are found there all the same join too, and all is dealt again, until there are none.
    """
    groups = own_groups(pool)
    # Between splits that are given, twins stay where they are.
    pairs = EVALUATED if "split" not in pool else EVALUATED[2:] * (params.validation is not None)
    if params.twins == "apart" or not pairs:
        return _deal(pool, groups, classes, params), None
    texts = pool["text"].to_numpy(dtype=object)
    above = NEAR if len(texts) ** 2 <= ALL_PAIRS else NEARLY_NEAR
    groups = join_groups(groups, near_duplicate_groups(texts.tolist(), above))
    while True:
        folds = _deal(pool, groups, classes, params)
        found = [
            (rows[part][twin.row], rows[other][twin.other])
            for rows in folds
            for part, other in pairs
            for twin in closest_twins(texts[rows[part]].tolist(), texts[rows[other]].tolist())
        ]
        if not found:
            return folds, groups
        for row, other in found:
            groups[groups == groups[row]] = groups[other]


def _deal(
    pool: pd.DataFrame, groups: Groups, classes: list[str], params: SplitParams
) -> list[Rows]:
    """Return the rows of each fold's splits, dealt and cut as pool and settings ask for."""
    if params.folds > 1:
        return [cut(rows, pool, params) for rows in split_in_folds(pool, groups, params)]
    dealer = split_groups
    if {"split", "time"} & {*pool}:
        dealer = split_as_given if "split" in pool else split_by_time
    rows = dealer(pool, groups, params)
    if dealer is not split_groups or are_several(pool["label"]):
        require_classes(rows, pool, classes)
    return [cut(rows, pool, params)]


def _encode(folds: list[Dealt], name: str, classes: list[str]) -> pd.DataFrame:
    """Return a split of all folds, one behind the other, as it is written."""
    index = {name: number for number, name in enumerate(classes)}
    part = pd.concat([dealt.parts[name] for dealt in folds])
    groups = list(part["group"]) if "group" in part else None
    labels: list[Any]
    if are_several(part["label"]):
        labels = [tuple(int(name in own) for name in classes) for own in part["label"]]
    else:
        labels = [index[label] for label in part["label"]]
    frame = make_split(labels, list(part["text"]), groups)
    if len(folds) > 1:
        sizes = [len(dealt.parts[name]) for dealt in folds]
        frame[FOLD] = np.repeat(np.arange(1, len(folds) + 1), sizes)
    return frame


def _facts(folds: list[Dealt]) -> dict[str, Any]:
    """Return what is said of how messages were dealt; of several folds the sizes of each too."""
    sizes = {
        str(number): {name: len(part) for name, part in dealt.parts.items()}
        for number, dealt in enumerate(folds, start=1)
    }
    return folds[0].facts | ({"folds": sizes} if len(folds) > 1 else {})
