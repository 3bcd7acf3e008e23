"""Intervals for accuracies, and for the difference of two methods that were trained several times.

The verdict's statistics, how they were chosen and their error rates: docs/verdict.md.
"""

from lora_compare.evaluation.statistics.crossed import (
    FEWEST_SEEDS,
    Array,
    Components,
    Difference,
    Groups,
    difference,
    reach,
)
from lora_compare.evaluation.statistics.folds import fold_difference
from lora_compare.evaluation.statistics.proportions import (
    CONFIDENCE,
    NORMAL_QUANTILE,
    difference_interval,
    wilson_interval,
    worth_of_groups,
)

__all__ = [
    "CONFIDENCE",
    "FEWEST_SEEDS",
    "NORMAL_QUANTILE",
    "Array",
    "Components",
    "Difference",
    "Groups",
    "difference",
    "difference_interval",
    "fold_difference",
    "reach",
    "wilson_interval",
    "worth_of_groups",
]
