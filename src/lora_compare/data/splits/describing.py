"""How the splits came about, in numbers and in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lora_compare.data.splits.groups import number_groups
from lora_compare.params import SplitParams
from lora_compare.project.corpus import count_classes


def describe_split(metrics: Mapping[str, Any], params: SplitParams) -> str:
    """Return in words who dealt the messages, which splits were cut, and what stayed together.

    Args:
        metrics: metrics/split.json.
        params: How the messages were split.
    """
    dealt = "given" if "given" in metrics else "time" if "time" in metrics else "shares"
    kept = {
        "shares": "validation and test keep the data's shares",
        "given": "validation and test are not",
        "time": "validation and test are not",
    }
    every = {"shares": "every split keeps the data's shares of the classes"}
    cut = {
        "train": f"train is cut to its smallest class, {kept[dealt]}",
        "cap": f"train is cut to {params.cap or 1:g} times its smallest class, {kept[dealt]}",
        "undersample": "every split is cut to its smallest class",
        "none": every.get(dealt, "no split is cut"),
    }
    said = [*_dealt(metrics), cut[params.balance], *_labelled(metrics), *_together(metrics)]
    return "; ".join(said)


def _labelled(metrics: Mapping[str, Any]) -> Iterator[str]:
    if found := metrics.get("labels"):
        yield (
            f"messages have {found['per_message']:.2f} labels on average, {found['most']} at most, "
            f"and {found['none']:,} have none"
        )


def _dealt(metrics: Mapping[str, Any]) -> Iterator[str]:
    if found := metrics.get("folds"):
        yield (
            f"{len(found)} folds: every message is tested once; train and validation of a fold are "
            "of the others"
        )
    if found := metrics.get("given"):
        taken = found["validation_from_train"]
        yield (
            "train and test are the data's own, validation is taken from train"
            if taken
            else ("the splits are the data's own")
        )
        shared = {
            "of train in test": found["train_rows_in_test"],
            "of validation in test": found["validation_rows_in_test"],
            "of train in validation": found["train_rows_in_validation"],
        }
        words = ", ".join(f"{n:,} {what}" for what, n in shared.items() if n)
        removed = ", which were removed" if metrics["duplicates_removed"] else ""
        yield f"texts in two of them: {words}{removed}" if words else "no text is in two of them"
    if found := metrics.get("time"):
        spans = (
            f"{part} {' to '.join(date[:16].replace('T', ' ') for date in ends)}"
            for part, ends in found["spans"].items()
        )
        yield f"the newest messages are test: {', '.join(spans)} (UTC)"
        if left_out := found["left_out"]:
            yield (
                f"{left_out:,} messages are left out, since a later split has newer ones of their "
                "group"
            )


def _together(metrics: Mapping[str, Any]) -> Iterator[str]:
    if found := metrics.get("groups"):
        alone = f", {found['alone']:,} in none" if found["alone"] else ""
        yield (
            f"{found['messages']:,} messages are in {found['groups']:,} groups of the data{alone}, "
            f"no group in two splits; the largest has {found['largest']:,}"
        )
    # Where the data has groups, those of near-duplicates hold them whole.
    found = metrics.get("near_duplicates")
    if found and found["groups"]:
        kind = "near-duplicates or of the data" if "groups" in metrics else "near-duplicates"
        where = "" if "given" in metrics else ", none in two splits"
        yield (
            f"{found['messages']:,} messages are in {found['groups']:,} groups of {kind}"
            f"{where}; the largest group has {found['largest']:,}"
        )


def describe_own_groups(pool: pd.DataFrame, test: pd.DataFrame) -> dict[str, int]:
    """Return how many groups the data names, and what its messages come to.

    `alone` counts the messages without one, `test` the groups of the test split, alone ones too.

    Args:
        pool: All messages, with the column `group`.
        test: Those of the test split.
    """
    sizes = pool["group"][pool["group"] != ""].value_counts()
    return {
        "groups": len(sizes),
        "messages": int(sizes.sum()),
        "largest": int(sizes.max()) if len(sizes) else 0,
        "alone": len(pool) - int(sizes.sum()),
        "test": len(np.unique(number_groups(test["group"]))),
    }


def describe_groups(groups: "pd.Series[int]") -> dict[str, int]:
    """Return how many groups have several messages, how many messages, and the largest's size.

    Args:
        groups: Number of each message's group.
    """
    sizes = groups.value_counts()
    repeated = sizes[sizes > 1]
    return {
        "groups": len(repeated),
        "messages": int(repeated.sum()),
        "largest": int(sizes.max()),
    }


def describe_sizes(
    folds: Sequence[Mapping[str, pd.DataFrame]], classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the messages of each split and class: of test those of all folds, else the first's.

    Args:
        folds: The messages of each split, by fold.
        classes: Their names in order.
    """
    parts = {**folds[0], "test": pd.concat([parts["test"] for parts in folds])}
    counts = {name: count_classes(part) for name, part in parts.items()}
    return {
        name: {"n": len(part), "classes": {c: counts[name].get(c, 0) for c in classes}}
        for name, part in parts.items()
    }
