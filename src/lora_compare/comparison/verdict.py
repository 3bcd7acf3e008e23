"""Every method beside the reference: records, claims, ratios and a recommendation."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.comparison import formats, prices, sentences
from lora_compare.comparison.cautions import cautions
from lora_compare.comparison.claims import Judge
from lora_compare.comparison.evidence import Evidence
from lora_compare.comparison.outcomes import Outcome
from lora_compare.comparison.recommendation import recommend
from lora_compare.errors import DataError
from lora_compare.evaluation.labels.scores import LabelTask
from lora_compare.evaluation.scores import Task, cost_matrix, positive_class, prior_weights
from lora_compare.evaluation.statistics import CONFIDENCE
from lora_compare.params import MethodParams, Params, require_kind
from lora_compare.project.files import read_json
from lora_compare.project.paths import SPLITS, TFIDF, require

TESTED_BASELINE = TFIDF
"""The baseline that is worth a test; beating the untuned model is no finding."""

READ_KEYS = (
    "headline",
    "recommendation",
    "cautions",
    "methods",
    "baselines",
    "pairs",
    "reference",
)
"""What is shown of metrics/comparison.json; earlier versions of this project wrote less."""

SPLIT_FIGURES = (
    "n",
    "balanced_accuracy",
    "macro_f1",
    "f1",
    "precision",
    "recall",
    "auroc",
    "average_precision",
    "log_loss",
    "brier",
    "ece",
    "ece_expected",
)
OF_SOME = (
    "false_alarms_per_1000",
    "misses_per_1000",
    "expected_cost",
    "jaccard",
    "micro_f1",
    "hamming_loss",
)
"""What there is of two classes only, where mistakes have costs, and of several labels a message."""

COST_KEYS = ("a", "b", "baseline", "metric", "difference", "low", "high", "level", "seeds", "n")
"""What is shown of a pair's costs, where methods are compared by another metric: no claim, for the
margin is one of that metric."""

SIZE_FIGURES = ("trainable_parameters", "total_parameters", "trainable_percent", "artifact_bytes")
COST_FIGURES = (
    "train_seconds",
    "examples_per_second",
    "tokens_per_second",
    "step_cpu_seconds",
    "step_cpu_seconds_low",
    "step_cpu_seconds_high",
    *prices.LATENCIES,
    "training_state_bytes",
    "training_state_bytes_weights",
    "training_state_bytes_gradients",
    "training_state_bytes_optimizer",
    "training_state_bytes_activations",
    "peak_memory_bytes",
    "side_by_side",
    "device",
    "dtype",
    "threads",
)


def compare(
    evidence: Evidence, groups: npt.NDArray[np.integer[Any]], params: Params
) -> dict[str, Any]:
    """Return the content of metrics/comparison.json.

    `headline` is a list of the sentence that is shown everywhere, `verdict` the same in few words.
    `methods` and `baselines` hold one flat record each. `pairs` holds every other method minus the
    reference (each at level 1 - alpha / (methods - 1)), then TF-IDF minus the reference
    (`baseline: true`, at 1 - alpha: a family of its own, so that it changes no method's claim).
    `recommendation` is what to use, `cautions` what makes that weak. `reference` divides the LoRA
    method's prices by those of the full one (its `accuracy_difference` is LoRA minus full) and is
    None without both. `prior` is the share of each class that the figures of the test stand for, or
    of the messages with each label, where `several_labels` says that there are. Where mistakes have
    costs that are not the metric, `cost_pairs` has what each of `pairs` saves. Where messages were
    tested in folds, `folds` says in how many, and `trained_on` which share of the messages a model
    was trained on, in the mean.

    Args:
        evidence: What the methods and baselines did.
        groups: Number of each test message's near-duplicate group, shape (n,).
        params: The experiment.

    Raises:
        ParamsError: `classifier.positive` or `data.prior` names no class of the data, or a setting
            is not for this kind of labels.
        DataError: The metric is about a class of which there is no test message.
    """
    require_kind(params, evidence.several)
    task, settings = _task(evidence, params), params.comparison
    judge = Judge(settings, task, groups, np.array(evidence.folds) if evidence.folds else None)
    by_name = {outcome.name: outcome for outcome in evidence.outcomes}
    reference = reference_method(params)
    others = [name for name in evidence.names if name != reference]
    family = max(len(others), 1)
    pairs = [judge.compare(by_name[name], by_name[reference], family) for name in others]
    pairs.append(judge.compare(by_name[TESTED_BASELINE], by_name[reference], 1))
    records = [flat_record(outcome) for outcome in evidence.methods]
    full, lora = _find(records, "full", "all"), _find(records, "lora", "lora")
    for record in records:
        record["parameters_of_full"] = _ratio(record, full, "trainable_parameters")
    recommended = recommend(
        records,
        pairs,
        settings.cost,
        lambda one, other: judge.compare(by_name[one], by_name[other], family),
    )
    found: dict[str, Any] = {
        "test_messages": len(groups),
        "near_duplicate_groups": len(np.unique(groups)),
        "seeds": max(pair["seeds"] for pair in pairs),
        "metric": settings.metric,
        "positive": task.positive_name,
        "prior": task.shares,
        **({"several_labels": True} if evidence.several else {}),
        "margin": settings.margin,
        "level": settings.level,
        "confidence": CONFIDENCE,
        "cost": settings.cost,
        "methods": records,
        "baselines": [flat_record(outcome) for outcome in evidence.baselines],
        "pairs": pairs,
        "reference": _reference(full, lora),
    }
    if task.costs is not None and settings.metric != "expected_cost":
        by_cost = replace(judge, settings=settings.model_copy(update={"metric": "expected_cost"}))
        costs = [
            by_cost.compare(by_name[p["a"]], by_name[p["b"]], 1 if p["baseline"] else family)
            for p in pairs
        ]
        found["cost_pairs"] = [{key: pair[key] for key in COST_KEYS} for pair in costs]
    if evidence.folds:
        learnt = [fold["train"] for fold in evidence.split["folds"].values()]
        found["folds"] = len(learnt)
        found["trained_on"] = sum(learnt) / len(learnt) / len(groups)
    found["cautions"] = cautions(evidence, params, found)
    found["recommendation"] = recommended.to_dict()
    reason = sentences.why(found)
    found["recommendation"] = replace(recommended, why=reason).to_dict()
    # DVC's tables show every scalar, and would be as wide as the sentence; lists they skip.
    said = {"verdict": sentences.verdict_of(found), "headline": [sentences.headline_of(found)]}
    return said | found


def reference_method(params: Params) -> str:
    """Return the method with which every other one is compared.

    Where `comparison.reference` names none it is the one that trains everything: of several the
    one called `full`, else the first by name; where there is none, the first method by name. Never
    by the order of params.yaml: DVC takes a mapping in another order for the same.
    """

    def rank(item: tuple[str, MethodParams]) -> tuple[bool, bool, str]:
        name, method = item
        return method.trainable != "all", name != "full", name

    return params.comparison.reference or min(params.methods.items(), key=rank)[0]


def _task(evidence: Evidence, params: Params) -> Task | LabelTask:
    first = evidence.methods[0]
    classes, labels = evidence.classes, first.in_targets(first.labels)
    if evidence.several:
        return LabelTask(classes, labels, np.ones(len(labels)))
    return Task(
        classes,
        labels,
        prior_weights(labels, classes, params.data.prior),
        positive_class(classes, labels, params.classifier.positive),
        cost_matrix(classes, params.comparison.costs),
    )


def read_comparison(path: Path) -> dict[str, Any]:
    """Return the content of metrics/comparison.json.

    Raises:
        MissingArtifactError: The stage compare has not run.
        DataError: The file is not what the stage compare writes, or writes today.
    """
    try:
        comparison = read_json(require(path, "compare"))
    except DataError as error:
        raise _damaged(path, error.actual) from None
    if not isinstance(comparison, dict):
        raise _damaged(path, f"a {type(comparison).__name__}")
    if missing := [key for key in READ_KEYS if key not in comparison]:
        raise _damaged(path, f"no {', '.join(missing)}")
    return comparison


def _damaged(path: Path, actual: str) -> DataError:
    return DataError(
        f"{path.name} is damaged, or of another version of this project.",
        where=str(path),
        expected="the file that the stage compare writes",
        actual=actual,
        next="dvc repro --force compare",
    )


def flat_record(outcome: Outcome) -> dict[str, Any]:
    """Return one method's figures under one level of keys, such as `test_accuracy`.

    They are means over its seeds, with their standard deviation as `test_accuracy_sd` where there
    are several. The ends of an accuracy's interval are `test_accuracy_low` and
    `test_accuracy_high`; figures of time and memory are None for a baseline.
    """
    record: dict[str, Any] = {"method": outcome.name, "trainable": outcome.trainable}
    for split in SPLITS:
        figures = outcome.metrics[split]
        low, high = figures["accuracy_ci95"]
        record[f"{split}_accuracy"] = figures["accuracy"]
        record[f"{split}_accuracy_low"] = low
        record[f"{split}_accuracy_high"] = high
        names = [name for name in (*SPLIT_FIGURES, *OF_SOME) if name in figures]
        record |= {f"{split}_{name}": figures[name] for name in names}
        spreads = [name for name in figures if name.endswith("_sd")]
        record |= {f"{split}_{name}": figures[name] for name in spreads}
    record |= {name: outcome.metrics.get(name) for name in SIZE_FIGURES}
    cost = outcome.cost or {}
    record |= {name: cost.get(name) for name in COST_FIGURES}
    return record | {"machine": prices.machine(cost) if cost else None}


def differing_settings(params: Params, methods: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return every setting in which two of `methods` differ: its key, then each one's value.

    A nested key is joined with dots (`lora.r`). A method that has no such setting is missing
    from the inner mapping. What every adapter leaves at its default is not listed.
    """
    sections = [params.method(name) for name in methods]
    flat = dict(zip(methods, (section.flat() for section in sections), strict=True))
    keys = dict.fromkeys(key for section in sections for key in section.flat(defaults=False))
    differing = {}
    for key in keys:
        values = {name: settings[key] for name, settings in flat.items() if key in settings}
        first, *others = values.values()
        if len(values) < len(sections) or any(value != first for value in others):
            differing[key] = values
    return differing


def _reference(
    full: Mapping[str, Any] | None, lora: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    if full is None or lora is None:
        return None
    return {
        "full": full["method"],
        "lora": lora["method"],
        "accuracy_difference": lora["test_accuracy"] - full["test_accuracy"],
        **prices.ratios(lora, full),
    }


def _find(methods: list[dict[str, Any]], name: str, trainable: str) -> dict[str, Any] | None:
    """Return the method of that kind: the one called so, else the first by name."""
    fitting = [record for record in methods if record["trainable"] == trainable]
    return min(fitting, key=lambda r: (r["method"] != name, r["method"]), default=None)


def _ratio(part: Mapping[str, Any], whole: Mapping[str, Any] | None, key: str) -> float | None:
    if whole is None or part.get(key) is None or not whole.get(key):
        return None
    return float(part[key] / whole[key])


def shown_settings(differing: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return settings as YAML would show them; a dash where a method has none."""
    names = dict.fromkeys(name for values in differing.values() for name in values)
    return {
        key: {n: formats.setting(values[n]) if n in values else formats.DASH for n in names}
        for key, values in differing.items()
    }
