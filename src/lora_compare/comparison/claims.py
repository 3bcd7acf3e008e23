"""What may be claimed of two methods: how they differ, how sure that is, what is missing."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lora_compare.comparison import sentences
from lora_compare.comparison.outcomes import Outcome
from lora_compare.evaluation.labels.scores import LabelTask
from lora_compare.evaluation.planning import Plan, groups_needed, seeds_needed
from lora_compare.evaluation.scores import Task
from lora_compare.evaluation.statistics import (
    FEWEST_SEEDS,
    Array,
    Difference,
    difference,
    fold_difference,
)
from lora_compare.params import ComparisonParams

Claim = Literal["better", "worse", "equivalent", "not worse", "undecided"]


@dataclass(frozen=True)
class Judge:
    """What two outcomes are compared by.

    Attributes:
        settings: Metric, margin and level.
        task: The test messages, their classes and what each counts.
        groups: Number of each message's near-duplicate group, shape (n,).
        folds: Number of the fold that tests each message, shape (n,); None: every seed tests all.
    """

    settings: ComparisonParams
    task: Task | LabelTask
    groups: npt.NDArray[np.integer[Any]]
    folds: npt.NDArray[np.integer[Any]] | None = None

    def compare(self, a: Outcome, b: Outcome, tests: int) -> dict[str, Any]:
        """Return what is found of two outcomes, as it stands under `pairs`.

        A baseline and an imported method have one set of answers, which stands beside those of
        every seed of the other.

        Args:
            a: The one that is claimed to be better, worse, or as good.
            b: The one that it is compared with.
            tests: How many pairs there are in the family: the interval's level is 1 minus their
                share of `comparison.level` (Bonferroni), so that no claim depends on the others.
        """
        settings, metric = self.settings, self.settings.metric
        (scores_a, step_a), (scores_b, step_b) = (
            self.task.scores(metric, outcome.in_targets(outcome.predicted)) for outcome in (a, b)
        )
        level, step = 1 - settings.level / tests, max(step_a, step_b)
        weights, scores = self.task.weights, scores_a - scores_b
        found = self._difference(scores, level, step)
        made, parts = claim(found, settings.margin), found.components
        sign, most = 1, 1.0
        if metric == "expected_cost" and self.task.costs is not None:  # below 0 in the scores
            sign, most = -1, float(self.task.costs.max())
        pair: dict[str, Any] = {
            "a": a.name,
            "b": b.name,
            "baseline": "baseline" in (a.trainable, b.trainable),
            "metric": metric,
            "value_a": sign * float(np.average(scores_a, axis=1, weights=weights).mean()),
            "value_b": sign * float(np.average(scores_b, axis=1, weights=weights).mean()),
            "difference": found.theta,
            "low": max(found.low, -most),
            "high": min(found.high, most),
            "level": level,
            "p": found.p(),
            "claim": made,
            "margin": settings.margin,
            "seeds": found.seeds,
            "n": len(self.groups),
            "groups": found.groups,
            "variance": _shares(found),
            "seed_sd": math.sqrt(parts.seed) if found.seeds > 1 else None,
            "per_seed": self._by_training(scores),
            "messages_needed": None,
            "seeds_needed": None,
        }
        if made == "undecided":
            plan = Plan(
                *(found.components, found.seeds, found.groups, found.level),
                *(step, self.folds is not None),
            )
            pair |= _needed(found, plan, len(self.groups), settings.margin)
        if self.folds is not None:
            pair["folds"] = found.seeds
        return pair | {"sentence": sentences.pair_sentence(pair)}

    def _difference(self, scores: Array, level: float, step: float) -> Difference:
        known = self.task.weights, self.groups
        if self.folds is None:
            return difference(scores, *known, level, step)
        return fold_difference(scores[0], *known, self.folds, level, step)

    def _by_training(self, scores: Array) -> list[float]:
        """Return the mean difference of each seed, or of each fold."""
        weights = self.task.weights
        if self.folds is None:
            return [float(mean) for mean in np.average(scores, axis=1, weights=weights)]
        number = np.unique(self.folds, return_inverse=True)[1]
        sums = np.bincount(number, weights * scores[0]) / np.bincount(number, weights)
        return [float(mean) for mean in sums]


def claim(found: Difference, margin: float) -> Claim:
    """Return what the interval of A minus B says.

    `better` and `worse`: it excludes 0. `equivalent`: it lies within the margin on both sides.
    `not worse`: A is not worse by the margin. A method may be worse, and yet by less than the
    margin: `recommendation.is_not_worse` looks at the interval alone. Two seeds allow no claim.

    Args:
        found: A minus B.
        margin: The difference that does not matter.
    """
    if 1 < found.seeds < FEWEST_SEEDS:
        return "undecided"
    if found.low > 0:
        return "better"
    if found.high < 0:
        return "worse"
    if found.low > -margin:
        return "equivalent" if found.high < margin else "not worse"
    return "undecided"


def _shares(found: Difference) -> dict[str, float]:
    """Return the components' shares in the variance of the difference; 0 of none."""
    parts = found.components.of_mean(found.seeds, found.groups)
    total = parts.total or 1.0
    return {
        "seed": parts.seed / total,
        "message": parts.message / total,
        "rest": parts.rest / total,
    }


def _needed(found: Difference, plan: Plan, n: int, margin: float) -> dict[str, int | None]:
    """Return the messages, or the seeds, either of which would allow a claim.

    They would show that equal methods are within the margin. Where there are as many already and
    the measured difference stands in the way, it is taken for the true one, and they would show
    on which side of the margin, or of 0, it lies.
    """
    if found.groups < 2:
        return {}
    if plan.seen <= margin:
        margin = max(abs(found.theta), margin + found.theta)
    groups = None if 1 < found.seeds < FEWEST_SEEDS else groups_needed(plan, margin)
    return {
        "messages_needed": groups and math.ceil(groups * n / found.groups),
        "seeds_needed": seeds_needed(plan, margin),
    }
