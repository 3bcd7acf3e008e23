"""Records, pairs, verdicts, ratios and settings of a comparison."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from comparison_inputs import make_params, write_inputs
from lora_compare.comparison.champion import choose_champion
from lora_compare.comparison.evidence import answers, figures, load_evidence
from lora_compare.comparison.sentences import (
    A_BETTER,
    B_BETTER,
    NO_EVIDENCE,
    caution,
    headline,
    pair_sentence,
)
from lora_compare.comparison.verdict import compare, differing_settings, verdict
from lora_compare.errors import DataError, MissingArtifactError
from lora_compare.project.checksums import seal
from lora_compare.project.files import canonical_json, read_json, write_json

THREE = ("full", "lora", "last_block")


def run(root: Path, methods=("full", "lora"), **options):
    paths, params = write_inputs(root, methods, **options)
    evidence = load_evidence(paths, params)
    return compare(evidence, np.arange(len(evidence.texts)), seed=1)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory):
    return run(tmp_path_factory.mktemp("three"), THREE)


def test_a_record_is_flat_and_holds_what_was_measured(tmp_path: Path):
    paths, _params = write_inputs(tmp_path)
    comparison = run(tmp_path)
    record = comparison["methods"][1]
    metrics, cost = read_json(paths.evaluation("lora")), read_json(paths.cost_copy("lora"))
    assert not any(isinstance(value, dict | list) for value in record.values())
    assert record["method"] == "lora"
    assert record["trainable"] == "lora"
    assert record["test_accuracy"] == metrics["test"]["accuracy"]
    assert [record["test_accuracy_low"], record["test_accuracy_high"]] == metrics["test"][
        "accuracy_ci95"
    ]
    assert record["train_seconds"] == cost["train_seconds"]
    assert record["parameters_of_full"] == 166_432 / 1_074_690
    assert [b["method"] for b in comparison["baselines"]] == ["tfidf", "untuned"]


def test_every_pair_of_methods_and_every_method_with_tfidf_is_tested(three):
    pairs = [(pair["a"], pair["b"], pair["baseline"]) for pair in three["pairs"]]
    assert pairs == [
        ("full", "lora", False),
        ("full", "last_block", False),
        ("lora", "last_block", False),
        ("full", "tfidf", True),
        ("lora", "tfidf", True),
        ("last_block", "tfidf", True),
    ]


def test_p_values_are_scipys_and_adjusted_as_one_family(three):
    exact = [
        binomtest(p["only_a_right"], p["only_a_right"] + p["only_b_right"]).pvalue
        for p in three["pairs"]
    ]
    assert [p["mcnemar_p"] for p in three["pairs"]] == pytest.approx(exact)
    adjusted = multipletests(exact, method="holm")[1]
    assert [p["holm_p"] for p in three["pairs"]] == pytest.approx(adjusted)


def test_the_difference_is_that_of_the_accuracies(three):
    accuracy = {r["method"]: r["test_accuracy"] for r in three["methods"] + three["baselines"]}
    for pair in three["pairs"]:
        low, high = pair["accuracy_difference_ci95"]
        difference = accuracy[pair["a"]] - accuracy[pair["b"]]
        assert pair["accuracy_difference"] == pytest.approx(difference, abs=1e-12)
        assert low <= pair["accuracy_difference"] <= high


def test_a_clear_difference_is_named(three):
    pair = next(p for p in three["pairs"] if (p["a"], p["b"]) == ("lora", "last_block"))
    assert pair["verdict"] == A_BETTER
    assert pair["sentence"].startswith("lora is better than last_block: lora 98.0 %")


@pytest.mark.parametrize(
    ("interval", "p", "expected"),
    [
        ((0.01, 0.05), 0.049, A_BETTER),
        ((-0.05, -0.01), 0.049, B_BETTER),
        ((0.01, 0.05), 0.05, NO_EVIDENCE),
        ((0.0, 0.05), 0.001, NO_EVIDENCE),
        ((-0.01, 0.05), 0.001, NO_EVIDENCE),
        ((0.0, 0.0), 1.0, NO_EVIDENCE),
    ],
)
def test_better_needs_both_witnesses(interval: tuple[float, float], p: float, expected: str):
    assert verdict(interval, p) == expected
    assert expected in ("A better", "B better", "no evidence of a difference")


@pytest.mark.parametrize(
    ("better", "words"),
    [
        ("full", "full better than lora"),
        ("lora", "lora better than full"),
        (None, "no evidence of a difference between full and lora"),
    ],
)
def test_the_verdict_is_short_and_the_sentence_where_dvc_shows_none(
    tmp_path: Path, better: str | None, words: str
):
    paths, params = write_inputs(tmp_path, n=60)
    for name in ("full", "lora"):
        frame = pd.read_csv(paths.predictions(name))
        right = better in (name, None)
        frame["predicted"] = frame["label"] if right else frame["label"].to_numpy()[::-1]
        frame.to_csv(paths.predictions(name), index=False)
        seal(paths.evaluated(name))
    comparison = compare(load_evidence(paths, params), np.arange(60), seed=1)
    assert comparison["verdict"] == words
    assert headline(comparison) == comparison["pairs"][0]["sentence"]
    # `dvc metrics` makes a column of every scalar and leaves out lists.
    scalars = [v for v in comparison.values() if not isinstance(v, list | dict)]
    assert all(len(str(value)) < 60 for value in scalars)


def test_identical_answers_are_said_to_be_so(tmp_path: Path):
    paths, params = write_inputs(tmp_path)
    for kind in (paths.predictions, paths.evaluation):
        kind("lora").write_bytes(kind("full").read_bytes())
        seal(kind("lora").parent)
    evidence = load_evidence(paths, params)
    comparison = compare(evidence, np.arange(296), seed=1)
    pair = comparison["pairs"][0]
    assert pair["accuracy_difference_ci95"] == [0.0, 0.0]
    assert pair["mcnemar_p"] == 1.0
    assert pair["verdict"] == NO_EVIDENCE
    assert (
        pair["sentence"] == "full and lora are right on exactly the same of the 296 test messages."
    )


def test_one_method_is_compared_with_tfidf_only(tmp_path: Path):
    comparison = run(tmp_path, ("lora",))
    assert [(p["a"], p["b"]) for p in comparison["pairs"]] == [("lora", "tfidf")]
    assert comparison["reference"] is None
    assert comparison["verdict"] == "lora is the only method"
    assert "add another" in headline(comparison)
    assert comparison["methods"][0]["parameters_of_full"] is None


def test_the_reference_divides_lora_by_full(three):
    records = {r["method"]: r for r in three["methods"]}
    reference = three["reference"]
    assert reference["parameter_ratio"] == 166_432 / 1_074_690
    for ratio, key in (
        ("state_ratio", "training_state_bytes"),
        ("step_ratio", "step_cpu_seconds"),
        ("time_ratio", "train_seconds"),
        ("memory_ratio", "peak_memory_bytes"),
        ("artifact_ratio", "artifact_bytes"),
    ):
        assert reference[ratio] == records["lora"][key] / records["full"][key]
    assert reference["accuracy_difference"] == -three["pairs"][0]["accuracy_difference"]


@pytest.mark.parametrize(
    "names", [("full", "lora", "lora_r4"), ("last_block", "lora", "lora_r4"), ("full", "lora_r4")]
)
def test_the_order_of_the_methods_decides_nothing(tmp_path: Path, names: tuple[str, ...]):
    one, other = (run(tmp_path / str(i), order) for i, order in enumerate((names, names[::-1])))
    assert one["reference"] == other["reference"]
    assert sorted(one["verdict"].split()) == sorted(other["verdict"].split())
    champions = [choose_champion(comparison) for comparison in (one, other)]
    assert champions[0] is not None
    assert champions[0].method == champions[1].method


def test_memory_that_was_not_measured_has_no_ratio(tmp_path: Path):
    paths, params = write_inputs(tmp_path)
    cost = read_json(paths.cost_copy("full"))
    write_json(paths.cost_copy("full"), cost | {"peak_memory_bytes": None})
    seal(paths.training("full"))
    comparison = compare(load_evidence(paths, params), np.arange(296), seed=1)
    assert comparison["reference"]["memory_ratio"] is None


def test_two_comparisons_are_byte_equal(tmp_path: Path):
    texts = [canonical_json(run(tmp_path / name)) for name in ("one", "two")]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("reports/evaluation/lora/evaluation.json", "evaluate@lora"),
        ("reports/evaluation/lora/predictions.csv", "evaluate@lora"),
        ("reports/training/lora/cost.json", "finetune@lora"),
        ("reports/training/lora/history.csv", "finetune@lora"),
        ("reports/evaluation/tfidf/predictions.csv", "baseline"),
        ("metrics/baseline.json", "baseline"),
        ("metrics/split.json", "split"),
    ],
)
def test_a_missing_file_names_the_stage_that_writes_it(tmp_path: Path, path: str, stage: str):
    paths, params = write_inputs(tmp_path, n=40)
    (tmp_path / path).unlink()
    with pytest.raises(MissingArtifactError) as caught:
        load_evidence(paths, params)
    assert caught.value.next == f"dvc repro {stage}"


def test_predictions_of_another_split_are_refused(tmp_path: Path):
    paths, params = write_inputs(tmp_path, n=40)
    frame = pd.read_csv(paths.predictions("lora")).iloc[::-1]
    frame.to_csv(paths.predictions("lora"), index=False)
    seal(paths.evaluated("lora"))
    with pytest.raises(DataError, match="full and lora did not classify the same test messages"):
        load_evidence(paths, params)


def test_the_table_of_answers_holds_what_is_compared_and_no_removed_method(tmp_path: Path):
    paths, params = write_inputs(tmp_path, n=40)
    paths.evaluated("removed").mkdir()
    for name in ("removed", "lora"):
        paths.predictions(name).write_bytes(paths.predictions("full").read_bytes())
        seal(paths.evaluated(name))
    table = pd.DataFrame(answers(load_evidence(paths, params)))
    assert list(table) == ["method", "label", "predicted"]
    assert list(table["method"].unique()) == ["full", "lora", "tfidf", "untuned"]
    for name, rows in table.groupby("method"):
        expected = pd.read_csv(paths.predictions(str(name)))[["label", "predicted"]]
        assert rows[["label", "predicted"]].to_numpy().tolist() == expected.to_numpy().tolist()


def test_the_figures_for_dvc_put_the_methods_side_by_side(tmp_path: Path):
    paths, params = write_inputs(tmp_path, THREE)
    evidence = load_evidence(paths, params)
    comparison = compare(evidence, np.arange(len(evidence.texts)), seed=1)
    records = {r["method"]: r for r in comparison["methods"] + comparison["baselines"]}
    assert figures(evidence) == {
        "accuracy": {name: records[name]["test_accuracy"] for name in (*THREE, "tfidf")},
        "validation": {name: records[name]["validation_accuracy"] for name in THREE},
        "parameters": {name: records[name]["trainable_parameters"] for name in THREE},
    }


def test_messages_that_look_like_missing_values_are_messages(tmp_path: Path):
    texts = ["NA", "", "null", 'say "hi", ok', "two\nlines", "carriage\rreturn", "\r\n", "nan"]
    paths, params = write_inputs(tmp_path, n=8, texts=texts)
    assert load_evidence(paths, params).texts == texts


def test_classes_may_be_called_like_numbers(tmp_path: Path):
    paths, params = write_inputs(tmp_path, n=60, classes=["0", "1", "NA"])
    evidence = load_evidence(paths, params)
    assert evidence.methods[0].classes == ["0", "1", "NA"]
    assert evidence.methods[0].correct.mean() > 0.9


def test_every_differing_setting_is_listed_and_no_other():
    params = make_params(("full", "lora", "lora_r4", "last_block"))
    differing = differing_settings(params, params.methods)
    assert list(differing) == [
        "trainable",
        "learning_rate",
        "weight_decay",
        "lora.r",
        "lora.lora_alpha",
        "lora.lora_dropout",
        "lora.target_modules",
        "lora.bias",
    ]
    assert differing["lora.r"] == {"lora": 16, "lora_r4": 4}
    assert differing_settings(params, ["lora", "lora_r4"]) == {
        "weight_decay": {"lora": 0.1, "lora_r4": 0.0},
        "lora.r": {"lora": 16, "lora_r4": 4},
    }
    assert differing_settings(params, ["full"]) == {}


@pytest.mark.parametrize(
    ("interval", "told"),
    [
        ((-0.027, 0.012), "a may still be up to 2.7 points worse or 1.2 points better than b."),
        ((0.0, 0.031), "a may still be up to 3.1 points better than b."),
        ((-0.0004, 0.031), "a may still be up to 3.1 points better than b."),
        ((0.0004, 0.031), "a may still be up to 3.1 points better than b."),
        ((-0.031, 0.0), "a may still be up to 3.1 points worse than b."),
        ((0.004, 0.031), "a is 0.4 to 3.1 points better than b, but the test does not confirm it"),
        ((-0.031, -0.004), "b is 0.4 to 3.1 points better than a, but the test does not confirm"),
        ((-0.0004, 0.0004), "a may still be a little better or worse than b."),
    ],
)
def test_the_caution_says_what_the_interval_leaves_open_and_never_0_points(
    interval: tuple[float, float], told: str
) -> None:
    pair = {
        "a": "a",
        "b": "b",
        "n": 255,
        "only_a_right": 5,
        "only_b_right": 1,
        "holm_p": 0.22,
        "accuracy_a": 0.9,
        "accuracy_b": 0.88,
        "accuracy_difference": 0.02,
        "accuracy_difference_ci95": list(interval),
    }
    pair["verdict"] = verdict(interval, pair["holm_p"])
    pair["sentence"] = pair_sentence(pair)
    words = caution({"headline": [pair["sentence"]], "pairs": [pair]})
    assert pair["verdict"] == "no evidence of a difference"
    assert told in words
    assert "0.0 points" not in words
