"""What the verdict is about."""

from typing import Annotated, Literal

from pydantic import Field

from lora_compare.params.sections import Fraction, Section


class ComparisonParams(Section):
    """What the verdict is about, and when two methods are as good as one another."""

    metric: Literal["accuracy", "balanced_accuracy", "macro_f1", "recall", "precision"] = "accuracy"
    """What methods are compared by. `recall` and `precision` are those of `classifier.positive`."""

    reference: Annotated[str, Field(min_length=1)] | None = None
    """Method that every other one is compared with; null: the one that trains everything, of
    several the one called `full`, else the first by name."""

    margin: Fraction = 0.02
    """Difference of the metric that does not matter, to be set before looking: above 0, below 1;
    0.02 is 2 points."""

    level: Fraction = 0.05
    """Probability of a false claim, shared out among the methods: above 0, below 1."""

    cost: Literal[
        "trainable_parameters", "training_state_bytes", "artifact_bytes", "step_cpu_seconds"
    ] = "trainable_parameters"
    """What makes a method cheaper than another that is as good. `step_cpu_seconds` is measured: of
    methods whose steps take about as long, another run may take the other for the cheaper."""
