"""What makes a comparison worthless or weak is named, the most serious first."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from comparison_inputs import make_params, write_inputs
from lora_compare.comparison.cautions import CHECKS, cautions
from lora_compare.comparison.evidence import Evidence, load_evidence
from lora_compare.comparison.outcomes import Outcome, Tuning
from lora_compare.params import Params

ACCURACY = {"metric": "accuracy", "near_duplicate_groups": 290}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evidence, Params]:
    """Evidence of a pretrained base with five seeds, 300 messages, of which nothing is said."""
    paths, params = write_inputs(tmp_path_factory.mktemp("sound"), n=300, seeds=(1, 2, 3, 4, 5))
    evidence = load_evidence(paths, params)
    counts = {"n": 1000, "classes": {"ham": 500, "spam": 500}}
    split = {
        **evidence.split,
        "rows": 3100,
        "duplicates_removed": 100,
        "splits": {**dict.fromkeys(("train", "validation", "test"), counts)},
        "test_rows_with_twin_in_train": {"exact": 0, "normalized": 0, "near": 0},
    }
    pretrained = params.model.model_copy(update={"name": "gpt2-small"})
    return replace(evidence, split=split), params.model_copy(update={"model": pretrained})


def found(evidence: Evidence, params: Params, comparison: Mapping[str, Any] = ACCURACY):
    return {one["key"]: one["sentence"] for one in cautions(evidence, params, comparison)}


def changed(evidence: Evidence, name: str, **figures: Any) -> Evidence:
    """Return the evidence with other metrics of one method."""
    return of(evidence, name, lambda m: replace(m, metrics={**m.metrics, **figures}))


def of(evidence: Evidence, name: str, change: Any) -> Evidence:
    methods = tuple(change(m) if m.name == name else m for m in evidence.methods)
    return replace(evidence, methods=methods)


def accuracies(outcome: Outcome, value: float) -> dict[str, Any]:
    return {
        part: {**outcome.metrics[part], "accuracy": value}
        for part in ("train", "validation", "test")
    }


def test_of_a_sound_comparison_nothing_is_said(sound: tuple[Evidence, Params]) -> None:
    assert cautions(*sound, ACCURACY) == []


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            {"name": "gpt2-nano"},
            ("gpt2-nano, a stand-in of a million parameters", "that you would use (model.name)."),
        ),
        (
            {"name": "gpt2-small", "weights": "random"},
            ("gpt2-small starts from random weights", "(model.weights)."),
        ),
    ],
)
def test_a_base_that_is_not_pretrained_is_named_first(sound, model, words: tuple[str, str]) -> None:
    evidence, params = sound
    params = params.model_copy(update={"model": params.model.model_copy(update=model)})
    evidence = changed(evidence, "lora", collapsed=[3])
    first, second = cautions(evidence, params, ACCURACY)
    assert words[0] in first["sentence"]
    assert "its answer does not carry over to pretrained models" in first["sentence"]
    assert first["sentence"].endswith(words[1])
    assert second["key"] == "collapsed"


def test_a_tokenizer_that_falls_apart_on_the_text_is_named_in_its_stages_words(sound) -> None:
    evidence, params = sound
    warning = "The tokenizer of gpt2-small makes 2.1 tokens of a character."
    evidence = replace(evidence, tokens={**evidence.tokens, "warning": warning})
    assert found(evidence, params) == {"fragmented": warning}


@pytest.mark.parametrize(("fitted", "said"), [(0.80, True), (0.95, False)])
def test_a_method_that_has_not_fitted_train_is_named(sound, fitted: float, said: bool) -> None:
    evidence, params = sound
    train = {**evidence.methods[1].metrics["train"], "accuracy": fitted}
    sentences = found(changed(evidence, "lora", train=train), params)
    assert ("unfitted" in sentences) == said
    if said:
        assert sentences["unfitted"] == (
            "lora has not fitted its training split: it is right on 80.0 % of it, full on 97.3 %."
        )


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        ([3], "Seed 3 of lora has collapsed, 1 of 5; it counts in every figure."),
        ([2, 5], "Seeds 2 and 5 of lora have collapsed, 2 of 5; they count in every figure."),
    ],
)
def test_collapsed_seeds_are_named_and_counted(sound, seeds: list[int], sentence: str) -> None:
    evidence, params = sound
    assert found(changed(evidence, "lora", collapsed=seeds), params) == {"collapsed": sentence}


@pytest.mark.parametrize(("accuracy", "said"), [(0.54, True), (0.56, False)])
def test_a_test_near_chance_is_named(sound, accuracy: float, said: bool) -> None:
    evidence, params = sound
    for method in evidence.methods:
        evidence = changed(evidence, method.name, **accuracies(method, accuracy))
    sentences = found(evidence, params)
    assert ("chance" in sentences) == said
    if said:
        assert "always answering ham, the largest class, is right on 50.0 %" in sentences["chance"]


@pytest.mark.parametrize(
    ("groups", "said"), [(1, "1 different message only"), (99, "99 d"), (100, "")]
)
def test_a_test_of_few_different_messages_is_named(sound, groups: int, said: str) -> None:
    sentences = found(*sound, {**ACCURACY, "near_duplicate_groups": groups})
    assert list(sentences) == ["few_messages"] * bool(said)
    assert f"holds {said}" in sentences.get("few_messages", "holds ")


def test_cut_messages_are_counted_with_their_tokens(sound) -> None:
    evidence, params = sound
    cut = changed(evidence, "lora", truncated={"test": 60}, truncated_tokens={"test": 0.123})
    assert found(cut, params)["cut"] == (
        "60 of 300 test messages were cut for the model (training.max_length), which lost 12.3 % "
        "of all test tokens; TF-IDF read them whole."
    )
    right = {"cut": 0.8, "whole": 0.95}
    told = found(changed(cut, "lora", truncated_accuracy=right), params)["cut"]
    assert told.endswith(
        " lora is right on 80.0 % of them and on 95.0 % of the others, "
        "\N{MINUS SIGN}15.0 points (95 % interval \N{MINUS SIGN}27.0 to \N{MINUS SIGN}6.1)."
    )
    assert found(changed(evidence, "lora", truncated={"test": 2}), params) == {}
    assert "lost" not in found(changed(evidence, "lora", truncated={"test": 3}), params)["cut"]


def test_a_split_that_threw_most_rows_away_is_named(sound) -> None:
    evidence, params = sound
    assert found(replace(evidence, split={**evidence.split, "rows": 9000}), params) == {}
    split = {**evidence.split, "rows": 10_100}
    assert found(replace(evidence, split=split), params)["thrown"].startswith(
        "The split leaves 7,000 of 10,000 messages out (70 %; split.balance: "
    )


def test_near_duplicates_in_train_are_counted(sound) -> None:
    evidence, params = sound
    for near, said in ((3, False), (4, True)):
        twins = {"exact": 0, "normalized": 0, "near": near}
        split = {**evidence.split, "test_rows_with_twin_in_train": twins}
        assert ("twins" in found(replace(evidence, split=split), params)) == said


def tuned(evidence: Evidence, name: str, **choice: Any) -> Evidence:
    usual = {"searched": True, "trials": 8, "extended": 0, "at_edge": [], "settings": {}}
    tuning = Tuning({**usual, **choice}, pd.DataFrame())
    return of(evidence, name, lambda method: replace(method, tuning=tuning))


def test_a_setting_at_the_end_of_its_range_is_named(sound) -> None:
    evidence, params = sound
    evidence = tuned(evidence, "full", settings={"learning_rate": 0.0008})
    settings = {"learning_rate": 0.008}
    evidence = tuned(evidence, "lora", settings=settings, at_edge=["learning_rate"])
    assert found(evidence, params) == {
        "edge": "The best learning_rate found for lora, 0.008, lies at the end of what was "
        "searched: beyond it may be a better one."
    }


def test_unequal_budgets_are_named_and_an_extension_is_none(sound) -> None:
    evidence, params = sound
    equal = tuned(tuned(evidence, "full"), "lora", trials=9, extended=1)
    assert found(equal, params) == {}
    unequal = tuned(tuned(evidence, "full"), "lora", searched=False, trials=0)
    assert found(unequal, params)["budgets"] == (
        "The methods were not tuned alike: full by 8 trials, lora not at all."
    )


def test_one_seed_is_said(sound) -> None:
    evidence, params = sound
    once = evidence
    for name in evidence.names:
        once = of(once, name, lambda m: replace(m, metrics={**m.metrics, "seeds": [1]}))
    assert list(found(once, params)) == ["one_seed"]


def test_classes_of_different_size_ask_for_macro_f1_beside_accuracy(sound) -> None:
    evidence, params = sound
    test = {"n": 1000, "classes": {"ham": 870, "spam": 130}}
    splits = {**evidence.split["splits"], "test": test}
    uneven = replace(evidence, split={**evidence.split, "splits": splits})
    assert (
        "the largest class (ham: 870 test messages, spam: 130)"
        in found(uneven, params)["uneven_classes"]
    )
    assert "uneven_classes" not in found(uneven, params, {**ACCURACY, "metric": "macro_f1"})


def test_times_of_different_circumstances_are_not_comparable(sound) -> None:
    evidence, params = sound
    cost = evidence.methods[0].cost
    assert cost is not None
    other = of(evidence, "lora", lambda m: replace(m, cost={**cost, "threads": 4}))
    assert found(other, params) == {
        "times": "The methods were not trained alike (threads): their times are not comparable."
    }


def test_what_makes_it_worthless_comes_before_what_makes_it_weak(sound) -> None:
    evidence, _ = sound
    nano = make_params(("full", "lora"))
    worst = changed(evidence, "lora", **accuracies(evidence.methods[1], 0.4), collapsed=[1])
    keys = [one["key"] for one in cautions(worst, nano, ACCURACY)]
    assert keys == ["stand_in", "unfitted", "collapsed"]
    assert keys == [key for key in CHECKS if key in keys]


def test_groups_of_the_data_are_said_with_what_does_not_allow_for_them(
    sound: tuple[Evidence, Params],
) -> None:
    evidence, params = sound
    grouped = replace(evidence, groups=[f"c{i % 40}" for i in range(300)])
    comparison = {**ACCURACY, "near_duplicate_groups": 40}
    assert "The 300 test messages are in 40 groups" in found(grouped, params, comparison)["groups"]
    few = found(grouped, params, comparison)["few_messages"]
    assert "(messages of one group, and near-duplicates, count as one)" in few


def test_classes_that_test_lacks_are_named(sound: tuple[Evidence, Params]) -> None:
    evidence, params = sound
    counts = {"n": 300, "classes": {"ham": 300, "spam": 0}}
    splits = {**evidence.split["splits"], "test": counts}
    lacking = replace(evidence, split={**evidence.split, "splits": splits})
    assert found(lacking, params)["missing_classes"] == (
        "Test has no message of spam: there are no figures of these classes, nor means over all, "
        "such as macro-F1."
    )


def test_twins_across_given_splits_are_the_datas_own(sound: tuple[Evidence, Params]) -> None:
    evidence, params = sound
    twins = {"exact": 0, "normalized": 0, "near": 30}
    split = {**evidence.split, "given": {}, "test_rows_with_twin_in_train": twins}
    said = found(replace(evidence, split=split), params)["twins"]
    assert "the data gives the splits, and nothing was moved" in said


def test_folds_say_what_a_claim_is_about_and_where_the_search_was_made(
    sound: tuple[Evidence, Params],
) -> None:
    evidence, params = sound
    comparison = {**ACCURACY, "test_messages": 1300, "folds": 5, "trained_on": 0.7}
    plain = [c for c in cautions(evidence, params, comparison) if c["key"] == "folds"]
    assert len(plain) == 1
    assert "Each of the 1,300 messages was tested once, in 5 folds" in plain[0]["sentence"]
    searched = tuned(tuned(evidence, "full", trials=4), "lora", trials=4)
    said = [c for c in cautions(searched, params, comparison) if c["key"] == "folds"]
    assert len(said) == 2
    assert said[1]["sentence"].startswith("The search of full and lora was made in fold 1")


def test_a_threshold_that_few_messages_have_chosen_is_named(sound) -> None:
    evidence, params = sound
    classifier = params.classifier.model_copy(update={"threshold": "best_f1"})
    chosen = params.model_copy(update={"classifier": classifier})
    assert found(evidence, chosen) == {}
    few = {"n": 1000, "classes": {"ham": 983, "spam": 17}}
    splits = {**evidence.split["splits"], "validation": few}
    rare = replace(evidence, split={**evidence.split, "splits": splits})
    assert found(rare, chosen)["threshold"].startswith("The threshold was chosen on 17 messages of")
    assert found(rare, params) == {}
