"""Which classes a split has, where nobody deals them: every one is needed to train."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lora_compare.data.classes import SHOWN
from lora_compare.data.splits.groups import Rows
from lora_compare.errors import DataError
from lora_compare.project.corpus import count_classes
from lora_compare.project.paths import SPLITS

REMEDIES = {
    "split": ("data.split_column, data.source", ", or correct their splits"),
    "time": ("data.time_column", " of other dates, or set data.time_column: null"),
    "label": ("data.label_column", ""),
}
"""By the column that dealt the splits: its setting, and what helps where they lack a class."""


def require_classes(rows: Rows, pool: pd.DataFrame, classes: Sequence[str]) -> None:
    """Refuse splits whose train lacks a class, or whose test lacks one of two.

    No method can answer what it has never seen; of a class that validation or test lacks, figures
    are missing, which `describe_missing` says.

    Args:
        rows: Of each split.
        pool: The messages.
        classes: All of the data's.

    Raises:
        DataError: A class is missing; the first five are named and all counted.
    """
    counts = {part: count_classes(pool.iloc[own]) for part, own in rows.items()}
    needed = ("train", "test") if len(classes) == 2 else ("train",)
    lacking = {
        name: [part for part in needed if name not in counts[part]]
        for name in classes
        if any(name not in counts[part] for part in needed)
    }
    if not lacking:
        return
    lines = [
        f"{name}: " + ", ".join(f"{counts[part].get(name, 0):,} in {part}" for part in SPLITS)
        for name in list(lacking)[:SHOWN]
    ]
    more = len(lacking) - len(lines)
    setting, remedy = next(said for column, said in REMEDIES.items() if column in pool)
    where = dict.fromkeys(part for parts in lacking.values() for part in parts)
    raise DataError(
        f"{len(lacking):,} of {len(classes):,} classes are missing in {' or '.join(where)}.",
        where=f"params.yaml: {setting}",
        expected=f"every class in {' and in '.join(needed)}",
        actual="\n".join(lines + ([f"... and {more:,} more classes"] if more else [])),
        next=f"take the messages of these classes out, or label more of them{remedy}",
    )


def describe_missing(metrics: Mapping[str, Any]) -> str:
    """Return which classes validation or test lacks, as a warning; empty where none.

    Args:
        metrics: metrics/split.json.
    """
    said = []
    for part in SPLITS[1:]:
        counts = metrics["splits"][part]["classes"]
        if missing := [name for name, n in counts.items() if not n]:
            more = f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
            said.append(f"{part} has no message of {', '.join(missing[:SHOWN])}{more}")
    lost = "there are no figures of these classes, nor means over all, such as macro-F1"
    return f"{'; '.join(said)}: {lost}" if said else ""
