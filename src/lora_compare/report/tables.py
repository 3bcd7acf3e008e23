"""Small tables of a comparison that DVC shows: figures, learning curves, answers."""

from typing import Any

import pandas as pd

from lora_compare.comparison.evidence import BASELINES, Evidence
from lora_compare.project.corpus import shown_labels
from lora_compare.project.paths import SPLITS, TFIDF

MEAN = "mean"
"""What stands in the column `seed` of a curve that is the mean over all seeds."""


def figures(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Return the few figures that DVC's tables show, every method beside the others.

    `accuracy` is of the test messages, TF-IDF's last; `validation` of those by which one may
    choose among experiments; `parameters` is the number of trained ones. None is a time: what
    the tables show as changed has changed.
    """
    methods = evidence.methods
    tfidf = evidence.baselines[BASELINES.index(TFIDF)]
    return {
        "accuracy": {o.name: o.metrics["test"]["accuracy"] for o in (*methods, tfidf)},
        "validation": {o.name: o.metrics["validation"]["accuracy"] for o in methods},
        "parameters": {o.name: o.metrics["trainable_parameters"] for o in methods},
    }


def curves(evidence: Evidence) -> dict[str, list[Any]]:
    """Return all histories as one long table: method, seed, split, step, epoch, loss, accuracy.

    Each method's mean over its seeds comes first, under the seed `MEAN`, then every seed's own.
    """
    parts = []
    for outcome in evidence.methods:
        assert outcome.history is not None
        every = pd.concat([outcome.mean_history.assign(seed=MEAN), outcome.history])
        for split in SPLITS[:2]:
            columns = {f"{split}_loss": "loss", f"{split}_accuracy": "accuracy"}
            own = every[["seed", "step", "epoch", *columns]].rename(columns=columns)
            parts.append(own.assign(method=outcome.name, split=split))
    whole = pd.concat(parts)
    names = ("method", "seed", "split", "step", "epoch", "loss", "accuracy")
    return {name: whole[name].tolist() for name in names}


def answers(evidence: Evidence) -> dict[str, list[Any]]:
    """Return all answers to the test messages as a table: method, seed, label, predicted.

    Methods come first, each with one row per seed and message, then baselines, which have no seed.
    """
    table: dict[str, list[Any]] = {"method": [], "seed": [], "label": [], "predicted": []}
    for outcome in evidence.outcomes:
        for seed, frame in outcome.predictions.items():
            own = "" if outcome.name in BASELINES else seed
            by_fold = [outcome.seeds[fold - 1] for fold in evidence.folds] if own else []
            table["method"] += [outcome.name] * len(frame)
            table["seed"] += by_fold or [own] * len(frame)
            for column in ("label", "predicted"):
                shown = map(shown_labels, frame[column]) if evidence.several else frame[column]
                table[column] += [*shown]
    return table
