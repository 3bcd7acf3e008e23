"""What was chosen on validation, and the figures on test before and after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_compare.comparison import formats

if TYPE_CHECKING:
    from lora_compare.comparison.evidence import Evidence

BEFORE_AND_AFTER = (
    "by a method's own probabilities and their likeliest class, then with what was chosen"
)
"""What the two figures of a cell are."""


@dataclass(frozen=True)
class Change:
    """A figure before and after, as it is written.

    Attributes:
        before: By the classifier's own probabilities.
        after: With what was chosen on validation.
    """

    before: str
    after: str

    def __str__(self) -> str:
        """Return both as a cell of a table."""
        return f"{self.before} → {self.after}"


@dataclass(frozen=True)
class Row:
    """A method's or baseline's figures before and after.

    Attributes:
        name: Its name.
        chosen: What was chosen, in words; of several seeds the lowest and the highest.
        figures: By their titles.
    """

    name: str
    chosen: str
    figures: Mapping[str, Change]


def decisions(evidence: "Evidence", comparison: Mapping[str, Any]) -> list[Row]:
    """Return a row for every outcome of which something was chosen; none where nothing was.

    Args:
        evidence: What the methods and baselines did.
        comparison: The content of metrics/comparison.json.
    """
    rows = []
    for outcome in evidence.outcomes:
        if "before" not in outcome.metrics:
            continue
        before, after = outcome.metrics["before"]["test"], outcome.metrics["test"]
        figures = {
            title: Change(_written(key, before[key]), _written(key, after[key]))
            for key, title in _titles(comparison).items()
            if key in after
        }
        chosen = _chosen(outcome.metrics["decision"], str(comparison["positive"]))
        rows.append(Row(outcome.name, chosen, figures))
    return rows


def _titles(comparison: Mapping[str, Any]) -> dict[str, str]:
    """Return what the figures that are shown are called: of two classes those of the positive."""
    binary = len(comparison["prior"]) == 2
    own = ("precision", "recall", "f1") if binary else ("macro_f1",)
    return {
        "accuracy": "accuracy",
        **{name: {"f1": "F1", "macro_f1": "macro-F1"}.get(name, name) for name in own},
        "expected_cost": "cost of 100 messages",
        "log_loss": "log loss",
        "ece": "ECE",
    }


def _written(key: str, value: float | None) -> str:
    if key in ("log_loss", "ece"):
        return formats.decimal(value)
    shown = formats.percent(value)
    return shown.removesuffix(" %") if key == "expected_cost" else shown


def _chosen(decision: Mapping[str, Sequence[float]], positive: str) -> str:
    """Return what was chosen, in words: the temperature, the prior, the threshold."""
    parts = []
    if any(value != 1 for value in decision["temperature"]):
        parts.append(f"temperature {_range(decision['temperature'])}")
    if "shift" in decision:
        parts.append("the prior")
    if "threshold" in decision:
        parts.append(f"{positive} from {_range(decision['threshold'])} on")
    return ", ".join(parts) or "nothing better"


def _range(values: Sequence[float]) -> str:
    low, high = (formats.decimal(end, 2) for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
