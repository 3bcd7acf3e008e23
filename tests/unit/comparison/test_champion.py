"""The method to serve: the winner where there is one, else the cheapest of the unbeaten."""

from itertools import combinations
from typing import Any

import pytest

from lora_compare.comparison.champion import choose_champion
from lora_compare.comparison.sentences import A_BETTER, B_BETTER, NO_EVIDENCE

PARAMETERS = {"full": 1000, "lora": 100, "head": 10, "same": 100}


def comparison(*methods: str, **better: str) -> dict[str, Any]:
    """A comparison in which the methods named by `better` are better than their value."""
    pairs = []
    for a, b in [*combinations(methods, 2), *((m, "tfidf") for m in methods)]:
        verdict = NO_EVIDENCE
        if b in better.get(a, "").split():
            verdict = A_BETTER
        if a in better.get(b, "").split():
            verdict = B_BETTER
        pairs.append({"a": a, "b": b, "baseline": b == "tfidf", "verdict": verdict})
    records = [{"method": m, "trainable_parameters": PARAMETERS[m]} for m in methods]
    return {"methods": records, "pairs": pairs}


@pytest.mark.parametrize(
    ("found", "method", "why"),
    [
        (comparison("full", "lora", full="lora"), "full", "full is better than lora"),
        (comparison("lora", "full", full="lora"), "full", "full is better than lora"),
        (comparison("full", "lora", lora="full"), "lora", "lora is better than full"),
        (
            comparison("full", "lora"),
            "lora",
            "no evidence that lora differs from full, and it trains the fewest",
        ),
        (
            comparison("full", "lora", "head", full="head", lora="head"),
            "lora",
            "no evidence that lora differs from full, and it trains the fewest parameters: 100.",
        ),
        (
            comparison("full", "lora", "head", full="head"),
            "lora",
            "no evidence that lora differs from full, and it trains the fewest parameters: 100.",
        ),
        (
            comparison("full", "lora", "head", full="head lora"),
            "full",
            "full is better than lora and head; no method is better than full.",
        ),
        (
            comparison("full", "lora", "head"),
            "head",
            "no evidence that head differs from full or lora, and",
        ),
        (comparison("lora", "same"), "lora", "differs from same"),
        (comparison("same", "lora"), "lora", "differs from same"),
        (comparison("lora"), "lora", "lora is the only method."),
        (
            comparison("full", "lora", tfidf="lora full"),
            "tfidf",
            "tfidf is better than full and lora; no method is better than tfidf.",
        ),
        (comparison("lora", tfidf="lora"), "tfidf", "tfidf is better than lora; no method"),
        (
            comparison("full", "lora", tfidf="lora"),
            "full",
            "full is the one method that no other and not the baseline beats.",
        ),
        (comparison("full", "lora", lora="tfidf"), "lora", "no evidence"),
    ],
)
def test_the_champion_is_the_cheapest_that_no_other_method_beats(
    found: dict[str, Any], method: str, why: str
) -> None:
    champion = choose_champion(found)
    assert champion is not None
    assert champion.method == method
    assert why in champion.why


@pytest.mark.parametrize(
    ("interval", "doubt"),
    [
        ((-0.012, 0.027), "no proof of equality: full may be up to 2.7 points better."),
        ((-0.03, -0.01), ""),
        ((-0.03, 0.0004), ""),
    ],
)
@pytest.mark.parametrize("methods", [("full", "lora"), ("lora", "full")])
def test_the_reason_says_how_much_better_another_method_may_be(
    interval: tuple[float, float], doubt: str, methods: tuple[str, str]
) -> None:
    found = comparison(*methods)
    low, high = interval  # of full minus lora
    found["pairs"][0]["accuracy_difference_ci95"] = (
        [low, high] if methods[0] == "full" else [-high, -low]
    )
    champion = choose_champion(found)
    assert champion is not None
    assert champion.why.endswith(doubt)
    assert bool(doubt) == ("no proof" in champion.why)


def test_nothing_compared_has_no_champion() -> None:
    assert choose_champion({}) is None
