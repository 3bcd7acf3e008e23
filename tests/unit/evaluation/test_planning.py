"""How many messages and seeds a verdict needs: by the formula written out, and monotone."""

import math
from dataclasses import replace

import pytest
from scipy.stats import norm, t

from comparison_inputs import make_params
from lora_compare.evaluation.planning import (
    TYPICAL,
    Plan,
    describe_power,
    groups_needed,
    seeds_needed,
)
from lora_compare.evaluation.statistics import Components

PARTS = Components(seed=2e-5, message=0.02, rest=0.01)


def seen(parts: Components, seeds: int, groups: int, level: float) -> float:
    by_seed = parts.seed / seeds + parts.rest / (seeds * groups)
    by_message = parts.message / groups + 1 / (groups * (groups + 1))
    tail = (1 + level) / 2
    squares = t.ppf(tail, groups - 1) ** 2 * by_message
    if seeds == 1:
        by_seed = 0
    else:
        squares += t.ppf(tail, seeds - 1) ** 2 * by_seed
    return math.sqrt(squares) + 0.84 * math.sqrt(by_seed + by_message)


@pytest.mark.parametrize(("seeds", "level"), [(1, 0.95), (3, 0.975), (5, 0.95)])
def test_the_messages_needed_are_the_fewest_that_are_enough(seeds: int, level: float):
    plan = Plan(PARTS, seeds, 100, level)
    needed = groups_needed(plan, 0.02)
    assert needed is not None
    assert seen(PARTS, seeds, needed, level) <= 0.02 < seen(PARTS, seeds, needed - 1, level)
    assert replace(plan, groups=needed).seen == pytest.approx(seen(PARTS, seeds, needed, level))


def test_the_seeds_needed_are_the_fewest_that_are_enough():
    needed = seeds_needed(Plan(PARTS, 3, 800), 0.015)
    assert needed is not None
    assert seen(PARTS, needed, 800, 0.95) <= 0.015 < seen(PARTS, needed - 1, 800, 0.95)
    assert needed > 3


def test_what_no_number_settles_is_none():
    assert groups_needed(Plan(replace(PARTS, seed=0.01), 5, 100), 0.02) is None
    assert seeds_needed(Plan(PARTS, 5, 50), 0.02) is None
    assert seeds_needed(Plan(PARTS, 1, 800), 0.02) is None
    assert seeds_needed(Plan(PARTS, 2, 100_000), 0.5) == 3


def test_more_messages_and_seeds_see_smaller_differences():
    for better in ({"groups": 2000}, {"seeds": 8}, {"level": 0.9}):
        plan, other = Plan(TYPICAL, 5, 1000), Plan(TYPICAL, 5, 1000)
        other = replace(other, **better)
        assert other.seen < plan.seen
        assert other.chance(0.02) > plan.chance(0.02)


def test_the_chance_is_one_in_two_where_the_interval_just_reaches_the_margin():
    plan = Plan(TYPICAL, 5, 1040)
    assert plan.chance(plan.reach) == 0.5
    assert plan.chance(plan.seen) == pytest.approx(norm.cdf(0.84))


@pytest.mark.parametrize(
    ("seeds", "methods", "expected"),
    [
        (
            5,
            2,
            "in accuracy of about 1.7 points would be seen, and 'not worse by 2 points'",
        ),
        (5, 3, "a difference in accuracy of about 2.0 points would be seen"),
        (1, 2, "a difference in accuracy between the trained models of about"),
        (2, 2, "1,040 test messages and 2 seeds nothing can be claimed of methods: 3 seeds"),
    ],
)
def test_the_power_is_said_before_anything_is_trained(seeds: int, methods: int, expected: str):
    params = make_params(("full", "lora", "head")[:methods])
    training = params.training.model_copy(update={"seeds": list(range(seeds))})
    told = describe_power(1040, params.model_copy(update={"training": training}))
    assert expected in told
    plan = Plan(TYPICAL, seeds, 1040, 1 - 0.05 / (methods - 1))
    if seeds != 2:
        assert f"in about {100 * plan.chance(0.02):.0f} % of cases" in told
        assert "assuming" in told
