"""Whole groups of messages into splits, each class in its proportion."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.data.classes import SHOWN, apportion, proportional_sizes
from lora_compare.data.twins import by_appearance
from lora_compare.errors import DataError
from lora_compare.params import SplitParams
from lora_compare.project.paths import SPLITS

Numbers = npt.NDArray[np.integer[Any]]
"""Classes, groups or counts."""


def deal(
    labels: Numbers,
    groups: Numbers,
    classes: Sequence[str],
    params: SplitParams,
    random: np.random.RandomState,
) -> Numbers:
    """Return the split of each message as a place in SPLITS, shape (n,), no group in two of them.

    Large groups are dealt first. Each goes to a split that has room for it in all its classes, by
    chance in proportion to that room, so that large groups are not all in the largest split; where
    none has, to the split that lacks most, of equal ones the smallest. Messages that are a group by
    themselves fill each split up, in the order given: where there are enough of them, all shares
    are met exactly.

    Args:
        labels: Index of each message's class, shape (n,).
        groups: Number of each message's group, shape (n,); whatever keeps messages together.
        classes: Names of the classes, each with a message at least.
        params: Shares of the splits.
        random: Where the choices come from.

    Raises:
        DataError: Groups are so large that a split has less than half of its share of a class.

    Checked by tests/unit/data/test_dealing.py.
    """
    members = np.bincount(labels, minlength=len(classes)).tolist()
    planned = proportional_sizes(dict(zip(classes, members, strict=True)), params)
    shares = np.array([[planned[part][name] for name in classes] for part in SPLITS])
    groups = by_appearance(groups)
    # A number for each message: a group more or less does not move all others.
    chances = random.random_sample(len(groups))
    chosen, needs = _deal_large(labels, groups, shares, chances)
    alone = np.bincount(groups)[groups] == 1
    for index, lacking in enumerate(np.maximum(needs, 0).T.tolist()):
        own = groups[alone & (labels == index)]
        parts = apportion(len(own), [Fraction(n) for n in lacking])
        chosen[own] = np.repeat(np.arange(len(SPLITS)), parts)
    dealt = chosen[groups]
    _require_halves(labels, dealt, groups, classes, shares)
    return dealt


def _deal_large(
    labels: Numbers, groups: Numbers, shares: Numbers, chances: npt.NDArray[np.float64]
) -> tuple[Numbers, Numbers]:
    """Return the split of each group of two messages or more, and what the splits still lack.

    Args:
        labels: Index of each message's class, shape (n,).
        groups: Number of each message's group by first appearance, shape (n,).
        shares: Messages that each split should get of each class, shape (splits, classes).
        chances: Random numbers of the messages in 0..1, shape (n,).

    Returns:
        Splits, shape (groups,), 0 for groups of one; numbers, shape (splits, classes), below 0
        where a split has more than its share.
    """
    sizes = np.bincount(groups)
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(sizes)[:-1])
    chosen, needs = np.zeros(len(sizes), dtype=np.int64), shares.copy()
    for group in np.argsort(-sizes, kind="stable")[: int((sizes > 1).sum())]:
        held, counts = np.unique(labels[members[group]], return_counts=True)
        of_class = counts / shares[:, held].sum(axis=0)
        lacking = (needs[:, held] * of_class).sum(axis=1)
        room = np.flatnonzero((counts <= needs[:, held]).all(axis=1))
        if len(room):
            edges = np.cumsum(lacking[room])
            chance = chances[members[group][0]] * edges[-1]
            part = room[np.searchsorted(edges[:-1], chance, side="right")]
        else:
            share = (shares[:, held] * of_class).sum(axis=1)
            part = np.lexsort((lacking / share, lacking))[-1]
        chosen[group] = part
        needs[part, held] -= counts
    return chosen, needs


def _require_halves(
    labels: Numbers, dealt: Numbers, groups: Numbers, classes: Sequence[str], shares: Numbers
) -> None:
    """Refuse splits with less than half of their share of a class.

    Arguments as above; `dealt` is the split of each message, shape (n,).
    """
    counts = np.array(
        [np.bincount(labels[dealt == i], minlength=len(classes)) for i in range(len(SPLITS))]
    )
    short = np.flatnonzero((2 * counts < shares).any(axis=0))
    if not len(short):
        return
    lines = []
    for index in short[:SHOWN]:
        own = groups[labels == index]
        got = ", ".join(
            f"{counts[i, index]:,} of {shares[i, index]:,} in {part}"
            for i, part in enumerate(SPLITS)
        )
        largest = int(np.bincount(own).max())
        lines.append(f"{classes[index]}: {largest:,} of {len(own):,} messages are one group; {got}")
    more = len(short) - len(lines)
    raise DataError(
        "Groups of near-duplicates are too large to stay whole.",
        where="params.yaml: split.twins",
        expected="every split with half of its share of every class at least; messages that differ "
        "in numbers, case and punctuation alone, or hardly, are in one group",
        actual="\n".join(lines + ([f"... and {more:,} more classes"] if more else [])),
        next="take out messages that nearly repeat others, label more that do not, or set "
        "split.twins: apart in params.yaml",
    )
