"""The record of a run is a function of files: its key, its numbers, its parameters."""

import json
from pathlib import Path

import pytest

from lora_compare.params import Params, load_params
from lora_compare.project.files import read_json
from lora_compare.project.lineage import Pipeline
from lora_compare.project.paths import Paths
from lora_compare.tracking.figures import Point, headline, numbers, verdict_tags
from lora_compare.tracking.mailbox import Draft
from lora_compare.tracking.records import current_records, method_records, stage_record
from lora_compare.tracking.runs import (
    RunRecord,
    method_key,
    method_params,
    pipeline_key,
    stage_key,
)
from tracked_project import SEED, history, write_method, write_project
from verdict_inputs import make_comparison, make_pair


@pytest.fixture
def project(tmp_path: Path) -> tuple[Paths, Params]:
    return write_project(tmp_path)


def test_a_methods_key_does_not_change_with_what_the_method_writes(
    project: tuple[Paths, Params],
) -> None:
    before = method_key(Pipeline(*project), "lora")
    write_method(project[0], "lora", seconds=9.0, loss=0.9)
    (project[0].trained("lora", SEED) / "model.safetensors").write_bytes(b"other weights")
    assert method_key(Pipeline(*project), "lora") == before


@pytest.mark.parametrize(
    "file",
    [
        "data/tokens/train.safetensors",
        "data/splits/test.csv",
        "models/base/config.json",
        "stages/finetune.py",
        "stages/evaluate.py",
    ],
)
def test_a_methods_key_changes_with_every_input_of_training_and_evaluation(
    project: tuple[Paths, Params], file: str
) -> None:
    before = method_key(Pipeline(*project), "lora")
    (project[0].root / file).write_text("changed")
    assert method_key(Pipeline(*project), "lora") != before


def test_only_the_key_of_the_method_whose_settings_change_changes(
    project: tuple[Paths, Params],
) -> None:
    paths, params = project
    pipeline = Pipeline(paths, params)
    paths.params.write_text(paths.params.read_text().replace("r: 16", "r: 4"))
    edited = Pipeline(paths, load_params(paths.params))
    assert method_key(edited, "lora") != method_key(pipeline, "lora")
    assert method_key(edited, "full") == method_key(pipeline, "full")
    assert stage_key(edited, "split") == stage_key(pipeline, "split")
    assert pipeline_key(edited) != pipeline_key(pipeline)


def test_the_name_of_the_experiment_is_in_no_key(project: tuple[Paths, Params]) -> None:
    paths, params = project
    pipeline = Pipeline(paths, params)
    paths.params.write_text(paths.params.read_text().replace("a comparison", "another"))
    edited = Pipeline(paths, load_params(paths.params))
    assert pipeline_key(edited) == pipeline_key(pipeline)
    assert method_key(edited, "lora") == method_key(pipeline, "lora")


def test_the_comparisons_key_does_not_change_with_measured_times(
    project: tuple[Paths, Params],
) -> None:
    before = stage_key(Pipeline(*project), "compare")
    write_method(project[0], "lora", seconds=9.0)
    assert stage_key(Pipeline(*project), "compare") == before


def test_the_comparison_has_a_new_key_where_its_methods_have_new_runs(
    project: tuple[Paths, Params],
) -> None:
    """Other code of a training leaves all that compare reads as it was, but for times."""
    before = stage_key(Pipeline(*project), "compare")
    (project[0].root / "stages" / "finetune.py").write_text("changed")
    assert stage_key(Pipeline(*project), "compare") != before


def test_the_curves_are_the_history_files(project: tuple[Paths, Params]) -> None:
    (record,) = method_records(Pipeline(*project), "lora", evaluated=False, with_plots=False)
    for column, key in (
        ("train_loss", "train/loss"),
        ("validation_accuracy", "validation/accuracy"),
    ):
        curve = [(p.step, p.value) for p in record.points if p.key == key]
        assert curve == [(row["step"], row[column]) for row in history()]
    assert not any(point.key.startswith(("test", "final")) for point in record.points)


def test_the_digest_of_a_split_is_that_of_its_file(project: tuple[Paths, Params]) -> None:
    import subprocess

    (record,) = method_records(Pipeline(*project), "lora", evaluated=True, with_plots=False)
    for data in record.datasets:
        command = ["sha256sum", str(project[0].root / data.path)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert output.startswith(data.digest)


def test_every_method_has_the_same_parameters(project: tuple[Paths, Params]) -> None:
    full, lora = (method_params(*project, name) for name in ("full", "lora"))
    assert set(full) == set(lora)
    assert {key: lora[key] for key in lora if lora[key] != full[key]} == {
        "method.trainable": "lora",
        "method.learning_rate": "0.0008",
        "method.lora.r": "16",
        "method.lora.lora_alpha": "16.0",
        "method.lora.lora_dropout": "0.0",
        "method.lora.target_modules": "all-linear",
        "method.lora.bias": "none",
    }


def test_every_method_has_the_same_metrics(project: tuple[Paths, Params]) -> None:
    paths = project[0]
    file = paths.metrics("lora")  # only an adapter can be merged
    file.write_text(json.dumps({**read_json(file), "merge_error": {"float32": 1e-6}}))
    records = current_records(Pipeline(*project))[0]
    full, lora = (
        {point.key for point in record.points} for record in records if record.stage == "method"
    )
    assert full == lora
    assert {"test/accuracy", "params/trainable", "cost/train_seconds", "train/loss"} <= lora


def test_baselines_and_pairs_show_their_essence(project: tuple[Paths, Params]) -> None:
    baseline = stage_record(Pipeline(*project), "baseline")
    assert {point.key for point in baseline.points} == {
        f"{name}/test/{figure}"
        for name in ("untuned", "tfidf")
        for figure in ("accuracy", "accuracy_low", "accuracy_high", "f1", "log_loss")
    }
    compared = stage_record(Pipeline(*project), "compare")
    # What was found of the main pair has short keys too; messages and seeds are not missing.
    found = {"difference", "low", "high", "margin", "p", "seed_variance_share"}
    pair = {f"pairs/lora-full/{name}" for name in found}
    assert {p.key for p in compared.points} == found | pair | {"lora_to_full/parameter_ratio"}
    assert Point("seed_variance_share", 0.2) in compared.points
    assert compared.tags["claim"] == "not worse"


@pytest.mark.parametrize(("use", "trained"), [("lora", 30.0), ("tfidf", 20022.0)])
def test_the_pipeline_has_the_figures_of_what_is_recommended(use: str, trained: float) -> None:
    pairs = [make_pair(), make_pair("tfidf", claim="equivalent")]
    tfidf = {"method": "tfidf", "trainable_parameters": 20022}
    found = make_comparison(pairs, use, use == "lora", baselines=[tfidf])
    assert Point("params/trainable", trained) in list(headline(found))
    assert verdict_tags(found)["lora_compare.champion"] == use


def test_numbers_of_a_metrics_file_become_keys() -> None:
    value = {
        "verdict": "words",
        "test": {
            "accuracy": 0.5,
            "accuracy_ci95": [0.4, 0.6],
            "confusion_matrix": [[1, 2], [3, 4]],
        },
        "per_class": {"ham": {"f1": 1.0}},
        "methods": [{"method": "lora r/4", "test_n": 3, "time": None}],
        "pairs": [{"a": "full", "b": "lora", "p": 0.1, "baseline": False}],
        "reference": None,
    }
    assert list(numbers(value)) == [
        Point("test/accuracy", 0.5),
        Point("test/accuracy_low", 0.4),
        Point("test/accuracy_high", 0.6),
        Point("methods/lora_r_4/test_n", 3.0),
        Point("pairs/full-lora/p", 0.1),
    ]


def test_what_is_missing_has_no_record(project: tuple[Paths, Params]) -> None:
    paths, params = project
    paths.metrics("comparison").unlink()
    paths.cost("full").unlink()
    records, stale = current_records(Pipeline(paths, params))
    names = [record.name for record in records]
    assert names[1:] == ["download", "split", "base_model", "baseline", "lora"]
    assert records[0].provisional
    assert stale == []


def test_a_waiting_record_comes_back_as_it_was(
    project: tuple[Paths, Params], tmp_path: Path
) -> None:
    (record,) = method_records(Pipeline(*project), "lora", evaluated=True, with_plots=True)
    draft = Draft(tmp_path, "evaluate@lora", {})
    draft.finish([record])
    draft.close()
    project[0].history("lora").write_text("overwritten")

    (kept,) = draft.letter.records()

    assert kept.content == record.content
    assert _without_files(kept) == _without_files(record)
    texts = {file.target: file.source.read_bytes() for file in kept.artifacts}
    assert texts["history.csv"].startswith(b"seed,step,epoch")


def _without_files(record: RunRecord) -> dict[str, object]:
    return {k: v for k, v in record.to_dict().items() if k != "artifacts"}
