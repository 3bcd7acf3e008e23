"""The words of a verdict: what to use first, then full against LoRA, with every number."""

import pytest

from lora_compare.comparison.formats import MINUS
from lora_compare.comparison.sentences import main_pair, margin_words, pair_sentence, with_spread
from verdict_inputs import make_comparison, make_pair

TFIDF_ENOUGH = make_pair("tfidf", claim="not worse", difference=-0.006)
TFIDF_WORSE = make_pair("tfidf", claim="worse", difference=-0.032)
TFIDF_BEST = make_pair("tfidf", claim="better", difference=0.272)
TFIDF_OPEN = make_pair("tfidf", claim="undecided", difference=-0.015)
NUMBERS = "-0.1 points, 95 % interval -0.9 to +0.7, over 1,040 messages and 5 seeds each"


def said(text: str) -> str:
    """Return a sentence with the minus that a keyboard has."""
    return text.replace(MINUS, "-")


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ("better", f"lora is better than full: {NUMBERS}."),
        ("worse", f"lora is worse than full, but by less than 2 points: {NUMBERS}."),
        ("equivalent", f"lora and full are within 2 points of each other: {NUMBERS}."),
        ("not worse", f"lora is not worse than full by more than 2 points: {NUMBERS}."),
        (
            "undecided",
            f"It is undecided how lora compares with full: {NUMBERS}; about 2,400 test messages "
            "or 9 seeds would settle it.",
        ),
    ],
)
def test_a_claim_stands_with_the_numbers_that_it_rests_on(claim: str, words: str) -> None:
    assert said(pair_sentence(make_pair(claim=claim))) == words


@pytest.mark.parametrize(
    ("messages", "seeds", "end"),
    [
        (2400, None, "; about 2,400 test messages would settle it."),
        (None, 9, "; about 9 seeds would settle it."),
        (None, None, "; neither more messages nor more seeds alone would settle it."),
    ],
)
def test_what_is_undecided_says_what_would_settle_it(messages, seeds, end: str) -> None:
    pair = make_pair(claim="undecided", messages_needed=messages, seeds_needed=seeds)
    assert pair_sentence(pair).endswith(f"5 seeds each{end}")


@pytest.mark.parametrize(
    ("claim", "start"),
    [
        ("not worse", "Of these two trained models: lora is not worse than full by more than"),
        ("undecided", "Of these two trained models: it is undecided how lora compares with full"),
    ],
)
def test_one_seed_speaks_of_two_trained_models(claim: str, start: str) -> None:
    sentence = pair_sentence(make_pair(claim=claim, seeds=1))
    assert sentence.startswith(start)
    assert "over 1,040 messages" in sentence
    assert "seeds each" not in sentence


def test_another_metric_level_and_margin_are_named() -> None:
    pair = make_pair(metric="macro_f1", level=0.975, margin=0.01)
    assert said(pair_sentence(pair)).startswith(
        "lora is not worse than full by more than 1 point: -0.1 points of macro-F1, 97.5 % interval"
    )
    assert pair_sentence(TFIDF_OPEN).startswith("It is undecided how TF-IDF compares with full")
    assert "messages and 5 seeds;" in pair_sentence(TFIDF_OPEN)
    assert [margin_words(d) for d in (0.01, 0.02, 0.005)] == ["1 point", "2 points", "0.5 points"]


LORA = f"lora - full: {NUMBERS}."


@pytest.mark.parametrize(
    ("pairs", "use", "needed", "headline"),
    [
        (
            [make_pair(), TFIDF_ENOUGH],
            "lora",
            False,
            "Use lora: not worse than full by more than 2 points, with 3 % of the trained "
            f"parameters. TF-IDF is not worse either: no fine-tuning is needed here. {LORA}",
        ),
        (
            [make_pair(), TFIDF_ENOUGH],
            "tfidf",
            False,
            "Use TF-IDF: not worse than full by more than 2 points, and no fine-tuning is needed "
            "here. To fine-tune all the same, take lora: not worse than full by more than 2 "
            "points, with 3 % of the trained parameters. TF-IDF - full: -0.6 points, 95 % "
            f"interval -1.4 to +0.2, over 1,040 messages and 5 seeds. {LORA}",
        ),
        (
            [make_pair(claim="worse", difference=-0.01), TFIDF_BEST],
            "tfidf",
            False,
            "Use TF-IDF: better than full, by 27.2 points, and no fine-tuning is needed here. To "
            "fine-tune all the same, take lora: worse than full, but by less than 2 points, with "
            "3 % of the trained parameters. TF-IDF - full: +27.2 points, 95 % interval +26.4 to "
            "+28.0, over 1,040 messages and 5 seeds. lora - full: -1.0 points, 95 % interval -1.8 "
            "to -0.2, over 1,040 messages and 5 seeds each.",
        ),
        (
            [make_pair(claim="equivalent"), TFIDF_WORSE],
            "lora",
            True,
            "Use lora: within 2 points of full, with 3 % of the trained parameters. TF-IDF is "
            f"worse than full, by 3.2 points. {LORA}",
        ),
        (
            [make_pair(claim="undecided"), TFIDF_OPEN],
            "full",
            True,
            "Use full: no cheaper method is shown to be within 2 points of it. Whether TF-IDF "
            "would do is undecided. It is undecided how lora compares with full: "
            f"{NUMBERS}; about 2,400 test messages or 9 seeds would settle it.",
        ),
        (
            [
                make_pair(claim="worse", difference=-0.048),
                make_pair("head", claim="worse", difference=-0.1),
                TFIDF_WORSE,
            ],
            "full",
            True,
            "Use full: better than lora and head. TF-IDF is worse than full, by 3.2 points. "
            "lora is worse than full: -4.8 points, 95 % interval -5.6 to -4.0, over 1,040 "
            "messages and 5 seeds each.",
        ),
        (
            [make_pair(), make_pair("large", claim="better", difference=0.03), TFIDF_WORSE],
            "large",
            True,
            "Use large: better than full, by 3.0 points, with 50 % of the trained parameters. "
            "TF-IDF is worse than full, by 3.2 points. large - full: +3.0 points, 95 % interval "
            "+2.2 to +3.8, over 1,040 messages and 5 seeds each. lora is not worse than full by "
            f"more than 2 points: {NUMBERS}.",
        ),
        (
            [TFIDF_WORSE],
            "full",
            True,
            "Use full: it is the only method; another under methods in params.yaml makes a "
            "comparison. TF-IDF is worse than full, by 3.2 points. TF-IDF - full: "
            "-3.2 points, 95 % interval -4.0 to -2.4, over 1,040 messages and 5 seeds.",
        ),
    ],
)
def test_the_headline_says_first_what_to_use(pairs, use: str, needed: bool, headline: str) -> None:
    assert [said(text) for text in make_comparison(pairs, use, needed)["headline"]] == [headline]


def test_the_reference_is_recommended_as_the_cheapest_where_it_is() -> None:
    pairs = [make_pair("full", "head", "undecided"), make_pair("tfidf", "head", "worse")]
    found = make_comparison(pairs, use="head")
    assert found["headline"][0].startswith(
        "Use head: it is the cheapest, and no other method is shown to be better."
    )
    pairs[0] = make_pair("full", "head", "better", 0.005)
    assert make_comparison(pairs, use="head")["headline"][0].startswith(
        "Use head: cheaper than full, and not worse by more than 2 points."
    )


def test_the_price_that_decides_is_named() -> None:
    records = [
        {"method": "full", "artifact_bytes": 1000, "trainable_parameters": 9},
        {"method": "lora", "artifact_bytes": 310, "trainable_parameters": 9},
    ]
    cost = "artifact_bytes"
    found = make_comparison([make_pair(), TFIDF_WORSE], records=records, cost=cost)
    assert "2 points, with 31 % of the artifact size. TF-IDF" in found["headline"][0]


def test_nothing_compared_recommends_nothing() -> None:
    found = make_comparison([], use=None)
    assert found["headline"] == ["Nothing can be recommended: no method was compared."]
    assert found["verdict"] == "no recommendation"


def test_the_main_pair_is_full_and_lora_and_no_order_decides() -> None:
    pairs = [make_pair("head"), make_pair("lora")]
    for order in (pairs, pairs[::-1]):
        assert main_pair(make_comparison(order)) == pairs[1]
        assert main_pair(make_comparison(order, reference=None)) == pairs[0]


def test_a_figure_stands_with_its_spread_over_seeds() -> None:
    assert with_spread({"f": 0.9612, "f_sd": 0.0042}, "f") == "96.1 ± 0.4 %"
    assert with_spread({"f": 0.9612}, "f") == "96.1 %"
    assert with_spread({}, "f") == "n/a"


def test_a_claim_over_folds_says_of_which_models_it_is() -> None:
    pair = make_pair(seeds=5, folds=5)
    comparison = make_comparison([pair], folds=5, trained_on=0.7)
    assert "over 1,040 messages, each tested once in 5 folds" in pair["sentence"]
    assert said(comparison["headline"][0]).endswith(
        "This is about models trained on 70 % of these messages."
    )
    lost = make_pair(claim="undecided", messages_needed=None, seeds_needed=None, folds=5)
    assert lost["sentence"].endswith("folds; more messages alone would not settle it.")


def test_costs_are_saved_and_have_a_unit_of_their_own() -> None:
    pair = make_pair(metric="expected_cost", claim="better", difference=0.012)
    assert said(pair_sentence(pair)) == (
        "lora is better than full: +1.2 saved in 100 messages, 95 % interval +0.4 to +2.0, over "
        "1,040 messages and 5 seeds each."
    )
    pair = make_pair(metric="expected_cost")
    assert said(pair_sentence(pair)).startswith(
        "lora is not worse than full by more than a cost of 2 in 100 messages: -0.1 saved in 100"
    )
    best = make_pair("tfidf", claim="better", difference=0.05, metric="expected_cost")
    found = make_comparison([pair, best], "tfidf", False, metric="expected_cost")
    told = said(found["headline"][0])
    assert "better than full, by a cost of 5.0 in 100 messages" in told
    assert "TF-IDF beside full: +5.0 saved in 100 messages" in told
    assert with_spread({"expected_cost": 0.0512, "expected_cost_sd": 0.004}, "expected_cost") == (
        "5.1 ± 0.4"
    )
    assert with_spread({"expected_cost": 12.5}, "expected_cost") == "1250.0"
