"""Whole groups of messages into splits, each class in its proportion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.data.classes import SHOWN, apportion
from lora_compare.data.twins import by_appearance
from lora_compare.errors import DataError

Numbers = npt.NDArray[np.integer[Any]]
"""Classes, groups or counts."""


@dataclass(frozen=True)
class Bond:
    """What keeps the messages of a group together, in the words of a refusal.

    Attributes:
        name: What the groups are.
        settings: The settings that make them.
        meaning: Which messages are in one group.
        remedy: What helps where groups are too large.
    """

    name: str
    settings: str
    meaning: str
    remedy: str


TWINS = Bond(
    "Groups of near-duplicates",
    "split.twins",
    "messages that differ in numbers, case and punctuation alone, or hardly, are in one group",
    "take out messages that nearly repeat others, label more that do not, or set "
    "split.twins: apart in params.yaml",
)
NAMED = Bond(
    "Groups",
    "data.group_column",
    "messages with one value in that column are in one group",
    "name a column with more and smaller groups, label messages of more groups, or set "
    "data.group_column: null in params.yaml",
)
BOTH = Bond(
    "Groups",
    "data.group_column, split.twins",
    "messages with one value in that column are in one group, and so are near-duplicates: those of "
    "two groups join them",
    "set split.twins: apart in params.yaml, name a column with more and smaller groups, or label "
    "messages of more groups",
)


def deal(
    labels: Numbers,
    groups: Numbers,
    planned: Mapping[str, Mapping[str, int]],
    random: np.random.RandomState,
    bond: Bond = TWINS,
) -> Numbers:
    """Return the split of each message as a place in `planned`, shape (n,), no group in two.

    Large groups are dealt first. Each goes to a split that has room for it in all its classes, by
    chance in proportion to that room, so that large groups are not all in the largest split; where
    none has, to the split that lacks most, of equal ones the smallest. Messages that are a group by
    themselves fill each split up, in the order given: where there are enough of them, all shares
    are met exactly.

    Args:
        labels: Index of each message's class, shape (n,).
        groups: Number of each message's group, shape (n,); whatever keeps messages together.
        planned: Messages that each split should get of each class, each with one at least; the
            classes in their order.
        random: Where the choices come from.
        bond: What makes the groups.

    Raises:
        DataError: Groups are so large that a split has less than half of its share of a class.

    Checked by tests/unit/data/test_dealing.py.
    """
    shares = np.array([list(counts.values()) for counts in planned.values()])
    groups = by_appearance(groups)
    # A number for each message: a group more or less does not move all others.
    chances = random.random_sample(len(groups))
    chosen, needs = _deal_large(labels, groups, shares, chances)
    alone = np.bincount(groups)[groups] == 1
    for index, lacking in enumerate(np.maximum(needs, 0).T.tolist()):
        own = groups[alone & (labels == index)]
        parts = apportion(len(own), [Fraction(n) for n in lacking])
        chosen[own] = np.repeat(np.arange(len(parts)), parts)
    dealt = chosen[groups]
    require_halves(labels, dealt, groups, planned, bond)
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


def require_halves(
    labels: Numbers,
    dealt: Numbers,
    groups: Numbers,
    planned: Mapping[str, Mapping[str, int]],
    bond: Bond,
) -> None:
    """Refuse splits with less than half of their share of a class.

    Args:
        labels: As of `deal`.
        dealt: Place in `planned` of the split of each message, shape (n,).
        groups: As of `deal`.
        planned: As of `deal`.
        bond: As of `deal`.

    Raises:
        DataError: There is such a split.
    """
    shares = np.array([list(counts.values()) for counts in planned.values()])
    classes: Sequence[str] = list(next(iter(planned.values())))
    counts = np.array(
        [np.bincount(labels[dealt == i], minlength=len(classes)) for i in range(len(planned))]
    )
    short = np.flatnonzero((2 * counts < shares).any(axis=0))
    if not len(short):
        return
    lines = []
    for index in short[:SHOWN]:
        own = groups[labels == index]
        got = ", ".join(
            f"{counts[i, index]:,} of {shares[i, index]:,} in {part}"
            for i, part in enumerate(planned)
        )
        largest = int(np.bincount(own).max())
        lines.append(f"{classes[index]}: {largest:,} of {len(own):,} messages are one group; {got}")
    more = len(short) - len(lines)
    raise DataError(
        f"{bond.name} are too large to stay whole.",
        where=f"params.yaml: {bond.settings}",
        expected=f"every split with half of its share of every class at least; {bond.meaning}",
        actual="\n".join(lines + ([f"... and {more:,} more classes"] if more else [])),
        next=bond.remedy,
    )
