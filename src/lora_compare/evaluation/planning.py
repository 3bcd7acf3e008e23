"""How many test messages and seeds a verdict needs, from what makes differences vary."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from scipy.special import ndtr

from lora_compare.evaluation.statistics import CONFIDENCE, FEWEST_SEEDS, Components, reach
from lora_compare.params import Params

POWER_QUANTILE = 0.84
"""The standard normal's at 0.8: a plan should succeed four times in five."""

MOST_GROUPS = 10_000_000
"""Groups of messages that a plan may ask for."""

MOST_SEEDS = 1_000
"""Seeds that a plan may ask for."""

TYPICAL = Components(seed=2 * 0.005**2, message=0.0150, rest=0.0125)
"""What to expect before anything is trained: two methods with 96 % accuracy, whose trainings differ
by 0.5 points (standard deviation) and disagree about 2.75 of 100 messages. So it was of gpt2-nano,
and so it is simulated in tests/unit/evaluation/test_error_rates.py."""


@dataclass(frozen=True)
class Plan:
    """A comparison that is planned, or one that was made.

    Attributes:
        components: What makes the difference vary.
        seeds: How many seeds.
        groups: How many groups of test messages.
        level: That of the interval, in 0..1.
        step: As in `statistics.difference`.
        in_folds: Whether each seed is of a fold of its own, as in `statistics.fold_difference`.
    """

    components: Components
    seeds: int
    groups: int
    level: float = CONFIDENCE
    step: float = 1.0
    in_folds: bool = False

    @property
    def variance(self) -> tuple[float, float]:
        """Return that of the difference by the seeds and by the messages, as it is expected."""
        part = self.components.of_mean(self.seeds, self.groups)
        pseudo = self.step**2 / (self.groups * (self.groups + 1))
        by_message = part.message + pseudo
        if self.in_folds:  # a message is tested in one of them, and is seen as a part of it
            return part.seed + part.message, pseudo
        return (part.seed + part.rest, by_message) if self.seeds > 1 else (0.0, by_message)

    @property
    def reach(self) -> float:
        """Half the width of the interval."""
        return reach(self.variance, self.seeds, self.groups, self.level)

    @property
    def error(self) -> float:
        """The standard error of the difference."""
        return math.sqrt(sum(self.variance))

    @property
    def seen(self) -> float:
        """The true difference that would be called one four times in five."""
        return self.reach + POWER_QUANTILE * self.error

    def chance(self, margin: float) -> float:
        """Return how often equal methods would be shown to be not worse by `margin`, in 0..1."""
        return float(ndtr((margin - self.reach) / self.error))


def describe_power(messages: int, params: Params, groups: int | None = None) -> str:
    """Return what the accuracies of a planned comparison can show, and what that assumes.

    Args:
        messages: Test messages that are planned.
        params: The experiment: its seeds, its methods, its margin and level.
        groups: How many groups they are in, each of which counts as one message: the least that
            they can show. None where the data has none.

    Checked by tests/unit/evaluation/test_error_rates.py by simulation.
    """
    seeds, margin = len(params.training.seeds), params.comparison.margin
    level = 1 - params.comparison.level / max(len(params.methods) - 1, 1)
    in_folds = params.split.folds > 1
    components = TYPICAL
    if in_folds:  # of a message and the one training that tests it
        components = Components(TYPICAL.seed, TYPICAL.message + TYPICAL.rest, 0.0)
    of_groups = f" of {groups:,} groups, each counted as one," if groups else ""
    trained = f"in {seeds} folds" if in_folds else f"and {seeds} seed{'s' * (seeds != 1)}"
    with_these = f"with {messages:,} test messages{of_groups} {trained}"
    if 1 < seeds < FEWEST_SEEDS:
        return (
            f"{with_these} nothing can be claimed of methods: {FEWEST_SEEDS} seeds or more can "
            "tell methods apart, 1 seed two trained models"
        )
    plan = Plan(components, seeds, groups or messages, level, in_folds=in_folds)
    points = 100 * margin
    trained = " between the trained models" if seeds == 1 else ""
    shown = f"{points:g} point{'s' * (points != 1)}"
    if params.comparison.metric == "expected_cost":
        return f"{with_these}, what costs would show is not known before"
    return (
        f"{with_these}, a difference in accuracy{trained} of about {100 * plan.seen:.1f} points "
        f"would be seen, and 'not worse by {shown}' be shown in about "
        f"{100 * plan.chance(margin):.0f} % of cases where the methods are equal (assuming "
        "accuracies of 95 to 97 % whose standard deviation between seeds is 0.5 points)"
    )


def groups_needed(plan: Plan, margin: float) -> int | None:
    """Return the groups of messages with which equal methods are shown to be within `margin`.

    None where no number is enough with these seeds.
    """
    return _least(
        lambda n: replace(plan, groups=n).seen <= margin,
        plan.groups,
        MOST_GROUPS,
    )


def seeds_needed(plan: Plan, margin: float) -> int | None:
    """Return the seeds with which equal methods are shown to be within `margin`.

    None where no number is enough with these messages, of one seed, which says nothing of what
    another would change, and in folds, which are other messages with every number.
    """
    if plan.seeds < 2 or plan.in_folds:
        return None
    return _least(
        lambda n: replace(plan, seeds=n).seen <= margin,
        max(plan.seeds, FEWEST_SEEDS),
        MOST_SEEDS,
    )


def _least(enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the least number from `low` to `high` that is enough; None if not even `high` is."""
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
