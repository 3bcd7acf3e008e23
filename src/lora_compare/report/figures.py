"""The report's charts, drawn from the evidence, and what is said of them in words."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lora_compare.comparison.evidence import Evidence
from lora_compare.comparison.outcomes import Outcome
from lora_compare.comparison.verdict import TESTED_BASELINE
from lora_compare.evaluation.calibration import as_decisions, calibration_bins
from lora_compare.evaluation.metrics import precision_recall_curve
from lora_compare.evaluation.scores import prior_weights
from lora_compare.params import Params
from lora_compare.report import charts

MOST_TOLD = 20
"""Confusions that the description of a chart tells."""


def draw(params: Params, evidence: Evidence, comparison: Mapping[str, Any]) -> dict[str, str]:
    """Return every chart as SVG text under the name of its file."""
    histories = {method.name: method.mean_history for method in evidence.methods}
    tfidf = next((b for b in comparison["baselines"] if b["method"] == TESTED_BASELINE), None)
    drawings = {
        "loss": charts.curves(histories, "loss", "Loss"),
        "accuracy": charts.curves(histories, "accuracy", "Accuracy"),
        "parameters": charts.accuracy_by_parameters(comparison["methods"], tfidf),
    }
    if len(evidence.classes) == 2 and comparison["positive"] in evidence.labels:
        drawings["precision"] = _precision(params, evidence, str(comparison["positive"]))
    for index, method in enumerate(evidence.methods):
        drawings[f"calibration_{method.name}"] = charts.calibration(
            method.name, _calibration(method), index
        )
        if searched(method):
            drawings[f"tuning_{method.name}"] = _tuning(params, method, index)
    return drawings if evidence.several else drawings | _confusions(evidence)


def _confusions(evidence: Evidence) -> dict[str, str]:
    """Return each method's confusion matrix, of the same classes."""
    matrices = [method.metrics["test"]["confusion_matrix"] for method in evidence.methods]
    kept = charts.most_confused(matrices)
    return {
        f"confusion_{method.name}": charts.confusion(
            method.name, matrix, method.classes, index, kept, shares=len(method.seeds) > 1
        )
        for index, (method, matrix) in enumerate(zip(evidence.methods, matrices, strict=True))
    }


def _precision(params: Params, evidence: Evidence, positive: str) -> str:
    """Return precision by recall of every method and of TF-IDF, for data of two classes."""
    place = evidence.classes.index(positive)
    labels = evidence.methods[0].labels
    weights = prior_weights(labels, evidence.classes, params.data.prior)

    def operating(outcome: Outcome) -> charts.Operating:
        curves = [
            precision_recall_curve(labels == place, own[:, place], weights)
            for own in outcome.chances
        ]
        test = outcome.metrics["test"]
        return charts.Operating(curves, test["recall"], test["precision"])

    tfidf = next((b for b in evidence.baselines if b.name == TESTED_BASELINE), None)
    return charts.precision_recall(
        {method.name: operating(method) for method in evidence.methods},
        None if tfidf is None else operating(tfidf),
    )


def _tuning(params: Params, method: Outcome, index: int) -> str:
    assert method.tuning is not None, "asked of what was searched"
    assert method.tuning.trials is not None, "asked of what was searched"
    search = params.method(method.name).search or {}
    by_logarithm = [key for key, space in search.items() if space.log]
    settings = method.tuning.choice["settings"]
    return charts.tuning(method.name, method.tuning.trials, settings, by_logarithm, index)


def searched(outcome: Outcome) -> bool:
    """Return whether settings of a method were searched."""
    return outcome.tuning is not None and outcome.tuning.trials is not None


def tuned(outcome: Outcome) -> dict[str, Any]:
    """Return what was chosen of how many trials, and what lies at the end of its range."""
    assert outcome.tuning is not None, "asked of what was searched"
    choice = outcome.tuning.choice
    chosen = [f"{key} {charts.written(value)}" for key, value in choice["settings"].items()]
    return {
        "name": outcome.name,
        "chosen": ", ".join(chosen),
        "trials": choice["trials"],
        "at_edge": choice["at_edge"],
    }


def _calibration(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the bins of the test answers of all seeds together."""
    chances = outcome.chances
    labels = outcome.in_targets(np.tile(outcome.labels, len(chances)))
    flat = chances.reshape(-1, len(outcome.classes))
    return calibration_bins(*as_decisions(labels, flat))


def learned(outcome: Outcome) -> dict[str, Any]:
    """Return where a method's curves end and where its validation loss is lowest, on average."""
    assert outcome.history is not None, "a method is trained"
    rows = outcome.history.groupby("seed")
    last, best = rows.last(), outcome.history.loc[rows["validation_loss"].idxmin()]
    figures = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy")
    return {
        "method": outcome.name,
        "steps": int(last["step"].max()),
        **{name: float(last[name].mean()) for name in figures},
        "best_loss": float(best["validation_loss"].mean()),
        "best_epoch": float(best["epoch"].mean()),
    }


def label_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Return for each label of several a message has its figures on the test split by method."""
    per_class = {m.name: m.metrics["test"]["per_class"] for m in evidence.methods}
    return [
        {"label": label, "methods": {name: own[label] for name, own in per_class.items()}}
        for label in evidence.classes
    ]


def describe_matrix(outcome: Outcome) -> str:
    """Return the most frequent confusions of a method in words."""
    matrix, classes = outcome.metrics["test"]["confusion_matrix"], outcome.classes
    confusions = [
        (count, true, taken)
        for true, row in zip(classes, matrix, strict=True)
        for taken, count in zip(classes, row, strict=True)
        if count and true != taken
    ]
    most = sorted(confusions, key=lambda confusion: -confusion[0])[:MOST_TOLD]
    shown = (
        ", ".join(f"{count} of class {true} as {taken}" for count, true, taken in most) or "none"
    )
    more = f" and {len(confusions) - MOST_TOLD} more" if len(confusions) > MOST_TOLD else ""
    together = f", {len(outcome.seeds)} seeds together" if len(outcome.seeds) > 1 else ""
    return f"Confusion matrix of {outcome.name}{together}. Wrongly classified: {shown}{more}."
