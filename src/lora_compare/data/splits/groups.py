"""What keeps messages together, and whole groups into splits of their shares."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lora_compare.data.classes import CUT, most_of_a_class, share_out, split_shares
from lora_compare.data.splits.dealing import BOTH, NAMED, TWINS, Bond, Numbers, deal
from lora_compare.data.splits.labels import deal_labels, indicators
from lora_compare.data.twins import by_appearance
from lora_compare.params import SplitParams
from lora_compare.project.corpus import are_several, count_classes
from lora_compare.project.paths import SPLITS

Groups = npt.NDArray[np.int64]
"""Number of each message's group, shape (n,)."""

Rows = dict[str, npt.NDArray[np.int64]]
"""Row numbers of the messages of each split."""


def number_groups(names: "Sequence[str] | pd.Series[str]") -> Groups:
    """Return the group of each message by its name, shape (n,); an empty one is alone.

    Args:
        names: Of the groups, one a message.
    """
    codes, _ = pd.factorize(np.asarray(names, dtype=object))
    alone = np.asarray(names, dtype=object) == ""
    codes[alone] = len(codes) + np.arange(int(alone.sum()))
    return by_appearance(codes)


def join_groups(groups: Groups, others: Groups) -> Groups:
    """Return the groups of messages that a chain of either kind of group connects, shape (n,).

    Args:
        groups: Number of each message's group of one kind, from 0.
        others: The same of another kind.

    Checked by tests/unit/data/test_groups.py against networkx' connected components.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(groups):
        return groups
    first, second = int(groups.max()) + 1, int(others.max()) + 1
    size = first + second
    edges = np.ones(len(groups), dtype=np.int8), (groups, first + others)
    _, component = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    return by_appearance(component[groups])


def own_groups(pool: pd.DataFrame) -> Groups:
    """Return the group that the data gives each message, shape (n,); all alone where it has none.

    Args:
        pool: The messages, perhaps with the column `group`.
    """
    return number_groups(pool["group"]) if "group" in pool else np.arange(len(pool))


def bond_of(pool: pd.DataFrame, params: SplitParams) -> Bond:
    """Return what makes the groups of these messages, for the words of a refusal."""
    if "group" not in pool:
        return TWINS
    return BOTH if params.twins == "together" else NAMED


def deal_shares(
    pool: pd.DataFrame,
    groups: Groups,
    shares: Mapping[str, Fraction],
    random: np.random.RandomState,
    params: SplitParams,
) -> Numbers:
    """Return the split of each message as a place in `shares`, each class, or label, in its share.

    Args:
        pool: The messages, in the order in which they are dealt.
        groups: Number of each message's group, shape (len(pool),).
        shares: Of each split, 1 together.
        random: Where the choices come from.
        params: For the words of a refusal.

    Raises:
        DataError: Groups are so large that a split has less than half of its share.
    """
    bond = bond_of(pool, params)
    if are_several(pool["label"]):
        return deal_labels(indicators(pool), groups, shares, random, bond)
    labels, classes = class_indices(pool)
    return deal(labels, groups, share_out(classes, shares), random, bond)


def class_indices(pool: pd.DataFrame) -> tuple[npt.NDArray[np.integer[Any]], dict[str, int]]:
    """Return the class of each message as an index, shape (n,), and the messages of each class."""
    classes = count_classes(pool)
    index = {name: number for number, name in enumerate(classes)}
    return pool["label"].map(index).to_numpy(), classes


def split_groups(pool: pd.DataFrame, groups: Groups, params: SplitParams) -> Rows:
    """Return the rows of each split, no group in two of them, each class in its share.

    The splits keep the order of one permutation.

    Args:
        pool: The messages.
        groups: Number of each message's group, shape (len(pool),), whatever makes it one.
        params: Shares and seed.

    Raises:
        DataError: Groups are so large that a split has less than half of its share of a class.
    """
    random = np.random.RandomState(params.seed)
    order = random.permutation(len(pool))
    dealt = deal_shares(pool.iloc[order], groups[order], split_shares(params), random, params)
    return {part: order[dealt == number] for number, part in enumerate(SPLITS)}


def take_validation(
    train: npt.NDArray[np.int64],
    share: Fraction,
    pool: pd.DataFrame,
    groups: Groups,
    params: SplitParams,
    random: np.random.RandomState,
) -> Rows:
    """Return what is left of training messages and the validation taken from them.

    Each class gives its share, and no group is in both.

    Args:
        train: Rows of the training messages; either part keeps their order.
        share: Of them, above 0 and below 1.
        pool: All messages.
        groups: Number of each one's group, shape (len(pool),).
        params: What makes the groups, for the words of a refusal.
        random: Where the choices come from.

    Raises:
        DataError: Groups are so large that a part has less than half of its share of a class.
    """
    shares = {"train": 1 - share, "validation": share}
    dealt = deal_shares(pool.iloc[train], groups[train], shares, random, params)
    return {part: train[dealt == number] for number, part in enumerate(shares)}


def cut(rows: Rows, pool: pd.DataFrame, params: SplitParams) -> Rows:
    """Return the rows that `split.balance` leaves in each split, and what it cuts as `unused`.

    The first messages of each class stay, so that rows in random order are cut at random; `unused`
    keeps the pool's order.

    Args:
        rows: Of each split; others stay as they are.
        pool: The messages.
        params: How they are balanced.
    """
    labels, left_out = pool["label"].to_numpy(), [np.zeros(0, dtype=np.int64)]
    kept: Rows = {}
    for part in SPLITS:
        own = kept[part] = rows[part]
        if part in CUT[params.balance]:
            found = pd.Series(labels[own])
            most = most_of_a_class(int(found.value_counts().min()), params)
            stays = (found.groupby(found).cumcount() < most).to_numpy()
            kept[part] = own[stays]
            left_out.append(own[~stays])
    return rows | kept | {"unused": np.sort(np.concatenate(left_out))}
