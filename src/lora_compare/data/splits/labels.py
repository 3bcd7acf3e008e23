"""Iterative stratification: messages with several labels into splits, each label in its share."""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pandas as pd

from lora_compare.data.classes import apportion
from lora_compare.data.splits.dealing import Bond, Numbers
from lora_compare.data.twins import by_appearance
from lora_compare.errors import DataError
from lora_compare.project.corpus import are_several, count_classes

Matrix = npt.NDArray[np.int64]


def indicators(pool: pd.DataFrame) -> Matrix:
    """Return 1 where a message has a label and 0 elsewhere, shape (n, k), labels in their order."""
    place = {name: number for number, name in enumerate(count_classes(pool))}
    rows = np.zeros((len(pool), len(place)), dtype=np.int64)
    for row, names in zip(rows, pool["label"], strict=True):
        row[[place[name] for name in names]] = 1
    return rows


def describe_labels(corpus: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return how many labels messages have, for metrics/split.json; nothing of one class each."""
    if not are_several(corpus["label"]):
        return {}
    counts = corpus["label"].map(len)
    without, most = int((counts == 0).sum()), int(counts.max())
    return {"labels": {"per_message": float(counts.mean()), "none": without, "most": most}}


def deal_labels(
    labels: Matrix,
    groups: Numbers,
    shares: Mapping[str, Fraction],
    random: np.random.RandomState,
    bond: Bond,
) -> Numbers:
    """Return the split of each message as a place in `shares`, shape (n,), no group in two.

    Iterative stratification: of the label that fewest of the messages left have (of equal ones by
    chance), each message goes to the split that lacks most messages with it; of equal ones to that
    which lacks most messages, then by chance. So the rarest labels, of which one message more or
    less is most, are dealt while every split has room. Messages without a label are dealt last, to
    the split that lacks most. A group is dealt as a whole, the largest with a label first, and the
    messages of a label lack as many as a group has of it.

    Args:
        labels: Of each message, shape (n, k), 0 and 1.
        groups: Number of each message's group, shape (n,).
        shares: Of each split, 1 together.
        random: Where the choices come from.
        bond: What makes the groups.

    Raises:
        DataError: Groups are so large that a split has less than half of its share.

    Source: Sechidis, Tsoumakas and Vlahavas 2011, ECML PKDD, doi 10.1007/978-3-642-23808-6_10,
    algorithm 1, of which messages are the examples.
    Checked by tests/unit/data/test_labels.py against that algorithm, written out.
    """
    groups = by_appearance(groups)
    sizes = np.bincount(groups)
    held = np.zeros((len(sizes), labels.shape[1]), dtype=np.int64)
    np.add.at(held, groups, labels)
    weights = np.array([float(share) for share in shares.values()])
    dealing = _Dealing(held, sizes, weights, random)
    chosen = dealing.run()[groups]
    planned = apportion(len(labels), list(shares.values()))
    counts = np.bincount(chosen, minlength=len(shares))
    if (2 * counts < np.array(planned)).any():
        raise _too_large(int(sizes.max()), counts, dict(zip(shares, planned, strict=True)), bond)
    return chosen


class _Dealing:
    """Groups on their way into splits.

    Args:
        held: Messages of each group with each label, shape (groups, k).
        sizes: Messages of each group, shape (groups,).
        weights: Share of each split, shape (splits,).
        random: Where the choices come from.
    """

    def __init__(
        self,
        held: Matrix,
        sizes: Matrix,
        weights: npt.NDArray[np.float64],
        random: np.random.RandomState,
    ) -> None:
        self._held, self._sizes, self._random = held, sizes, random
        # What each split lacks, of each label, shape (splits, k), and of all, shape (splits,).
        self._of_label = np.outer(weights, held.sum(axis=0))
        self._of_all = weights * sizes.sum()
        self._left = held.sum(axis=0)
        self._chosen = np.full(len(sizes), -1)

    def run(self) -> Matrix:
        """Return the split of each group, shape (groups,)."""
        while (there := self._left > 0).any():
            rarest = np.flatnonzero(self._left == self._left[there].min())
            label = rarest[self._random.randint(len(rarest))]
            members = np.flatnonzero((self._held[:, label] > 0) & (self._chosen < 0))
            for group in members[np.argsort(-self._sizes[members], kind="stable")]:
                self._deal(group, self._of_label[:, label])
        without = np.flatnonzero(self._chosen < 0)
        for group in without[np.argsort(-self._sizes[without], kind="stable")]:
            self._deal(group, self._of_all)
        return self._chosen

    def _deal(self, group: int, lacking: npt.NDArray[np.float64]) -> None:
        best = np.flatnonzero(lacking == lacking.max())
        best = best[self._of_all[best] == self._of_all[best].max()]
        part = best[self._random.randint(len(best))] if len(best) > 1 else best[0]
        self._chosen[group] = part
        self._of_label[part] -= self._held[group]
        self._of_all[part] -= self._sizes[group]
        self._left = self._left - self._held[group]


def _too_large(largest: int, counts: Numbers, planned: Mapping[str, int], bond: Bond) -> DataError:
    got = ", ".join(
        f"{n:,} of {share:,} in {part}"
        for n, (part, share) in zip(counts, planned.items(), strict=True)
    )
    return DataError(
        f"{bond.name} are too large to stay whole.",
        where=f"params.yaml: {bond.settings}",
        expected=f"every split with half of its share at least; {bond.meaning}",
        actual=f"{largest:,} of {sum(planned.values()):,} messages are one group; {got}",
        next=bond.remedy,
    )
