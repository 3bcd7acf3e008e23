"""Which of the compared methods one would serve, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_compare.comparison import sentences


@dataclass(frozen=True)
class Champion:
    """The method to serve.

    Attributes:
        method: Its name.
        why: The reason, as a sentence.
    """

    method: str
    why: str


def choose_champion(comparison: Mapping[str, Any]) -> Champion | None:
    """Return the champion of metrics/comparison.json; None where no method was compared.

    It is the cheapest of the methods that no other one beats. A method beats another where the
    pair's verdict says so, and that verdict asks for two witnesses. Where it finds no difference,
    the accuracies on the test messages must not decide: the larger of two numbers that cannot
    be told apart is chance, and choosing by it would turn the test split into one for
    validation. The price can be told apart, so it decides: the fewest trained parameters. Among
    equals in this too, the first by name is taken, which is no claim.

    Args:
        comparison: The content of metrics/comparison.json.
    """
    records = {str(record["method"]): record for record in comparison.get("methods", ())}
    beaten = _beaten(comparison)
    unbeaten = [name for name in records if not beaten.get(name, set()) & set(records)]
    if not unbeaten:
        return None
    chosen = min(unbeaten, key=lambda name: (float(records[name]["trainable_parameters"]), name))
    why = _reason(chosen, unbeaten, beaten, comparison)
    cheaper = beaten.get(chosen, set()) - set(records)
    warning = "".join(f" The baseline {name} is better than it." for name in sorted(cheaper))
    return Champion(chosen, why + warning)


def _beaten(comparison: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return who beats each beaten method, the baseline included."""
    beaten: dict[str, set[str]] = {}
    for pair in comparison.get("pairs", ()):
        if order := sentences.ranked(pair):
            winner, loser = order
            beaten.setdefault(loser, set()).add(winner)
    return beaten


def _reason(
    chosen: str,
    unbeaten: list[str],
    beaten: Mapping[str, set[str]],
    comparison: Mapping[str, Any],
) -> str:
    records = {str(record["method"]): record for record in comparison["methods"]}
    if len(records) == 1:
        return f"{chosen} is the only method."
    if len(unbeaten) == 1:
        losers = [name for name in records if chosen in beaten.get(name, ())]
        return sentences.best(chosen, losers)
    others = [name for name in unbeaten if name != chosen]
    count = records[chosen]["trainable_parameters"]
    return sentences.cheapest(chosen, others, count) + _doubt(comparison, chosen, others)


def _doubt(comparison: Mapping[str, Any], chosen: str, others: list[str]) -> str:
    """Return by how much another method may be better all the same, as a sentence."""
    ahead = {}
    for pair in comparison.get("pairs", ()):
        low, high = pair.get("accuracy_difference_ci95", (0.0, 0.0))
        if pair["a"] in others and pair["b"] == chosen:
            ahead[pair["a"]] = high
        if pair["b"] in others and pair["a"] == chosen:
            ahead[pair["b"]] = -low
    most = max(ahead, key=lambda name: ahead[name], default="")
    if not most or ahead[most] <= 0:
        return ""
    return sentences.doubt(most, ahead[most])
