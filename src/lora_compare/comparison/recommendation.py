"""What to use: the cheapest that is good enough."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Recommendation:
    """What to use, and serve.

    Attributes:
        use: A method or baseline; None where nothing was compared.
        kind: Which of the two it is.
        method: The method to take where one fine-tunes all the same; `use` where that is a method.
        fine_tuning_needed: Whether the baseline is not shown to be good enough.
        why: The reason, as sentences.
    """

    use: str | None
    kind: Literal["method", "baseline"]
    method: str
    fine_tuning_needed: bool
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as it stands in metrics/comparison.json."""
        # DVC's tables show every scalar, and would be as wide as the reason; lists they skip.
        return asdict(self) | {"why": [self.why]}


def read_recommendation(comparison: Mapping[str, Any]) -> Recommendation | None:
    """Return what metrics/comparison.json recommends; None where it has no such entry."""
    found = comparison.get("recommendation")
    return Recommendation(**{**found, "why": " ".join(found["why"])}) if found else None


def is_not_worse(pair: Mapping[str, Any]) -> bool:
    """Return whether the first of a pair is shown to be not worse than the other by the margin."""
    return pair["claim"] != "undecided" and bool(pair["low"] > -pair["margin"])


def recommend(
    records: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
    cost: str,
    compare: Callable[[str, str], Mapping[str, Any]],
) -> Recommendation:
    """Return the cheapest of what is not worse than the reference, and not than the best.

    The best is whatever is shown to be better than the reference, the one with the largest
    difference of several; else the reference. So a method that is not worse than the reference
    hides none that is better than both by more than the margin. Among methods the price decides:
    the metric on the test messages must not, or the test split becomes one for validation. Equally
    cheap ones go by name. TF-IDF needs no fine-tuning at all: where it is good enough, it is used.

    Args:
        records: `methods` of metrics/comparison.json.
        pairs: Its `pairs`: every other method, and TF-IDF, with the reference.
        cost: The key of the price.
        compare: Returns the pair of two names, at the level of methods' pairs.
    """
    prices = {str(record["method"]): _price(record, cost) for record in records}
    against = {str(pair["a"]): pair for pair in pairs}
    (reference,) = {str(pair["b"]) for pair in pairs}
    ahead = [pair for pair in pairs if pair["claim"] == "better"]
    best = str(max(ahead, key=lambda pair: pair["difference"])["a"]) if ahead else reference
    enough = [name for name in (reference, *against) if _is_enough(name, reference, best, against)]
    good = [n for n in enough if n == best or best == reference or is_not_worse(compare(n, best))]
    methods = sorted((name for name in good if name in prices), key=lambda n: (prices[n], n))
    # Only where TF-IDF itself is the best is no method good: then the nearest is the reference.
    method = methods[0] if methods else reference
    baselines = [name for name in good if name not in prices]
    if baselines:
        return Recommendation(baselines[0], "baseline", method, fine_tuning_needed=False)
    return Recommendation(method, "method", method, fine_tuning_needed=True)


def _is_enough(
    name: str, reference: str, best: str, against: Mapping[str, Mapping[str, Any]]
) -> bool:
    return name in (reference, best) or is_not_worse(against[name])


def _price(record: Mapping[str, Any], cost: str) -> float:
    """Return what a method costs; what is not known is dearer than everything."""
    value = record.get(cost)
    # A step of 0 s is that of an imported adapter, but a method may well train 0 parameters.
    known = value is not None and (value or cost == "trainable_parameters")
    return float(value) if known else math.inf  # type: ignore[arg-type]
