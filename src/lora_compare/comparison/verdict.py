"""Every method beside every other: records, paired tests, ratios and a verdict."""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_compare.comparison import formats, prices
from lora_compare.comparison.evidence import Evidence, Outcome
from lora_compare.comparison.sentences import (
    A_BETTER,
    B_BETTER,
    NO_EVIDENCE,
    found,
    pair_sentence,
)
from lora_compare.errors import DataError
from lora_compare.evaluation.statistics import CONFIDENCE, difference_interval, holm, mcnemar_p
from lora_compare.params import Params
from lora_compare.project.files import read_json
from lora_compare.project.paths import SPLITS, TFIDF, require

TESTED_BASELINE = TFIDF
"""The baseline that is worth a test; beating the untuned model is no finding."""

LEVEL = 0.05
"""Largest Holm-adjusted p-value that counts as evidence of a difference."""

READ_KEYS = ("headline", "methods", "baselines", "pairs", "reference")
"""What is shown of metrics/comparison.json; earlier versions of this project wrote less."""

SPLIT_FIGURES = (
    "n",
    "f1",
    "precision",
    "recall",
    "auroc",
    "average_precision",
    "log_loss",
    "brier",
    "ece",
)
SIZE_FIGURES = ("trainable_parameters", "total_parameters", "trainable_percent", "artifact_bytes")
COST_FIGURES = (
    "train_seconds",
    "examples_per_second",
    "tokens_per_second",
    "step_cpu_seconds",
    "step_cpu_seconds_low",
    "step_cpu_seconds_high",
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


def compare(evidence: Evidence, groups: npt.NDArray[np.integer[Any]], seed: int) -> dict[str, Any]:
    """Return the content of metrics/comparison.json.

    `verdict` is what was found in a few words, `headline` a list of it as one sentence.
    `methods` and `baselines` hold one flat record each, `pairs` every pair of methods and then
    every method with TF-IDF (`baseline: true`). The p-values of all pairs are adjusted as one
    family. Differences are A minus B. `reference` divides the LoRA method's parameters, time,
    memory and artifact by those of the full one (its `accuracy_difference` is LoRA minus full)
    and is None without both.

    Args:
        evidence: What the methods and baselines did.
        groups: Number of each test message's near-duplicate group, shape (n,).
        seed: Seed of the bootstrap.
    """
    pairs = [
        _pair(a, b, groups, seed, baseline)
        for a, b, baseline in _pairs_to_test(evidence.methods, evidence.baselines)
    ]
    for pair, adjusted in zip(pairs, holm([pair["mcnemar_p"] for pair in pairs]), strict=True):
        pair["holm_p"] = adjusted
        pair["verdict"] = verdict(pair["accuracy_difference_ci95"], adjusted)
        pair["sentence"] = pair_sentence(pair)
    methods = [flat_record(outcome) for outcome in evidence.methods]
    full = _find(methods, "full", "all")
    for record in methods:
        record["parameters_of_full"] = _ratio(record, full, "trainable_parameters")
    reference = _reference(methods, pairs)
    main = _main_pair(pairs, evidence.names, reference)
    words, sentence = found(evidence.names, main)
    return {
        "verdict": words,
        # DVC's tables show every scalar, and would be as wide as the sentence; lists they skip.
        "headline": [sentence],
        "test_messages": len(groups),
        "near_duplicate_groups": len(np.unique(groups)),
        "confidence": CONFIDENCE,
        "level": LEVEL,
        "methods": methods,
        "baselines": [flat_record(outcome) for outcome in evidence.baselines],
        "pairs": pairs,
        "reference": reference,
    }


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

    The ends of an accuracy's interval are `test_accuracy_low` and `test_accuracy_high`;
    figures of time and memory are None for a baseline.
    """
    record: dict[str, Any] = {"method": outcome.name, "trainable": outcome.trainable}
    for split in SPLITS:
        figures = outcome.metrics[split]
        low, high = figures["accuracy_ci95"]
        record[f"{split}_accuracy"] = figures["accuracy"]
        record[f"{split}_accuracy_low"] = low
        record[f"{split}_accuracy_high"] = high
        record |= {f"{split}_{name}": figures[name] for name in SPLIT_FIGURES}
    record |= {name: outcome.metrics.get(name) for name in SIZE_FIGURES}
    cost = outcome.cost or {}
    record |= {name: cost.get(name) for name in COST_FIGURES}
    return record | {"machine": prices.machine(cost) if cost else None}


def verdict(interval: tuple[float, float] | list[float], adjusted_p: float) -> str:
    """Return "A better", "B better" or "no evidence of a difference".

    A difference is claimed only if two witnesses agree: the Holm-adjusted exact McNemar p is
    below 0.05, and the 95 % interval, which also allows for near-duplicates, excludes 0.

    Args:
        interval: Of accuracy A minus accuracy B, as fractions.
        adjusted_p: Holm-adjusted p-value of the pair.
    """
    low, high = interval
    if adjusted_p < LEVEL and low > 0:
        return A_BETTER
    if adjusted_p < LEVEL and high < 0:
        return B_BETTER
    return NO_EVIDENCE


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


def _pairs_to_test(
    methods: tuple[Outcome, ...], baselines: tuple[Outcome, ...]
) -> list[tuple[Outcome, Outcome, bool]]:
    tested = [baseline for baseline in baselines if baseline.name == TESTED_BASELINE]
    return [(a, b, False) for a, b in combinations(methods, 2)] + [
        (method, baseline, True) for baseline in tested for method in methods
    ]


def _pair(
    a: Outcome, b: Outcome, groups: npt.NDArray[np.integer[Any]], seed: int, baseline: bool
) -> dict[str, Any]:
    right_a, right_b = a.correct, b.correct
    return {
        "a": a.name,
        "b": b.name,
        "baseline": baseline,
        "n": len(right_a),
        "accuracy_a": float(right_a.mean()),
        "accuracy_b": float(right_b.mean()),
        "only_a_right": int((right_a & ~right_b).sum()),
        "only_b_right": int((~right_a & right_b).sum()),
        "accuracy_difference": (int(right_a.sum()) - int(right_b.sum())) / len(right_a),
        "accuracy_difference_ci95": list(difference_interval(right_a, right_b, groups, seed)),
        "mcnemar_p": mcnemar_p(right_a, right_b),
    }


def _reference(methods: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> dict[str, Any] | None:
    full, lora = _find(methods, "full", "all"), _find(methods, "lora", "lora")
    if full is None or lora is None:
        return None
    pair = _between(pairs, full["method"], lora["method"])
    lora_minus_full = 1 if pair["a"] == lora["method"] else -1
    return {
        "full": full["method"],
        "lora": lora["method"],
        "accuracy_difference": lora_minus_full * pair["accuracy_difference"],
        **prices.ratios(lora, full),
    }


def _find(methods: list[dict[str, Any]], name: str, trainable: str) -> dict[str, Any] | None:
    """Return the method of that kind: the one called so, else the first by name."""
    fitting = [record for record in methods if record["trainable"] == trainable]
    return min(fitting, key=lambda r: (r["method"] != name, r["method"]), default=None)


def _main_pair(
    pairs: list[dict[str, Any]], names: Sequence[str], reference: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the pair of the headline: full and LoRA, else the first two methods by name.

    Never by the order of params.yaml: DVC takes a mapping in another order for the same.
    """
    if reference:
        return _between(pairs, reference["full"], reference["lora"])
    return _between(pairs, *sorted(names)[:2]) if len(names) > 1 else pairs[0]


def _between(pairs: list[dict[str, Any]], one: str, other: str) -> dict[str, Any]:
    return next(pair for pair in pairs if {pair["a"], pair["b"]} == {one, other})


def _ratio(part: Mapping[str, Any], whole: Mapping[str, Any] | None, key: str) -> float | None:
    if whole is None or part[key] is None or not whole[key]:
        return None
    return float(part[key] / whole[key])


def shown_settings(differing: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return settings as YAML would show them; a dash where a method has none."""
    names = dict.fromkeys(name for values in differing.values() for name in values)
    return {
        key: {n: formats.setting(values[n]) if n in values else formats.DASH for n in names}
        for key, values in differing.items()
    }
