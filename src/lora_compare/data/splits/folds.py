"""Every message into test once: folds, each with a train and a validation of its own."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pandas as pd

from lora_compare.data.classes import SHOWN, share_out
from lora_compare.data.splits.dealing import require_halves
from lora_compare.data.splits.groups import (
    Groups,
    Rows,
    bond_of,
    class_indices,
    take_validation,
)
from lora_compare.errors import DataError
from lora_compare.params import SplitParams


def split_in_folds(pool: pd.DataFrame, groups: Groups, params: SplitParams) -> list[Rows]:
    """Return the rows of each split of each fold, no group in two splits of one.

    The test splits of all folds are all messages, each once; what a fold does not test is its train
    and its validation. All keep the order of one permutation.

    Args:
        pool: The messages.
        groups: Number of each message's group, shape (len(pool),), whatever makes it one.
        params: Number of folds, share of the validation of all messages, and seed.

    Raises:
        DataError: A class has fewer groups than there are folds, or groups are so large that a
            split has less than half of its share of a class.

    Checked by tests/unit/data/test_folds.py.
    """
    random = np.random.RandomState(params.seed)
    order = random.permutation(len(pool))
    tested = _test_folds(pool.iloc[order], groups[order], params)
    share = Fraction(str(params.validation)) / (1 - Fraction(1, params.folds))
    folds = []
    for fold in range(params.folds):
        rest = order[tested != fold]
        learnt = take_validation(rest, share, pool, groups, params, random)
        folds.append(learnt | {"test": order[tested == fold]})
    return folds


def _test_folds(pool: pd.DataFrame, groups: Groups, params: SplitParams) -> npt.NDArray[np.int64]:
    """Return the fold that tests each message, from 0, shape (len(pool),)."""
    # Here, because it takes a second to import, and few splits have folds.
    from sklearn.model_selection import StratifiedGroupKFold

    labels, classes = class_indices(pool)
    _require_groups(pool, groups, params)
    dealer = StratifiedGroupKFold(params.folds, shuffle=True, random_state=params.seed)
    tested = np.zeros(len(pool), dtype=np.int64)
    for fold, (_, rows) in enumerate(dealer.split(labels, labels, groups)):
        tested[rows] = fold
    names = [f"the test of fold {fold + 1}" for fold in range(params.folds)]
    shares = share_out(classes, dict.fromkeys(names, Fraction(1, params.folds)))
    # A class of hardly more messages than folds may be planned for none in one; it needs one.
    planned = {fold: {c: max(n, 1) for c, n in own.items()} for fold, own in shares.items()}
    require_halves(labels, tested, groups, planned, bond_of(pool, params))
    return tested


def _require_groups(pool: pd.DataFrame, groups: Groups, params: SplitParams) -> None:
    """Refuse classes with fewer groups than there are folds: a test split would lack them."""
    found = pd.Series(groups, index=pool.index).groupby(pool["label"]).agg(["nunique", "size"])
    few = found[found["nunique"] < params.folds].sort_values("nunique", kind="stable")
    if few.empty:
        return
    lines = [
        f"{name}: {n:,} group{'s' * (n > 1)} of {size:,} message{'s' * (size > 1)}"
        for name, n, size in few.head(SHOWN).itertuples(name=None)
    ]
    more = len(few) - len(lines)
    bond, most = bond_of(pool, params), int(few["nunique"].min())
    fewer = f"set split.folds: {most}, split.train: null and as many training.seeds, or "
    raise DataError(
        f"{len(few):,} of {len(found):,} classes have fewer groups than there are folds.",
        where=f"params.yaml: split.folds; {bond.settings}",
        expected=f"every class in {params.folds} groups or more; {bond.meaning}",
        actual="\n".join(lines + ([f"... and {more:,} more classes"] if more else [])),
        next=fewer * (most > 2) + bond.remedy,
    )
