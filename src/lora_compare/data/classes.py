"""The classes of a corpus: how many messages each has, whether that is enough, and what to do."""

import re
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from lora_compare.errors import DataError
from lora_compare.params import SplitParams
from lora_compare.project.corpus import Messages, class_order, every_label
from lora_compare.project.paths import SPLITS

if TYPE_CHECKING:  # to look at a file needs no pandas, which takes 0.4 s
    import pandas as pd

SHOWN = 5
"""Classes that a message names; the others are counted."""

FEW = 200
"""Messages of a class with fewer of which to train is worth a warning."""

CUT: dict[str, tuple[str, ...]] = {
    "train": SPLITS[:1],
    "cap": SPLITS[:1],
    "undersample": SPLITS,
    "none": (),
}
"""Splits that each `split.balance` cuts by their smallest class."""

Sizes = dict[str, dict[str, int]]
"""Messages of each class by split."""

BETWEEN_LABELS = ",;|"
"""What stands between the labels of a text that has several."""


def show_counts(counts: Mapping[str, int], shown: int = SHOWN) -> str:
    """Return messages and name of the first classes, in the order given, and how many follow."""
    numbers = any(name[0].isdigit() for name in counts)  # "1,500 0" would read as one number
    words = [
        f"{n:,} times {name!r}" if numbers else f"{n:,} {name}"
        for name, n in list(counts.items())[:shown]
    ]
    more = len(counts) - len(words)
    return ", ".join(words + ([f"... and {more:,} more classes"] if more > 0 else []))


def count_available(messages: "Messages | pd.DataFrame", params: SplitParams) -> dict[str, int]:
    """Return the messages of each class that a split has to share out: repeats are dropped first.

    Checked by tests/unit/data/test_classes.py to be what `splits.split` finds.
    """
    counts = dict.fromkeys(class_order(set(every_label(messages["label"]))), 0)
    rows = zip(messages["text"], messages["label"], strict=True)
    kept: dict[Any, Any] = {}
    for place, (text, label) in enumerate(rows):
        kept.setdefault(text if params.deduplicate == "exact" else place, label)
    return counts | Counter(every_label(kept.values()))


def apportion(total: int, weights: list[Fraction]) -> list[int]:
    """Return whole numbers in proportion to `weights` that add up to `total`.

    Each share is rounded down; what is left goes, one each, to the largest remainders, the
    earlier of equal ones first (the method of Hamilton). Exact arithmetic, no rounding error.

    Args:
        total: What to share out, a count.
        weights: Unitless, not negative; all zero only where the total is.
    """
    whole = sum(weights) or Fraction(1)
    quotas = [total * weight / whole for weight in weights]
    shares = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(weights)), key=lambda i: shares[i] - quotas[i])
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares


def stratified_sizes(counts: Mapping[str, int], params: SplitParams) -> Sizes:
    """Return messages per split and class as `params` plans them, by groups or one by one.

    Args:
        counts: Messages of each class, one at least.
        params: How they are balanced and shared out.
    """
    sizes = dealt_sizes(counts, params)
    for part in () if _is_cut_first(params) else CUT[params.balance]:
        most = most_of_a_class(min(sizes[part].values()), params)
        sizes[part] = {name: min(n, most) for name, n in sizes[part].items()}
    return sizes


def most_of_a_class(smallest: int, params: SplitParams) -> int:
    """Return the messages that a class may have in a split that is cut, by its smallest class."""
    return int(smallest * Fraction(str(params.cap or 1)))


def dealt_sizes(counts: Mapping[str, int], params: SplitParams) -> Sizes:
    """Return messages per split and class before a split is cut; arguments as above."""
    if _is_cut_first(params):
        counts = dict.fromkeys(counts, min(counts.values()))
    return proportional_sizes(counts, params)


def _is_cut_first(params: SplitParams) -> bool:
    """Return whether classes are cut before messages are dealt: of groups it cannot be said."""
    return params.balance == "undersample" and params.twins == "apart"


def proportional_sizes(counts: Mapping[str, int], params: SplitParams) -> Sizes:
    """Return every message's share by split and class, before any balancing."""
    return share_out(counts, split_shares(params))


def split_shares(params: SplitParams) -> dict[str, Fraction]:
    """Return the share of each split, 1 together, which is exact; the splits are not given."""
    validation = Fraction(str(params.validation))
    test = Fraction(1, params.folds)
    if params.folds == 1:
        test = 1 - Fraction(str(params.train)) - validation
    return dict(zip(SPLITS, (1 - validation - test, validation, test), strict=True))


def share_out(counts: Mapping[str, int], shares: Mapping[str, Fraction]) -> Sizes:
    """Return messages by split and class: the splits' totals are exact, classes within one.

    Args:
        counts: Messages of each class.
        shares: Of each split, 1 together.
    """
    totals = apportion(sum(counts.values()), list(shares.values()))
    left, sizes = dict(counts), {}
    for part, total in zip(shares, totals, strict=True):
        own = apportion(total, [Fraction(n) for n in left.values()])
        sizes[part] = dict(zip(left, own, strict=True))
        left = {name: n - sizes[part][name] for name, n in left.items()}
    return sizes


def require_in_every_split(
    sizes: Mapping[str, Mapping[str, int]], available: Mapping[str, int], params: SplitParams
) -> None:
    """Refuse splits in which a class is missing.

    Args:
        sizes: Messages of each split and class.
        available: Messages of each class that there were to share out.
        params: How they were shared out, for the setting that helps.

    Raises:
        DataError: A class is not in every split; the rarest are named and all are counted.
    """
    missing = _missing(sizes, available)
    if not missing:
        return
    rarest = min(available.values())
    lines = []
    for name, parts in list(missing.items())[:SHOWN]:
        is_cut = _is_cut_first(params) and available[name] > rarest
        cut = f", cut to {rarest} by split.balance: undersample" if is_cut else ""
        lines.append(f"{name}: {available[name]:,} messages{cut}, none in {', '.join(parts)}")
    more = len(missing) - len(lines)
    raise DataError(
        "A class is too small to be in every split.",
        where="params.yaml: split; data.label_column",
        expected="every class in train, validation and test",
        actual="\n".join(lines + ([f"... and {more:,} more classes"] if more else [])),
        next="\n".join(filter(None, [likely_cause(available), _remedy(available, params)])),
    )


def _missing(
    sizes: Mapping[str, Mapping[str, int]], available: Mapping[str, int]
) -> dict[str, list[str]]:
    """Return the splits in which a class is missing, the rarest class first."""
    missing = {}
    for name in sorted(available, key=lambda name: (available[name], name)):
        if parts := [part for part in SPLITS if not sizes[part].get(name)]:
            missing[name] = parts
    return missing


def _remedy(available: Mapping[str, int], params: SplitParams) -> str:
    """Return the first change of settings after which every class is in every split."""
    train = None if params.folds > 1 else 0.6
    changes: list[dict[str, Any]] = [{"balance": "train"}, {"train": train, "validation": 0.2}]
    for change in (*changes, changes[0] | changes[1]):
        changed = params.model_copy(update={"mode": "stratified", **change})
        if min(available.values()) and not _missing(
            stratified_sizes(available, changed), available
        ):
            mode = {"mode": "stratified"} if params.mode != "stratified" else {}
            changed_to = {**mode, **change}
            words = [f"split.{key}: {'null' if v is None else v}" for key, v in changed_to.items()]
            return f"set {', '.join(words)} in params.yaml, or label more of the rarest"
    return (
        "label more messages of the rarest, or take them out; no split.balance, split.train or "
        "split.validation helps with so few"
    )


def likely_cause(counts: Mapping[str, int]) -> str:
    """Return what seems to be wrong with the column of the labels; empty if nothing does.

    Args:
        counts: Messages of each class.
    """
    total = sum(counts.values())
    if several := _several_labels(counts):
        return (
            f"labels such as {several!r} look like several of one text, and each combination is a "
            "class of its own: data.labels_separator says what stands between labels (no brackets "
            "around them), and a list in .jsonl needs none"
        )
    for label in counts:
        whole = re.sub(r"\.0+$", "", label)
        if whole != label and whole in counts:
            return (
                f"the labels {whole!r} and {label!r} look like one number in two spellings, and "
                "are two classes: write it in one way"
            )
    if len(counts) > SHOWN and 3 * len(counts) > total:
        return (
            f"{len(counts):,} classes for {total:,} messages look like an identifier or a text: "
            "name the column of the classes in data.label_column"
        )
    return ""


def _several_labels(counts: Mapping[str, int]) -> str:
    """Return a label that seems to be several, whose parts other labels have too; empty if none."""
    listed = [label for label in counts if label[0] in "[{(" and label[-1] in ")}]"]
    if 2 * len(listed) > len(counts):
        return next((label for label in listed if "," in label), listed[0])
    for separator in BETWEEN_LABELS:
        parts = {label: [part.strip() for part in label.split(separator)] for label in counts}
        uses = Counter(part for found in parts.values() for part in set(found))
        joined = [label for label, found in parts.items() if len(found) > 1 and all(found)]
        shared = [label for label in joined if min(uses[part] for part in parts[label]) > 1]
        if len(shared) > 1:
            return shared[0]
    return ""


def balanced_pool(sizes: Sizes, available: dict[str, int], params: SplitParams) -> dict[str, int]:
    """Return the messages of each class among which `split.balance` chooses.

    Args:
        sizes: Messages of each split and class, `unused` included where there is any.
        available: Messages of each class that there were to share out.
        params: How they are balanced.
    """
    if params.balance == "undersample":
        return available
    left_out = sizes.get("unused", {})
    return {name: n + left_out.get(name, 0) for name, n in sizes["train"].items()}


def describe_balance(pool: Mapping[str, int], params: SplitParams) -> str:
    """Return what undersampling leaves out, where that is most messages; empty elsewhere.

    Args:
        pool: Messages of each class among which it chooses, from `balanced_pool`.
        params: How they are balanced.
    """
    rarest = min(pool, key=lambda name: (pool[name], name))
    most = most_of_a_class(pool[rarest], params)
    total, kept = sum(pool.values()), sum(min(n, most) for n in pool.values())
    if params.balance == "none" or 2 * kept >= total:
        return ""
    warning = "warning: " if pool[rarest] < FEW else ""
    train, there = ("", "") if params.balance == "undersample" else (" train", " there")
    return (
        f"{warning}split.balance: {params.balance} leaves out {total - kept:,} of {total:,}{train} "
        f"messages, since {rarest!r}, the rarest class, has {pool[rarest]:,}{there}; none keeps "
        "them all"
    )
