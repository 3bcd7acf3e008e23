"""Which of the compared methods, or the baseline, one would serve, and why."""

from collections.abc import Iterable, Mapping
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

    It is the cheapest of the methods that nothing beats, the baseline included; the baseline
    itself where each method is beaten. A method beats another where the pair's verdict says so,
    and that verdict asks for two witnesses. Where it finds no difference, the accuracies on the
    test messages must not decide: the larger of two numbers that cannot be told apart is chance,
    and choosing by it would turn the test split into one for validation. The price can be told
    apart, so it decides: the fewest trained parameters. Among equals in this too, the first by
    name is taken, which is no claim.

    Args:
        comparison: The content of metrics/comparison.json.
    """
    records = {str(record["method"]): record for record in comparison.get("methods", ())}
    beaten = _beaten(comparison)
    if unbeaten := [name for name in records if name not in beaten]:
        chosen = min(
            unbeaten, key=lambda name: (float(records[name]["trainable_parameters"]), name)
        )
        return Champion(chosen, _reason(chosen, unbeaten, beaten, comparison))
    winners = {name for names in beaten.values() for name in names if name not in beaten}
    # No method is among them, and of the baselines only TF-IDF is tested.
    return next((Champion(name, _best(name, records, beaten)) for name in winners), None)


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
        return _best(chosen, records, beaten)
    others = [name for name in unbeaten if name != chosen]
    count = records[chosen]["trainable_parameters"]
    return sentences.cheapest(chosen, others, count) + _doubt(comparison, chosen, others)


def _best(chosen: str, names: Iterable[str], beaten: Mapping[str, set[str]]) -> str:
    return sentences.best(chosen, [name for name in names if chosen in beaten.get(name, ())])


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
