"""What the test split shares with the training split, and what it is worth without that."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.comparison.evidence import Evidence
from lora_compare.data.twins import Twin, closest_twins
from lora_compare.evaluation.statistics import wilson_interval, worth_of_groups
from lora_compare.project.corpus import FOLD

LIKENESS = {
    "exact": "word for word",
    "normalized": "but for numbers and case",
    "near": "nearly",
}
"""How a test message stands in the training split, by the kind of its twin."""


def find_leaks(evidence: Evidence) -> list[Twin]:
    """Return each test message that has a twin in the training split, with its closest one.

    Where there are folds, that is the training split of the fold that tests it.
    """
    texts, known = evidence.texts, evidence.training["Text"]
    twins = []
    for fold in dict.fromkeys(evidence.folds) or [None]:
        tested = _rows(texts, evidence.folds, fold)
        learnt = _rows(known, evidence.training.get(FOLD, ()), fold)
        found = closest_twins([texts[row] for row in tested], [known[row] for row in learnt])
        twins += [replace(t, row=tested[t.row], other=learnt[t.other]) for t in found]
    return twins


def _rows(texts: Sequence[str], folds: Sequence[int], fold: int | None) -> Sequence[int]:
    """Return the rows of a fold's texts; all where there are no folds."""
    every = range(len(texts))
    return every if fold is None else [row for row in every if folds[row] == fold]


def leaked(evidence: Evidence, leaks: Sequence[Twin]) -> npt.NDArray[np.bool_]:
    """Return whether each test message has a twin in the training split, shape (n,)."""
    mask = np.zeros(len(evidence.texts), dtype=bool)
    mask[[twin.row for twin in leaks]] = True
    return mask


def accuracies(evidence: Evidence, leaks: Sequence[Twin]) -> list[dict[str, Any]]:
    """Return every outcome's accuracy on all test messages, on those with a twin and without.

    Each record has `method`, and under `all`, `leaked` and `clean` the mean accuracy of its seeds,
    the Wilson interval of so many right answers to so many messages (where the data has groups, of
    as many as these are worth), and the number of messages: (accuracy, (low, high), n); None of no
    messages.
    """
    mask, groups = leaked(evidence, leaks), evidence.groups
    parts = {"all": np.ones_like(mask), "leaked": mask, "clean": ~mask}
    return [
        {
            "method": outcome.name,
            **{name: _accuracy(outcome.right, part, groups) for name, part in parts.items()},
        }
        for outcome in evidence.outcomes
    ]


def pairs(evidence: Evidence, leaks: Sequence[Twin]) -> list[dict[str, Any]]:
    """Return the twins as records: both texts and classes, and how alike.

    The closest come first: word for word, then by `normalize`, then by falling cosine.
    """
    order = list(LIKENESS)
    closest = sorted(leaks, key=lambda twin: (order.index(twin.kind), -twin.cosine, twin.row))
    labels = evidence.labels
    known = evidence.training["Text"], evidence.training["Label"]
    return [
        {
            "text": evidence.texts[twin.row],
            "label": labels[twin.row],
            "twin": known[0][twin.other],
            "twin_label": evidence.named(known[1][twin.other]),
            "kind": twin.kind,
            "cosine": twin.cosine,
        }
        for twin in closest
    ]


def _accuracy(
    every: npt.NDArray[np.bool_], part: npt.NDArray[np.bool_], groups: Sequence[str]
) -> tuple[float, tuple[float, float], int] | None:
    right = every[:, part]
    n = right.shape[1]
    if not n:
        return None
    accuracy = float(right.mean())
    if not groups:
        return accuracy, wilson_interval(round(accuracy * n), n), n
    own = [group for group, is_in in zip(groups, part, strict=True) if is_in]
    worth = float(np.mean([worth_of_groups(answers, own) for answers in right]))
    return accuracy, wilson_interval(accuracy * worth, worth), n
