"""Everything that a comparison says in words, for terminal, page, Markdown and MLflow alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_compare.comparison.formats import MINUS, points, share, spread
from lora_compare.comparison.prices import PRICES, Price
from lora_compare.project.paths import TFIDF

NAMES = {TFIDF: "TF-IDF"}
"""What a baseline is called in a sentence; a method has the name that params.yaml gives it."""

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "recall": "recall",
    "precision": "precision",
    "jaccard": "Jaccard index",
    "micro_f1": "micro-F1",
    "expected_cost": "expected cost of 100 messages",
}
"""What a metric is called in a sentence, by its name in params.yaml."""

UNDECIDED, BETTER, WORSE = "undecided", "better", "worse"
"""Claims on a pair that the words single out; the others are `equivalent` and `not worse`."""

OF_LABELS = ("accuracy", "jaccard", "micro_f1", "macro_f1")
"""Metrics of messages that may have several labels."""

SAVED = "saved in 100 messages"
"""What a hundredth of a difference is, where methods are compared by what their mistakes cost."""

UNEVEN_CLASSES = "uneven_classes"
"""The key of the caution with which tables show macro-F1 beside accuracy."""

NO_FINE_TUNING = "no fine-tuning is needed here"


def headline(comparison: Mapping[str, Any]) -> str:
    """Return the sentences that say what the content of metrics/comparison.json found."""
    return str(comparison["headline"][0])


def headline_of(comparison: Mapping[str, Any]) -> str:
    """Return what to use and why, then how full fine-tuning and LoRA compare.

    Args:
        comparison: The content of metrics/comparison.json, without its `headline`.
    """
    said = f"{recommended(comparison)} {found(comparison)} {models_of_folds(comparison)}"
    return said.strip()


def models_of_folds(comparison: Mapping[str, Any]) -> str:
    """Return what models a claim over folds is about; nothing where there is one split."""
    if "folds" not in comparison:
        return ""
    return f"This is about models trained on {share(comparison['trained_on'])} of these messages."


def verdict_of(comparison: Mapping[str, Any]) -> str:
    """Return the recommendation in a few words, for a table."""
    use = comparison["recommendation"]["use"]
    return f"use {called(use)}" if use else "no recommendation"


def called(name: str) -> str:
    """Return what a method or baseline is called in a sentence."""
    return NAMES.get(name, name)


def recommended(comparison: Mapping[str, Any]) -> str:
    """Return what to use and why; then whether fine-tuning is needed at all."""
    use, reason = (comparison["recommendation"][key] for key in ("use", "why"))
    advice = f"Use {called(use)}" if use else "Nothing can be recommended"
    return f"{advice}: {' '.join(reason)}"


def why(comparison: Mapping[str, Any]) -> str:
    """Return why the recommended method or baseline is recommended, as sentences.

    Args:
        comparison: `recommendation` (without its `why`), `methods`, `pairs`, `margin` and `cost`
            of metrics/comparison.json.
    """
    recommendation = comparison["recommendation"]
    if recommendation["use"] is None:
        return "no method was compared."
    method = recommendation["method"]
    if recommendation["kind"] == "method":
        return f"{_reason(comparison, method)}. {_needed(comparison)}".strip()
    pair = next(p for p in comparison["pairs"] if p["a"] == recommendation["use"])
    return (
        f"{_standing(pair)}, and {NO_FINE_TUNING}. To fine-tune all the same, take {method}: "
        f"{_reason(comparison, method)}."
    )


def _reason(comparison: Mapping[str, Any], method: str) -> str:
    """Return why a method is preferred to the other methods."""
    pair = next((p for p in comparison["pairs"] if p["a"] == method), None)
    if pair is not None:
        return _standing(pair) + _saving(comparison, method)
    pairs, margin = method_pairs(comparison), margin_of(comparison)
    if not pairs:
        return "it is the only method; another under methods in params.yaml makes a comparison"
    claims = {called(pair["a"]): pair["claim"] for pair in pairs}
    if better := [name for name, claim in claims.items() if claim == BETTER]:
        return f"cheaper than {listing(better)}, and not worse by more than {margin}"
    if set(claims.values()) == {WORSE}:
        return f"better than {listing(list(claims))}"
    prices = _prices(comparison)
    if prices.get(method) == min(prices.values()):
        return "it is the cheapest, and no other method is shown to be better"
    return f"no cheaper method is shown to be within {margin} of it"


def _standing(pair: Mapping[str, Any]) -> str:
    """Return how the first of a pair stands to the other, without its own name."""
    other, margin = called(pair["b"]), margin_of(pair)
    if pair["claim"] == BETTER:
        return f"better than {other}, by {_distance(pair)}"
    if pair["claim"] == WORSE:
        return f"worse than {other}, but by less than {margin}"
    if pair["claim"] == "equivalent":
        return f"within {margin} of {other}"
    return f"not worse than {other} by more than {margin}"


def _saving(comparison: Mapping[str, Any], method: str) -> str:
    """Return which share of the reference's price a method costs, where it is less."""
    prices = _prices(comparison)
    part, whole = prices.get(method), prices.get(str(comparison["pairs"][0]["b"]))
    if part is None or not whole or part >= whole:
        return ""
    cost = _cost(comparison)
    title = "trained parameters" if cost.key == "trainable_parameters" else cost.title
    return f", with {share(part / whole)} of the {title}"


def _prices(comparison: Mapping[str, Any]) -> dict[str, float]:
    paid = {record["method"]: _cost(comparison).of(record) for record in comparison["methods"]}
    return {name: value for name, value in paid.items() if value is not None}


def _cost(comparison: Mapping[str, Any]) -> Price:
    return next(price for price in PRICES if price.key == comparison["cost"])


def _needed(comparison: Mapping[str, Any]) -> str:
    """Return whether the baseline would do, as a sentence."""
    pair = next((p for p in comparison["pairs"] if p["baseline"]), None)
    if pair is None:
        return ""
    name, reference = called(pair["a"]), called(pair["b"])
    if not comparison["recommendation"]["fine_tuning_needed"]:
        return f"{name} is not worse either: {NO_FINE_TUNING}."
    if pair["claim"] == WORSE:
        return f"{name} is worse than {reference}, by {_distance(pair)}."
    return f"Whether {name} would do is undecided."


def found(comparison: Mapping[str, Any]) -> str:
    """Return the numbers of what is recommended, then of full and LoRA and of what is better.

    A claim that the recommendation has made already is not said again; its numbers are.
    """
    recommendation, main = comparison["recommendation"], main_pair(comparison)
    named = (recommendation["use"], recommendation["method"])
    order = (*named, main and main["a"])
    pairs = sorted(comparison["pairs"], key=lambda p: tuple(p["a"] != name for name in order))
    shown = [p for p in pairs if p["a"] in named or p is main or _better_method(p)]
    said = [p for p in shown or pairs if p["a"] in named or main is None]
    sentences = [
        f"{called(p['a'])} {against(p)} {called(p['b'])}: {numbers(p)}."
        if p in said
        else pair_sentence(p)
        for p in shown or pairs
    ]
    return " ".join([*sentences, *costs_said(comparison)])


def costs_said(comparison: Mapping[str, Any]) -> list[str]:
    """Return what mistakes cost, as a sentence; none where that is what methods are compared by."""
    pairs = comparison.get("cost_pairs", ())
    named = {comparison["recommendation"]["use"], comparison["recommendation"]["method"]}
    shown = [pair for pair in pairs if pair["a"] in named] or pairs[:1]
    records = {r["method"]: r for r in (*comparison["methods"], *comparison["baselines"])}
    return [
        f"{called(pair['a'])} costs {with_spread(records[pair['a']], 'test_expected_cost')} in 100 "
        f"messages, {called(pair['b'])} "
        f"{with_spread(records[pair['b']], 'test_expected_cost')}: {numbers(pair)}."
        for pair in shown
    ]


def against(pair: Mapping[str, Any]) -> str:
    """Return what stands between the names of a pair: of costs, what is saved is above 0."""
    return MINUS if unit(pair) != SAVED else "beside"


def unit(found: Mapping[str, Any]) -> str:
    """Return what a hundredth of a difference is called, of a pair or a whole comparison."""
    return SAVED if found["metric"] == "expected_cost" else "points"


def _better_method(pair: Mapping[str, Any]) -> bool:
    return pair["claim"] == BETTER and not pair["baseline"]


def main_pair(comparison: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the pair of full fine-tuning and LoRA, else that of the first two by name."""
    pairs, reference = method_pairs(comparison), comparison.get("reference") or {}
    both = {reference.get("full"), reference.get("lora")}
    first = min(pairs, key=lambda pair: str(pair["a"]), default=None)
    return next((pair for pair in pairs if {pair["a"], pair["b"]} == both), first)


def method_pairs(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the pairs of methods, without those of baselines."""
    return [pair for pair in comparison["pairs"] if not pair["baseline"]]


def pair_sentence(pair: Mapping[str, Any]) -> str:
    """Return what is claimed of a pair, with every number that it rests on.

    Where nothing can be claimed, it says what would settle it. Of one seed it says that it is
    about two trained models, not about methods.
    """
    a, b, margin = called(pair["a"]), called(pair["b"]), margin_of(pair)
    claims = {
        BETTER: f"{a} is better than {b}",
        WORSE: f"{a} is worse than {b}{f', but by less than {margin}' * _is_within(pair)}",
        "equivalent": f"{a} and {b} are within {margin} of each other",
        "not worse": f"{a} is not worse than {b} by more than {margin}",
        UNDECIDED: f"it is undecided how {a} compares with {b}",
    }
    claim = claims[pair["claim"]]
    if pair["seeds"] == 1:
        claim = f"Of these two trained models: {claim}"
    elif pair["claim"] == UNDECIDED:
        claim = claim[0].upper() + claim[1:]
    return f"{claim}: {numbers(pair)}{_missing(pair)}."


def _is_within(pair: Mapping[str, Any]) -> bool:
    return bool(pair["low"] > -pair["margin"])


def numbers(pair: Mapping[str, Any]) -> str:
    """Return a pair's difference with its interval and what it was measured over."""
    low, high = points(pair["low"]), points(pair["high"])
    named = pair["metric"] != "accuracy" and unit(pair) != SAVED
    of = f" of {METRICS[pair['metric']]}" if named else ""
    seeds = f" and {pair['seeds']} seeds{'' if pair['baseline'] else ' each'}"
    if "folds" in pair:
        seeds = f", each tested once in {pair['folds']} folds"
    return (
        f"{points(pair['difference'])} {unit(pair)}{of}, {level(pair)} interval {low} to {high}, "
        f"over {pair['n']:,} messages{seeds if pair['seeds'] > 1 else ''}"
    )


def level(pair: Mapping[str, Any]) -> str:
    """Return the level of a pair's interval, such as `95 %` or `97.5 %`."""
    return f"{100 * pair['level']:.3g} %"


def _missing(pair: Mapping[str, Any]) -> str:
    if pair["claim"] != UNDECIDED:
        return ""
    if needed := what_settles(pair, "messages" if "folds" in pair else "test messages"):
        return f"; about {needed} would settle it"
    if "folds" in pair:
        return "; more messages alone would not settle it"
    return "; neither more messages nor more seeds alone would settle it"


def settled(pair: Mapping[str, Any]) -> str:
    """Return the claim on a pair in a few words, with what would settle it."""
    needed = what_settles(pair)
    return f"{claimed(pair)}, {needed} would settle it" if needed else claimed(pair)


def claimed(pair: Mapping[str, Any]) -> str:
    """Return the claim on a pair in a few words: one may be worse, and yet good enough."""
    if pair["claim"] == WORSE and _is_within(pair):
        return f"worse by less than {margin_of(pair)}"
    return str(pair["claim"])


def what_settles(pair: Mapping[str, Any], messages: str = "messages") -> str:
    """Return the messages or seeds with which a pair would be decided; nothing of a decided one."""
    needed = {messages: pair["messages_needed"], "seeds": pair["seeds_needed"]}
    return " or ".join(f"{number:,} {what}" for what, number in needed.items() if number)


def margin_words(margin: float) -> str:
    """Return a margin, a fraction, such as `2 points`."""
    shown = f"{100 * margin:g}"
    return f"{shown} point{'' if shown == '1' else 's'}"


def margin_of(found: Mapping[str, Any]) -> str:
    """Return the margin of a pair or a whole comparison, with what it is one of."""
    if unit(found) == SAVED:
        return f"a cost of {100 * found['margin']:g} in 100 messages"
    return margin_words(found["margin"])


def measured(comparison: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, str]:
    """Return what a method or baseline reached on test, by the metric's name, with its spread.

    Beside it stands what `beside` names.
    """
    metrics = [comparison["metric"], *beside(comparison)]
    return {METRICS[metric]: with_spread(record, f"test_{metric}") for metric in metrics}


def beside(comparison: Mapping[str, Any]) -> list[str]:
    """Return the metrics that are shown beside the one that methods are compared by.

    Macro-F1 where that is accuracy and the classes differ in size; of several labels a message all
    that there are, since each tells something else.
    """
    if comparison.get("several_labels"):
        return [name for name in OF_LABELS if name != comparison["metric"]]
    uneven = any(caution["key"] == UNEVEN_CLASSES for caution in comparison["cautions"])
    return ["macro_f1"] if uneven else []


def with_spread(record: Mapping[str, Any], key: str) -> str:
    """Return a figure of a record with its standard deviation over seeds: `96.1 ± 0.4 %`.

    What a message costs becomes what 100 of them cost: `3.2 ± 0.4`.
    """
    if key.endswith("expected_cost"):
        return spread(record.get(key), record.get(f"{key}_sd")).removesuffix(" %")
    return spread(record.get(key), record.get(f"{key}_sd"))


def listing(names: Sequence[str], word: str = "and") -> str:
    """Return names as a sentence lists them."""
    *most, last = names
    return f"{', '.join(most)} {word} {last}" if most else last


def _distance(pair: Mapping[str, Any]) -> str:
    """Return how far the two of a pair are apart."""
    number = points(abs(pair["difference"])).lstrip("+")
    return f"a cost of {number} in 100 messages" if unit(pair) == SAVED else f"{number} points"
