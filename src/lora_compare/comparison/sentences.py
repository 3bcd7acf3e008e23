"""Everything that a comparison says in words, for terminal, page, Markdown and MLflow alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_compare.comparison.formats import p_value, percent, points

A_BETTER, B_BETTER, NO_EVIDENCE = "A better", "B better", "no evidence of a difference"
"""The verdicts on a pair."""

NO_PROOF = "That is no proof of equality:"


def ranked(pair: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the better method of a pair, then the other; None without evidence."""
    a, b = str(pair["a"]), str(pair["b"])
    return {A_BETTER: (a, b), B_BETTER: (b, a)}.get(pair.get("verdict", NO_EVIDENCE))


def headline(comparison: Mapping[str, Any]) -> str:
    """Return the sentence that says what the content of metrics/comparison.json found."""
    return str(comparison["headline"][0])


def pair_sentence(pair: Mapping[str, Any]) -> str:
    """Return what was found of two methods, with every number that it rests on."""
    a, b, n = pair["a"], pair["b"], pair["n"]
    if not pair["only_a_right"] and not pair["only_b_right"]:
        return f"{a} and {b} are right on exactly the same of the {n} test messages."
    low, high = pair["accuracy_difference_ci95"]
    p = p_value(pair["holm_p"])
    numbers = (
        f"{a} {percent(pair['accuracy_a'])}, {b} {percent(pair['accuracy_b'])} of {n} test "
        f"messages; difference {points(pair['accuracy_difference'])} points (95 % interval "
        f"{points(low)} to {points(high)}), Holm-adjusted exact McNemar p "
        f"{p if p.startswith('<') else f'= {p}'}."
    )
    if order := ranked(pair):
        return f"{order[0]} is better than {order[1]}: {numbers}"
    return f"No evidence of a difference between {a} and {b}: {numbers}"


def found(methods: Sequence[str], pair: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a comparison found in a few words, then as a sentence.

    Args:
        methods: The names of all methods.
        pair: The pair that matters most.
    """
    if len(methods) == 1:
        words = f"{methods[0]} is the only method"
        return words, f"{words}: add another under methods in params.yaml to compare."
    order = ranked(pair)
    undecided = f"{NO_EVIDENCE} between {pair['a']} and {pair['b']}"
    return " better than ".join(order) if order else undecided, str(pair["sentence"])


def caution(comparison: Mapping[str, Any]) -> str:
    """Return what the headline's verdict does not say, or nothing where it claims more."""
    sentence = headline(comparison)
    pair = next((p for p in comparison["pairs"] if p.get("sentence") == sentence), None)
    if pair is None or ranked(pair):
        return ""
    low, high = pair["accuracy_difference_ci95"]
    if low == high == 0:
        return (
            "The same answers on these messages are no proof of the same accuracy on all messages."
        )
    a, b = pair["a"], pair["b"]
    ends = {"worse": _unsigned(low), "better": _unsigned(high)}
    if low > 0 and ends["worse"] != "0.0":
        return _unconfirmed(a, b, low, high, pair["holm_p"])
    if high < 0 and ends["better"] != "0.0":
        return _unconfirmed(b, a, high, low, pair["holm_p"])
    possible = [f"{end} points {word}" for word, end in ends.items() if end != "0.0"]
    left = f"up to {' or '.join(possible)} than" if possible else "a little better or worse than"
    return f"{NO_PROOF} with {pair['n']} test messages, {a} may still be {left} {b}."


def _unconfirmed(better: str, worse: str, least: float, most: float, p: float) -> str:
    """Return what an interval without 0 leaves open, where the test is no second witness."""
    return (
        f"{NO_PROOF} by the interval alone {better} is {_unsigned(least)} to {_unsigned(most)} "
        f"points better than {worse}, but the test does not confirm it (p = {p_value(p)})."
    )


def best(chosen: str, losers: Sequence[str]) -> str:
    """Return why the one method that nothing beats is chosen.

    Args:
        chosen: The method.
        losers: Those that it beats; none where the baseline beats the others.
    """
    if not losers:
        return f"{chosen} is the one method that no other and not the baseline beats."
    return f"{chosen} is better than {_listing(losers)}; no method is better than {chosen}."


def cheapest(chosen: str, others: Sequence[str], parameters: int) -> str:
    """Return why a method is chosen among others that do not beat it.

    Args:
        chosen: The method.
        others: Those that it cannot be told apart from.
        parameters: How many it trains.
    """
    return (
        f"There is no evidence that {chosen} differs from {_listing(others, 'or')}, and it trains "
        f"the fewest parameters: {parameters:,}."
    )


def doubt(other: str, lead: float) -> str:
    """Return by how much, as a fraction, another method may be better than the chosen one."""
    if _unsigned(lead) == "0.0":
        return ""
    return f" {NO_PROOF} {other} may be up to {_unsigned(lead)} points better."


def _unsigned(difference: float) -> str:
    return points(abs(difference)).lstrip("+")


def _listing(names: Sequence[str], word: str = "and") -> str:
    *most, last = names
    return f"{', '.join(most)} {word} {last}" if most else last
