"""A made-up metrics/comparison.json: the verdict on made-up methods, as `compare` writes it."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_compare.comparison import sentences
from lora_compare.comparison.evidence import Evidence
from lora_compare.comparison.verdict import flat_record


def make_pair(
    a: str = "lora",
    b: str = "full",
    claim: str = "not worse",
    difference: float = -0.001,
    **figures: Any,
) -> dict[str, Any]:
    """Return one pair; `figures` are its other keys."""
    seeds = figures.get("seeds", 5)
    pair = {
        "a": a,
        "b": b,
        "baseline": a == "tfidf",
        "metric": "accuracy",
        "value_a": 0.975 + difference,
        "value_b": 0.975,
        "difference": difference,
        "low": difference - 0.008,
        "high": difference + 0.008,
        "level": 0.95,
        "p": 0.8,
        "claim": claim,
        "margin": 0.02,
        "seeds": seeds,
        "n": 1040,
        "groups": 1013,
        "variance": {"seed": 0.2, "message": 0.5, "rest": 0.3},
        "seed_sd": 0.004,
        "per_seed": [difference + 0.002 * (seed - (seeds - 1) / 2) for seed in range(seeds)],
        "messages_needed": 2400 if claim == "undecided" else None,
        "seeds_needed": 9 if claim == "undecided" else None,
        **figures,
    }
    return pair | {"sentence": sentences.pair_sentence(pair)}


def make_comparison(
    pairs: Sequence[Mapping[str, Any]],
    use: str | None = "lora",
    fine_tuning_needed: bool = True,
    records: Sequence[Mapping[str, Any]] = (),
    baselines: Sequence[Mapping[str, Any]] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return a comparison of these pairs with its sentences; `more` are its other keys."""
    trained = {"full": 1000, "lora": 30, "head": 2}
    names = dict.fromkeys(str(p[side]) for p in pairs for side in "ba" if p[side] != "tfidf")
    methods = records or [
        {"method": name, "trainable_parameters": trained.get(name, 500)} for name in names
    ]
    both = {"full", "lora"} <= {record["method"] for record in methods}
    comparison: dict[str, Any] = {
        "test_messages": 1040,
        "near_duplicate_groups": 1013,
        "seeds": max((pair["seeds"] for pair in pairs), default=1),
        "metric": "accuracy",
        "margin": 0.02,
        "level": 0.05,
        "confidence": 0.95,
        "cost": "trainable_parameters",
        "positive": "spam",
        "methods": list(methods),
        "baselines": list(baselines),
        "pairs": list(pairs),
        "reference": {"full": "full", "lora": "lora"} if both else None,
        "prior": {"ham": 0.87, "spam": 0.13},
        "cautions": [],
        "recommendation": {
            "use": use,
            "kind": "baseline" if use == "tfidf" else "method",
            "method": "lora" if use == "tfidf" else use,
            "fine_tuning_needed": fine_tuning_needed,
        },
        **more,
    }
    comparison["recommendation"]["why"] = [sentences.why(comparison)]
    comparison["verdict"] = sentences.verdict_of(comparison)
    comparison["headline"] = [sentences.headline_of(comparison)]
    return comparison


def compare_made_up(evidence: Evidence, **more: Any) -> dict[str, Any]:
    """Return a comparison of these outcomes in which every method is not worse than the first."""
    first, *others = evidence.names
    seeds = len(evidence.methods[0].seeds)
    pairs = [
        make_pair(name, first, difference=-0.001 - 0.002 * i, seeds=seeds)
        for i, name in enumerate(others)
    ]
    pairs.append(make_pair("tfidf", first, "undecided", -0.015, seeds=seeds))
    records = [flat_record(method) for method in evidence.methods]
    several = len(evidence.methods[0].seeds) > 1
    for record in records:
        record["parameters_of_full"] = None
        if several:
            record["test_accuracy_sd"] = 0.004
    price = {
        "parameter_ratio": 0.155,
        "time_ratio": 1.05,
        "memory_ratio": 0.8,
        "artifact_ratio": 0.155,
    }
    reference = (
        {"full": "full", "lora": "lora", **price} if {"full", "lora"} <= {first, *others} else None
    )
    return make_comparison(
        pairs,
        use=others[0] if others else first,
        records=records,
        baselines=[flat_record(baseline) for baseline in evidence.baselines],
        reference=reference,
        **more,
    )
