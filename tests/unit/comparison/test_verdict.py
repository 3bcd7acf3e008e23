"""Records, pairs, ratios, settings and the content of metrics/comparison.json."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from comparison_inputs import answers_of, make_params, write_inputs
from lora_compare.comparison.evidence import load_evidence
from lora_compare.comparison.verdict import compare, differing_settings, reference_method
from lora_compare.errors import DataError, MissingArtifactError, ParamsError
from lora_compare.project.checksums import seal
from lora_compare.project.files import canonical_json, read_json, write_json
from lora_compare.report.tables import answers, figures

THREE = ("full", "lora", "last_block")


def run(root: Path, methods=("full", "lora"), **options):
    settings = options.pop("settings", {})
    paths, params = write_inputs(root, methods, **options)
    changed = {
        name: getattr(params, name).model_copy(update=values) for name, values in settings.items()
    }
    evidence = load_evidence(paths, params)
    groups = np.arange(len(evidence.texts))
    return compare(evidence, groups, params.model_copy(update=changed))


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


def test_every_method_and_tfidf_is_compared_with_the_reference(three):
    pairs = [(pair["a"], pair["b"], pair["baseline"], pair["level"]) for pair in three["pairs"]]
    assert pairs == [
        ("lora", "full", False, 0.975),
        ("last_block", "full", False, 0.975),
        ("tfidf", "full", True, 0.95),
    ]


def test_a_third_method_changes_no_claim_on_tfidf(three, tmp_path: Path):
    two = run(tmp_path)
    assert two["pairs"][-1] == three["pairs"][-1]
    assert two["pairs"][0]["level"] == 0.95


def test_the_difference_is_that_of_the_accuracies(three):
    accuracy = {r["method"]: r["test_accuracy"] for r in three["methods"] + three["baselines"]}
    for pair in three["pairs"]:
        difference = accuracy[pair["a"]] - accuracy[pair["b"]]
        assert pair["difference"] == pytest.approx(difference, abs=1e-12)
        assert pair["value_a"] == pytest.approx(accuracy[pair["a"]])
        assert pair["low"] <= pair["difference"] <= pair["high"]


def test_a_clear_difference_is_named(three):
    pair = next(p for p in three["pairs"] if p["a"] == "last_block")
    assert pair["claim"] == "worse"
    assert "last_block" in pair["sentence"]


def test_the_verdict_is_short_and_the_sentence_where_dvc_shows_none(three):
    # `dvc metrics` makes a column of every scalar and leaves out lists.
    scalars = [v for v in three.values() if not isinstance(v, list | dict)]
    assert all(len(str(value)) < 60 for value in scalars)
    (said,) = three["headline"]
    recommendation = three["recommendation"]
    assert recommendation["why"][0] in said
    assert {"use", "kind", "method", "fine_tuning_needed", "why"} == {*recommendation}


def test_what_it_was_compared_by_stands_beside_it(tmp_path: Path):
    found = run(tmp_path / "plain")
    assert (found["metric"], found["margin"], found["level"]) == ("accuracy", 0.02, 0.05)
    assert found["prior"] == {"ham": 0.5, "spam": 0.5}
    assert (found["seeds"], found["test_messages"], found["near_duplicate_groups"]) == (1, 296, 296)
    settings = {
        "comparison": {"metric": "recall", "margin": 0.01},
        "classifier": {"positive": "ham"},
        "data": {"prior": {"ham": 0.8, "spam": 0.2}},
    }
    found = run(tmp_path / "other", settings=settings)
    assert (found["metric"], found["margin"], found["positive"]) == ("recall", 0.01, "ham")
    assert found["prior"] == pytest.approx({"ham": 0.8, "spam": 0.2})
    assert all(pair["metric"] == "recall" for pair in found["pairs"])


def test_a_positive_class_of_no_message_is_refused(tmp_path: Path):
    with pytest.raises(ParamsError, match=r"positive class is none of the data's"):
        run(tmp_path, settings={"classifier": {"positive": "Spam"}})


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (("lora", "full"), "full"),
        (("lora", "head"), "head"),
        (("lora_r4", "lora"), "lora"),
    ],
)
def test_the_reference_trains_everything_or_is_the_first_by_name(methods, expected: str):
    params = make_params(methods)
    assert reference_method(params) == expected
    assert reference_method(make_params(methods[::-1])) == expected
    named = params.comparison.model_copy(update={"reference": methods[0]})
    assert reference_method(params.model_copy(update={"comparison": named})) == methods[0]


def test_of_several_that_train_everything_full_is_the_reference():
    params = make_params(("full", "lora"))
    others = dict.fromkeys(("again", "full", "whole"), params.methods["full"])
    assert reference_method(params.model_copy(update={"methods": others})) == "full"
    del others["full"]
    assert reference_method(params.model_copy(update={"methods": others})) == "again"


def test_one_method_is_compared_with_tfidf_only(tmp_path: Path):
    comparison = run(tmp_path, ("lora",))
    assert [(p["a"], p["b"]) for p in comparison["pairs"]] == [("tfidf", "lora")]
    assert comparison["reference"] is None
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
    assert reference["accuracy_difference"] == pytest.approx(three["pairs"][0]["difference"])


@pytest.mark.parametrize(
    "names", [("full", "lora", "lora_r4"), ("last_block", "lora", "lora_r4"), ("full", "lora_r4")]
)
def test_the_order_of_the_methods_decides_nothing(tmp_path: Path, names: tuple[str, ...]):
    paths, params = write_inputs(tmp_path, names)
    turned = params.model_copy(update={"methods": dict(reversed(params.methods.items()))})
    groups = np.arange(296)
    one, other = (compare(load_evidence(paths, p), groups, p) for p in (params, turned))
    for key in ("reference", "verdict", "recommendation", "headline"):
        assert one[key] == other[key]
    assert sorted(map(str, one["pairs"])) == sorted(map(str, other["pairs"]))


def test_memory_that_was_not_measured_has_no_ratio(tmp_path: Path):
    paths, params = write_inputs(tmp_path)
    cost = read_json(paths.cost_copy("full"))
    write_json(paths.cost_copy("full"), cost | {"peak_memory_bytes": None})
    seal(paths.training("full"))
    comparison = compare(load_evidence(paths, params), np.arange(296), params)
    assert comparison["reference"]["memory_ratio"] is None


def test_two_comparisons_are_byte_equal(tmp_path: Path):
    texts = [canonical_json(run(tmp_path / name)) for name in ("one", "two")]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("reports/evaluation/lora/evaluation.json", "evaluate@lora"),
        ("reports/evaluation/lora/predictions-1.csv", "evaluate@lora"),
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
    frame = pd.read_csv(paths.predictions("lora", 1)).iloc[::-1]
    frame.to_csv(paths.predictions("lora", 1), index=False)
    seal(paths.evaluated("lora"))
    with pytest.raises(DataError, match="full and lora with the seed 1 did not classify"):
        load_evidence(paths, params)


def test_the_table_of_answers_holds_what_is_compared_and_no_removed_method(tmp_path: Path):
    paths, params = write_inputs(tmp_path, n=40)
    paths.evaluated("removed").mkdir()
    for name in ("removed", "lora"):
        paths.predictions(name, 1).write_bytes(paths.predictions("full", 1).read_bytes())
        seal(paths.evaluated(name))
    table = pd.DataFrame(answers(load_evidence(paths, params)))
    assert list(table) == ["method", "seed", "label", "predicted"]
    assert list(table["method"].unique()) == ["full", "lora", "tfidf", "untuned"]
    for name, rows in table.groupby("method"):
        (file,) = answers_of(paths, str(name))
        expected = pd.read_csv(file)[["label", "predicted"]]
        assert rows[["label", "predicted"]].to_numpy().tolist() == expected.to_numpy().tolist()


def test_the_figures_for_dvc_put_the_methods_side_by_side(tmp_path: Path):
    paths, params = write_inputs(tmp_path, THREE)
    evidence = load_evidence(paths, params)
    comparison = compare(evidence, np.arange(len(evidence.texts)), params)
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
    assert evidence.methods[0].right.mean() > 0.9


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
