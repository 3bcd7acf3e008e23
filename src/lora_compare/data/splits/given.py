"""Splits that the data gives: nothing is moved, and a validation split is taken from train."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pandas as pd

from lora_compare.data.classes import SHOWN
from lora_compare.data.splits.groups import Groups, Rows, take_validation
from lora_compare.errors import DataError
from lora_compare.params import SplitParams
from lora_compare.project.paths import SPLITS

PRECEDENCE = {"test": 0, "validation": 1, "train": 2}
"""Which split keeps a text that stands in several: what tests is worth most."""


def split_as_given(pool: pd.DataFrame, groups: Groups, params: SplitParams) -> Rows:
    """Return the rows of each split as the column `split` has them, in the order of a permutation.

    Where no message is of validation, `split.validation` of train becomes it: each class in its
    share, and no group in both.

    Args:
        pool: The messages, with the column `split`.
        groups: Number of each message's group, shape (len(pool),).
        params: Share of the validation, and seed.

    Raises:
        DataError: Train or test has no message, a group of the data stands in two splits, the
            validation is given and a share of it set, or the groups of train are too large.
    """
    _require_splits(pool, params)
    _require_whole_groups(pool)
    random = np.random.RandomState(params.seed)
    order = random.permutation(len(pool))
    given = pool["split"].to_numpy()[order]
    rows = {part: order[given == part] for part in SPLITS}
    if params.validation is not None:
        share = Fraction(str(params.validation))
        rows |= take_validation(rows["train"], share, pool, groups, params, random)
    return rows


def _require_splits(pool: pd.DataFrame, params: SplitParams) -> None:
    counts = {part: int((pool["split"] == part).sum()) for part in SPLITS}
    shown = ", ".join(f"{n:,} {part}" for part, n in counts.items())
    if missing := [part for part in ("train", "test") if not counts[part]]:
        raise DataError(
            f"The data gives no message of {' and none of '.join(missing)}.",
            where="params.yaml: data.split_column, data.source",
            expected="messages of train and test, and perhaps of validation",
            actual=shown,
            next="correct the column, or deal the messages here: data.split_column: null",
        )
    if counts["validation"] and params.validation is not None:
        raise DataError(
            "The validation split is given twice.",
            where="params.yaml: split.validation; data.split_column",
            expected="no share of train where the data has a validation split",
            actual=f"split.validation: {params.validation:g}, and in the data {shown}",
            next="set split.validation: null in params.yaml",
        )
    if not counts["validation"] and params.validation is None:
        raise DataError(
            "There is no validation split.",
            where="params.yaml: split.validation; data.split_column",
            expected="messages of validation in the data, or a share of train to take for it",
            actual=shown,
            next="set split.validation, such as 0.1, in params.yaml",
        )


def _require_whole_groups(pool: pd.DataFrame) -> None:
    """Refuse groups that the data has put into two splits: one of both must be wrong."""
    if "group" not in pool:
        return
    named = pool[pool["group"] != ""]
    splits = named.groupby("group", sort=False)["split"].nunique()
    torn = splits.index[splits > 1]
    if not len(torn):
        return
    n, messages = len(splits), int(named["group"].isin(torn).sum())
    shown = {name: Counter(named["split"][named["group"] == name]) for name in torn[:SHOWN]}
    lines = [
        f"{name!r}: " + ", ".join(f"{counts[part]:,} {part}" for part in SPLITS if counts[part])
        for name, counts in shown.items()
    ]
    more = len(torn) - len(lines)
    raise DataError(
        f"{len(torn):,} of {n:,} groups, of {messages:,} messages, are in several splits.",
        where="params.yaml: data.group_column; data.split_column, data.source",
        expected="every group in one split; nothing is moved between splits that are given",
        actual="\n".join(lines + ([f"... and {more:,} more groups"] if more else [])),
        next="correct the splits in the data, let them be dealt here (data.split_column: null), "
        "or set data.group_column: null in params.yaml",
    )


def count_shared(corpus: pd.DataFrame) -> dict[str, int]:
    """Return how many messages stand, word for word, in a split before which they should be new.

    Args:
        corpus: All messages, repeated ones included, with the column `split`.
    """
    texts = {part: corpus["text"][corpus["split"] == part] for part in SPLITS}
    return {
        f"{part}_rows_in_{other}": int(texts[part].isin({*texts[other]}).sum())
        for part, other in (("train", "test"), ("validation", "test"), ("train", "validation"))
    }
