"""What makes a comparison worthless or weak, said before its verdict; its thresholds are here.

That of the tokenizer is in `models.tokens`, whose stage warns first.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lora_compare.comparison.evidence import Evidence
from lora_compare.comparison.formats import percent, points
from lora_compare.comparison.outcomes import Outcome
from lora_compare.comparison.sentences import UNEVEN_CLASSES, listing
from lora_compare.data.splits.coverage import describe_missing
from lora_compare.evaluation.statistics import difference_interval
from lora_compare.params import Params

STAND_IN = "gpt2-nano"
"""The base that the pipeline pre-trains itself, in seconds and on the experiment's own messages."""

FIT_GAP = 0.10
"""Train accuracy behind the best method's from which a method has not fitted its training split.
Seeds of one method differ by a point or two there; ten points are another state of training."""

LEARNT = 0.10
"""Share of what the largest class leaves to be learnt below which the test is near chance. Below a
tenth, differences between methods are differences between ways of learning nothing."""

FEW_MESSAGES = 100
"""Groups of near-duplicates in the test split below which it is said: of a hundred, one answer is a
point, and equal methods are hardly ever shown to be within two."""

FEW_TO_CHOOSE = 50
"""Messages of the rarer class in validation below which a threshold is hardly chosen: of fifty, one
more that is found moves the recall by two points."""

CUT = 0.01
"""Share of test messages cut from which it is said: fewer move an accuracy by less than a point."""

THROWN = 2 / 3
"""Share of different messages that no split holds from which it is said: with three times the
messages both methods, and TF-IDF beside them, may be in another order."""

TWINS = 0.01
"""Share of test messages with a twin in train from which it is said: half of the usual margin."""

UNEVEN = 1.5
"""Ratio of the largest class to the smallest from which accuracy needs macro-F1 beside it. Up to
60 to 40, the two differ by less than seeds do."""

MACHINE = ("device", "dtype", "threads", "side_by_side")
"""What has to be the same of two methods for their times to be comparable."""

Check = Callable[[Evidence, Params, Mapping[str, Any]], Iterator[str]]


def cautions(
    evidence: Evidence, params: Params, comparison: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Return what a reader must know before the verdict, the most serious first.

    Args:
        evidence: What the methods and baselines did.
        params: The experiment.
        comparison: The content of metrics/comparison.json, as far as it is known: `metric` and
            `near_duplicate_groups`.

    Returns:
        Records of a `key`, which names the kind and may come several times, and a `sentence`.
    """
    return [
        {"key": key, "sentence": sentence}
        for key, check in CHECKS.items()
        for sentence in check(evidence, params, comparison)
    ]


def _stand_in(_: Evidence, params: Params, __: Mapping[str, Any]) -> Iterator[str]:
    model = params.model
    carries = "its answer does not carry over to pretrained models"
    if model.name == STAND_IN:
        yield (
            f"The base model is {STAND_IN}, a stand-in of a million parameters: {carries}, such as "
            "the one that you would use (model.name)."
        )
    elif model.weights == "random":
        yield f"The base model {model.name} starts from random weights: {carries} (model.weights)."


def _fragmented(evidence: Evidence, _: Params, __: Mapping[str, Any]) -> Iterator[str]:
    if warning := evidence.tokens["warning"]:
        yield warning


def _unfitted(evidence: Evidence, _: Params, __: Mapping[str, Any]) -> Iterator[str]:
    fitted = {method.name: method.metrics["train"]["accuracy"] for method in evidence.methods}
    best = max(fitted, key=lambda name: fitted[name])
    for name, accuracy in fitted.items():
        if accuracy < fitted[best] - FIT_GAP:
            yield (
                f"{name} has not fitted its training split: it is right on {percent(accuracy)} of "
                f"it, {best} on {percent(fitted[best])}."
            )


def _collapsed(evidence: Evidence, _: Params, __: Mapping[str, Any]) -> Iterator[str]:
    for method in evidence.methods:
        if seeds := [str(seed) for seed in method.metrics.get("collapsed", ())]:
            several = len(seeds) > 1
            yield (
                f"{'Seeds' if several else 'Seed'} {listing(seeds)} of {method.name} "
                f"{'have' if several else 'has'} collapsed, {len(seeds)} of {len(method.seeds)}; "
                f"{'they count' if several else 'it counts'} in every figure."
            )


def _chance(evidence: Evidence, _: Params, __: Mapping[str, Any]) -> Iterator[str]:
    counts = _test_classes(evidence)
    kind = "the largest class"
    if evidence.several:
        counts, kind = Counter(evidence.labels), "the most frequent labels"
    largest = max(counts, key=lambda name: counts[name])
    share = counts[largest] / sum(counts.values())
    best = max(method.metrics["test"]["accuracy"] for method in evidence.methods)
    if best - share < LEARNT * (1 - share):
        yield (
            f"The test is near chance: always answering {largest}, {kind}, is right on "
            f"{percent(share)} of the test messages, the best method on {percent(best)}."
        )


def _few(evidence: Evidence, _: Params, comparison: Mapping[str, Any]) -> Iterator[str]:
    if (groups := comparison["near_duplicate_groups"]) < FEW_MESSAGES:
        counted = "near-duplicates count as one"
        if evidence.groups:
            counted = "messages of one group, and near-duplicates, count as one"
        yield (
            f"The test split holds {groups:,} different message{'' if groups == 1 else 's'} only "
            f"({counted}): it can show large differences alone."
        )


def _groups(evidence: Evidence, _: Params, comparison: Mapping[str, Any]) -> Iterator[str]:
    if evidence.groups:
        groups = comparison["near_duplicate_groups"]
        yield (
            f"The {len(evidence.groups):,} test messages are in {groups:,} groups: a claim is "
            "about groups such as these, and each counts as one."
        )


def _missing(evidence: Evidence, _: Params, __: Mapping[str, Any]) -> Iterator[str]:
    if missing := describe_missing(evidence.split):
        yield f"{missing[0].upper()}{missing[1:]}."


def _cut(evidence: Evidence, _: Params, __: Mapping[str, Any]) -> Iterator[str]:
    n = len(evidence.texts)
    counts = {m.name: m.metrics.get("truncated", {}).get("test", 0) for m in evidence.methods}
    name = max(counts, key=lambda name: counts[name])
    if counts[name] < CUT * n:
        return
    method = next(method for method in evidence.methods if method.name == name)
    lost = method.metrics.get("truncated_tokens", {}).get("test")
    tokens = f", which lost {percent(lost)} of all test tokens" if lost is not None else ""
    yield (
        f"{counts[name]:,} of {n:,} test messages were cut for the model "
        f"(training.max_length){tokens}; TF-IDF read them whole.{_of_cut(evidence, counts)}"
    )


def _of_cut(evidence: Evidence, counts: Mapping[str, int]) -> str:
    """Return how much the accuracy of messages that were cut differs from that of the others."""
    told = []
    for method in evidence.methods:
        right = method.metrics.get("truncated_accuracy", {})
        if len(right) < 2:
            continue
        cut, n = counts[method.name], len(evidence.texts)
        low, high = difference_interval((right["cut"], cut), (right["whole"], n - cut))
        told.append(
            f"{method.name} is right on {percent(right['cut'])} of them and on "
            f"{percent(right['whole'])} of the others, {points(right['cut'] - right['whole'])} "
            f"points (95 % interval {points(low)} to {points(high)})"
        )
    return f" {'; '.join(told)}." if told else ""


def _rare(evidence: Evidence, params: Params, _: Mapping[str, Any]) -> Iterator[str]:
    if params.classifier.threshold == "argmax":
        return
    counts = evidence.split["splits"]["validation"]["classes"]
    rarest = min(counts, key=lambda name: counts[name])
    if (held := counts[rarest]) < FEW_TO_CHOOSE:
        yield (
            f"The threshold was chosen on {held:,} message{'s' * (held != 1)} of {rarest} "
            "(split.validation): on others it would be another."
        )


def _thrown(evidence: Evidence, params: Params, _: Mapping[str, Any]) -> Iterator[str]:
    split = evidence.split
    different = split["rows"] - split["duplicates_removed"]
    kept = sum(split["splits"][part]["n"] for part in ("train", "validation", "test"))
    if different - kept > THROWN * different:
        yield (
            f"The split leaves {different - kept:,} of {different:,} messages out "
            f"({percent((different - kept) / different, 0)}; split.balance: "
            f"{params.split.balance}): with them, the order may be another."
        )


def _twins(evidence: Evidence, _: Params, __: Mapping[str, Any]) -> Iterator[str]:
    near, n = evidence.split["test_rows_with_twin_in_train"]["near"], len(evidence.texts)
    if near > TWINS * n:
        remedy = "split.twins: together keeps them out"
        if "given" in evidence.split:
            remedy = "the data gives the splits, and nothing was moved"
        yield (
            f"{near:,} of {n:,} test messages have a near-duplicate in train: they test memory "
            f"({remedy})."
        )


def _edge(evidence: Evidence, _: Params, __: Mapping[str, Any]) -> Iterator[str]:
    for method in evidence.methods:
        choice = _choice(method)
        for key in choice.get("at_edge", ()):
            yield (
                f"The best {key} found for {method.name}, {choice['settings'][key]:g}, lies at the "
                "end of what was searched: beyond it may be a better one."
            )


def _one_seed(evidence: Evidence, _: Params, __: Mapping[str, Any]) -> Iterator[str]:
    trained = [method for method in evidence.methods if method.trainable != "imported"]
    if trained and all(len(method.seeds) == 1 for method in trained):
        yield (
            "Each method was trained once: the verdict is about these trained models, and says "
            "nothing of the methods with another seed (training.seeds)."
        )


def _folds(evidence: Evidence, _: Params, comparison: Mapping[str, Any]) -> Iterator[str]:
    if "folds" not in comparison:
        return
    yield (
        f"Each of the {comparison['test_messages']:,} messages was tested once, in "
        f"{comparison['folds']} folds, by models trained on {percent(comparison['trained_on'], 0)} "
        "of them: a claim is about such models. Folds share most of what they train on, so that "
        "no interval says what other messages to train on would change."
    )
    if tuned := [method.name for method in evidence.methods if _choice(method).get("searched")]:
        yield (
            f"The search of {listing(tuned)} was made in fold 1, with messages that the other "
            "folds test: what it chose is fitted to them a little, for all methods alike."
        )


def _budgets(evidence: Evidence, _: Params, __: Mapping[str, Any]) -> Iterator[str]:
    trained = [method for method in evidence.methods if method.trainable != "imported"]
    tried = {
        m.name: c["trials"] - c["extended"] if c["searched"] else 0
        for m in trained
        if (c := _choice(m))
    }
    if len(set(tried.values())) > 1:
        told = (
            f"{name} {f'by {count} trials' if count else 'not at all'}"
            for name, count in tried.items()
        )
        yield f"The methods were not tuned alike: {', '.join(told)}."


def _uneven(evidence: Evidence, _: Params, comparison: Mapping[str, Any]) -> Iterator[str]:
    if evidence.several:
        return
    counts = _test_classes(evidence)
    largest, least = (f(counts, key=lambda name: counts[name]) for f in (max, min))
    if comparison["metric"] == "accuracy" and counts[largest] > UNEVEN * counts[least]:
        yield (
            f"Accuracy is mostly about the largest class ({largest}: {counts[largest]:,} test "
            f"messages, {least}: {counts[least]:,}): macro-F1, which counts every class alike, "
            "stands beside it."
        )


def _times(evidence: Evidence, _: Params, __: Mapping[str, Any]) -> Iterator[str]:
    costs = [m.cost for m in evidence.methods if m.cost and m.trainable != "imported"]
    different = [key for key in MACHINE if len({str(cost.get(key)) for cost in costs}) > 1]
    if different:
        named = listing([key.replace("_", " ") for key in different])
        yield f"The methods were not trained alike ({named}): their times are not comparable."


def _test_classes(evidence: Evidence) -> dict[str, int]:
    return dict(evidence.split["splits"]["test"]["classes"])


def _choice(method: Outcome) -> Mapping[str, Any]:
    return method.tuning.choice if method.tuning else {}


CHECKS: dict[str, Check] = {
    "stand_in": _stand_in,
    "fragmented": _fragmented,
    "unfitted": _unfitted,
    "collapsed": _collapsed,
    "chance": _chance,
    "few_messages": _few,
    "missing_classes": _missing,
    "groups": _groups,
    "cut": _cut,
    "threshold": _rare,
    "thrown": _thrown,
    "twins": _twins,
    "edge": _edge,
    "one_seed": _one_seed,
    "folds": _folds,
    "budgets": _budgets,
    UNEVEN_CLASSES: _uneven,
    "times": _times,
}
"""What is checked, the most serious first."""
