"""The newest messages are test, those before them validation: what a model would meet in use."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lora_compare.data.classes import apportion, split_shares
from lora_compare.data.splits.groups import Groups, Rows
from lora_compare.errors import DataError
from lora_compare.params import SplitParams
from lora_compare.project.paths import SPLITS

LEFT_OUT = "left_out"
"""Rows of no split, not even unused: their group has newer messages in a later split."""

LEAST = (0.5, 0.1, 0.5)
"""Of its share, what a split must have: validation is short, and groups go on into test."""

Numbers = npt.NDArray[np.integer[Any]]


def split_by_time(pool: pd.DataFrame, groups: Groups, params: SplitParams) -> Rows:
    """Return the rows of each split by their dates, in the order of a permutation.

    A date is never in two splits: of the dates next to a share's end the nearer is taken, of
    equally near ones the earlier, and validation has one date at least. A group that spans a
    border has its newest messages there, and what it has in an earlier split is left out, under
    `LEFT_OUT`: what is tested on is newer than all that is learned from, and of other groups.

    Args:
        pool: The messages, with the column `time`.
        groups: Number of each message's group, shape (len(pool),).
        params: Shares and seed.

    Raises:
        DataError: There are too few dates, too many messages of one, or groups that last so long,
            that a split has less of its share than `LEAST`.
    """
    order = np.random.RandomState(params.seed).permutation(len(pool))
    known, place, counts = np.unique(
        pool["time"].to_numpy(), return_inverse=True, return_counts=True
    )
    planned = apportion(len(pool), list(split_shares(params).values()))
    first, second = (_last(np.cumsum(counts), end) for end in np.cumsum(planned)[:-1])
    part = (place > min(first, second - 1)).astype(np.int64) + (place > second)
    newest = np.zeros(groups.max() + 1, dtype=np.int64)
    np.maximum.at(newest, groups, part)
    stays = part == newest[groups]
    sizes = np.bincount(part[stays], minlength=len(SPLITS))
    if (sizes < np.array(LEAST) * planned).any():
        frequent = int(np.argmax(counts))
        said = f"{counts[frequent]:,} of {len(pool):,} messages have {known[frequent]}"
        dates = "all messages have one date" if len(known) == 1 else f"{len(known):,} dates; {said}"
        raise _unparted(dates, sizes, planned, int((~stays).sum()))
    chosen = np.where(stays, part, len(SPLITS))[order]
    return {name: order[chosen == number] for number, name in enumerate((*SPLITS, LEFT_OUT))}


def _last(ends: Numbers, wanted: int) -> int:
    """Return the place of the last date before a border: that with nearly `wanted` messages."""
    after = int(np.searchsorted(ends, wanted))
    before = int(ends[after - 1]) if after else 0
    return after - 1 if wanted - before <= ends[after] - wanted else after


def _unparted(dates: str, sizes: Numbers, planned: list[int], left_out: int) -> DataError:
    got = ", ".join(
        f"{n:,} of {share:,} in {part}"
        for n, share, part in zip(sizes, planned, SPLITS, strict=True)
    )
    spanning = f"; {left_out:,} messages are left out, whose group has newer ones in a later split"
    return DataError(
        "The dates do not part the messages into splits.",
        where="params.yaml: data.time_column",
        expected="half of its share at least in train and test, a tenth in validation, and no date "
        "and no group in two of them",
        actual=f"{dates}; {got}{spanning if left_out else ''}",
        next="name a column with more dates, such as times of day"
        + (", or with groups that last shorter, or set split.twins: apart" if left_out else "")
        + "; or set data.time_column: null, or other shares, in params.yaml",
    )


def describe_times(pool: pd.DataFrame, rows: Rows) -> dict[str, Any]:
    """Return the first and the last date of each split in UTC, and how many rows were left out.

    Args:
        pool: The messages.
        rows: Of each split, from `split_by_time`, cut or not.
    """
    times = pool["time"].to_numpy()
    spans = {part: [min(times[rows[part]]), max(times[rows[part]])] for part in SPLITS}
    return {"spans": spans, "left_out": len(rows[LEFT_OUT])}
