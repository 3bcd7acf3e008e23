"""What to use: the cheapest of what is good enough, wherever it stands in params.yaml."""

from itertools import permutations
from typing import Any

import pytest

from lora_compare.comparison.claims import claim
from lora_compare.comparison.recommendation import (
    Recommendation,
    read_recommendation,
    recommend,
)
from lora_compare.evaluation.statistics import Components, Difference

COST = {"full": 1000, "lora": 100, "head": 10, "same": 100}
REACH = 0.01
MARGIN = 0.02


def pair(a: str, b: str, difference: float, seeds: int = 5, reach: float = REACH) -> dict[str, Any]:
    """A pair with that difference, give or take `reach`."""
    variance = (reach / 1.96) ** 2
    found = Difference(difference, seeds, 10**9, 0.95, (0.0, variance), Components(0, 0, 0))
    return {
        "a": a,
        "b": b,
        "difference": difference,
        "low": found.low,
        "margin": MARGIN,
        "claim": claim(found, MARGIN),
    }


def recommended(tfidf: float, seeds: int = 5, cost: str = "", **values: float) -> Recommendation:
    """What is recommended of methods with these accuracies; the first is the reference."""
    key = cost or "trainable_parameters"
    known = {**values, "tfidf": tfidf}

    def compare(a: str, b: str) -> dict[str, Any]:
        return pair(a, b, known[a] - known[b], seeds)

    reference = next(iter(values))
    records = [{"method": m, "trainable_parameters": COST[m]} for m in values]
    if cost:
        records = [record | {cost: 1 / record["trainable_parameters"]} for record in records]
    pairs = [compare(name, reference) for name in known if name != reference]
    found = {
        (made.use, made.kind, made.method, made.fine_tuning_needed)
        for some in permutations(records)
        for others in permutations(pairs)
        if (made := recommend(some, others, key, compare))
    }
    assert len(found) == 1, "the order decides"
    (only,) = found
    return Recommendation(*only)


@pytest.mark.parametrize(
    ("values", "use"),
    [
        ({"full": 0.95, "lora": 0.95}, "lora"),
        ({"full": 0.95, "lora": 0.942}, "lora"),  # low is above -0.02
        ({"full": 0.95, "lora": 0.935}, "full"),  # might be 0.025 worse
        ({"full": 0.95, "lora": 0.90}, "full"),
        ({"full": 0.95, "lora": 0.945, "head": 0.943}, "head"),
        ({"full": 0.95, "lora": 0.945, "head": 0.80}, "lora"),
        ({"full": 0.95, "lora": 0.99, "head": 0.95}, "lora"),  # head hides no better method
        ({"full": 0.95, "lora": 0.965, "head": 0.96}, "head"),  # better, but within the margin
        ({"lora": 0.95, "full": 0.99}, "full"),
        ({"lora": 0.95, "same": 0.95}, "lora"),  # as cheap: by name
        ({"lora": 0.95}, "lora"),
    ],
)
def test_the_cheapest_that_is_good_enough_is_recommended(values: dict[str, float], use: str):
    made = recommended(0.5, **values)
    assert (made.use, made.kind, made.fine_tuning_needed) == (use, "method", True)
    assert made.method == use


@pytest.mark.parametrize(
    ("tfidf", "values", "use", "method"),
    [
        (0.95, {"full": 0.95, "lora": 0.95}, "tfidf", "lora"),
        (0.943, {"full": 0.95, "lora": 0.90}, "tfidf", "full"),
        (0.99, {"full": 0.95, "lora": 0.95}, "tfidf", "full"),
        (0.85, {"full": 0.58, "lora": 0.53}, "tfidf", "full"),
        (0.935, {"full": 0.95, "lora": 0.95}, "lora", "lora"),
        (0.95, {"full": 0.95, "lora": 0.99}, "lora", "lora"),  # fine-tuning pays here
        (0.965, {"full": 0.95, "lora": 0.97}, "tfidf", "lora"),
    ],
)
def test_where_tfidf_is_good_enough_no_fine_tuning_is_needed(
    tfidf: float, values: dict[str, float], use: str, method: str
):
    made = recommended(tfidf, **values)
    assert (made.use, made.method) == (use, method)
    assert made.fine_tuning_needed == (use != "tfidf")
    assert made.kind == ("baseline" if use == "tfidf" else "method")


def test_two_seeds_recommend_the_reference():
    assert recommended(0.95, 2, full=0.95, lora=0.97).use == "full"


def test_another_price_decides_and_what_is_not_known_is_dear():
    assert recommended(0.5, cost="artifact_bytes", full=0.95, lora=0.95).use == "full"
    records = [
        {"method": "full", "trainable_parameters": 9, "step_cpu_seconds": 0.1},
        {"method": "theirs", "trainable_parameters": 1, "step_cpu_seconds": 0.0},
    ]
    pairs = [pair("theirs", "full", 0.0), pair("tfidf", "full", -0.5)]
    assert recommend(records, pairs, "step_cpu_seconds", pair).use == "full"  # type: ignore[arg-type]
    assert recommend(records, pairs, "trainable_parameters", pair).use == "theirs"  # type: ignore[arg-type]


def test_a_recommendation_is_read_back_as_it_was_written():
    made = Recommendation("lora", "method", "lora", fine_tuning_needed=True, why="It is cheap.")
    assert read_recommendation({"recommendation": made.to_dict()}) == made
    assert read_recommendation({}) is None
