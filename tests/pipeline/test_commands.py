"""The commands that use what the stages wrote: summary, check, import, export."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from dvc_runs import dvc, ran
from lora_compare import cli
from lora_compare.params import load_params
from lora_compare.project.lineage import Pipeline
from lora_compare.project.paths import Paths
from lora_compare.tracking.records import method_records
from small_project import (
    ROOT,
    copy_project,
    environment,
    run,
    run_stages,
    small_params,
    write_settings,
)


def metrics(project: Path, name: str) -> dict:
    return json.loads((project / "metrics" / f"{name}.json").read_text())


def test_an_unknown_method_is_an_error_with_the_methods_there_are(inside: Path) -> None:
    result = run("finetune", "lora_r4")
    assert result.exit_code == 2
    assert "full, lora" in result.output
    assert "Traceback" not in result.output


def test_exported_tfidf_is_that_of_scikit_learn_by_the_lines_that_are_printed(
    inside: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "für sklearn"
    arguments = ["export", "--format", "sklearn", "--output", str(folder), "--json"]
    for method in ([], ["--method", "tfidf"]):
        result = CliRunner().invoke(cli.main, [*arguments, *method])
        assert result.exit_code == 0, result.output
    lines = json.loads(result.output)["python"]
    assert lines in (folder / "README.md").read_text()
    names: dict[str, Any] = {}
    exec(lines, names)
    rows = pd.read_csv(inside / "reports/evaluation/tfidf/predictions.csv", keep_default_na=False)
    chances = names["model"].predict_proba(rows["text"])
    np.testing.assert_allclose(chances, rows[["p_ham", "p_spam"]], rtol=0, atol=1e-12)
    assert names["model"].predict(rows["text"]).tolist() == rows["predicted"].tolist()


@pytest.mark.parametrize(
    ("method", "kind", "remedy"),
    [
        ("tfidf", "onnx", "lora-compare export --method tfidf --format sklearn"),
        ("lora", "sklearn", "lora-compare export --method lora --format onnx"),
    ],
)
def test_a_format_that_is_none_for_the_method_is_refused(
    inside: Path, method: str, kind: str, remedy: str
) -> None:
    result = CliRunner().invoke(cli.main, ["export", "--method", method, "--format", kind])
    assert result.exit_code == 2
    assert remedy in result.output
    assert not (inside / "exports" / f"{method}-{kind}").exists()


def test_summary_shows_accuracy_price_verdict_and_what_to_type_next(inside: Path) -> None:
    result = CliRunner().invoke(cli.main, ["summary"])
    assert result.exit_code == 0
    accuracy = metrics(inside, "lora")["test"]["accuracy"]
    assert f"{accuracy:.1%}".replace("%", " %") in result.output
    for word in ("full", "tfidf", "untuned", "make ui", "params.yaml"):
        assert word in result.output


def test_summary_says_when_settings_have_changed_since(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(inside, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    (tmp_path / "project" / "dvc.lock").write_text(
        "stages: {compare: {params: {params.yaml: {training.epochs: 7}}}}"
    )
    assert "out of date" in CliRunner().invoke(cli.main, ["summary"]).output
    shutil.copy(ROOT / "README.md", "README.md")
    assert "out of date" in CliRunner().invoke(cli.main, ["summary", "--write", "README.md"]).output
    (tmp_path / "project" / "dvc.lock").write_text(
        "stages: {compare: {params: {params.yaml: {training.epochs: 1}}}}"
    )
    assert "out of date" not in CliRunner().invoke(cli.main, ["summary"]).output
    # In a fresh clone the outputs are not there yet; the metrics, which git has, are current.
    (tmp_path / "project" / "dvc.lock").write_text(
        "stages: {compare: {outs: [{path: reports/gone, md5: 7}]}}"
    )
    assert "out of date" not in CliRunner().invoke(cli.main, ["summary"]).output


def test_summary_is_quick_for_it_imports_neither_mlflow_nor_torch(inside: Path) -> None:
    code = (
        "import sys; from lora_compare.cli import main; main(['summary'], standalone_mode=False);"
        "assert not {'mlflow', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_summary_outside_a_project_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.main, ["summary"])
    assert result.exit_code == 2
    assert "There is no project here" in result.output


def check(folder: Path, *arguments: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(cli.main, ["check", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_check_accepts_good_settings_and_downloads_nothing(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(small_params(source="https://example.com/m.csv"))
    assert check(tmp_path) == (
        "params.yaml is in order; methods: full, lora\ntrainings: full 1, lora 1; 2 in all\n"
    )
    assert json.loads(check(tmp_path, "--json"))["data"] is None


def test_check_reads_the_file_and_shows_columns_classes_counts_and_time(tmp_path: Path) -> None:
    write_settings(tmp_path)
    lines = check(tmp_path).splitlines()
    assert lines[0] == "params.yaml is in order; methods: full, lora"
    assert re.fullmatch(r"180 messages, read in \d+\.\d s; columns: kind, message", lines[1])
    assert lines[2:7] == [
        "2 classes: 120 ham, 60 spam",
        "to be split into about 84 train, 12 validation, 24 test",
        "trainings: full 1, lora 1; 2 in all",
        "steps of each training: full 11, lora 11",
        "steps of all trainings: 22",
    ]
    data = json.loads(check(tmp_path, "--json"))["data"]
    assert lines[7].startswith("with 24 test messages and ")
    assert data.pop("seconds") > 0
    assert data == {
        "rows": 180,
        "distinct": 180,
        "labels": False,
        "columns": ["kind", "message"],
        "classes": {"ham": 120, "spam": 60},
        "splits": {"train": 84, "validation": 12, "test": 24},
        "dealt": "",
        "test_groups": None,
        "warnings": [],
    }
    assert not (tmp_path / "data").exists()


def test_check_finds_a_file_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(small_params())
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.main, ["check"])
    assert result.exit_code == 2
    assert "inputs/text/messages.csv cannot be read" in result.output


@pytest.mark.parametrize("suffix", ["tsv", "jsonl", "parquet"])
def test_check_shows_the_columns_of_every_kind_of_file(suffix: str, tmp_path: Path) -> None:
    write_settings(tmp_path)
    source = tmp_path / "inputs" / "text" / f"messages.{suffix}"
    frame = pd.read_csv(source.with_suffix(".csv"))
    if suffix == "parquet":
        frame.to_parquet(source)
    elif suffix == "jsonl":
        frame.to_json(source, orient="records", lines=True)
    else:
        frame.to_csv(source, sep="\t", index=False, quoting=csv.QUOTE_NONE, quotechar=None)
    (tmp_path / "params.yaml").write_text(small_params(source=f"inputs/text/messages.{suffix}"))
    assert "columns: kind, message" in check(tmp_path)


def test_check_finds_what_params_name_and_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    text = small_params(source="inputs/text/gone.csv", device="cuda")
    theirs = (
        "{trainable: imported, adapter: inputs/adapters/x, "
        f"sha256: {'a' * 64}, config_sha256: {'a' * 64}}}"
    )
    text = text.replace("\n  full:\n", f"\n  theirs: {theirs}\n  full:\n", 1)
    (tmp_path / "params.yaml").write_text(text)
    result = CliRunner().invoke(cli.main, ["check"])
    assert result.exit_code == 2
    for part in (
        "3 things that are not here",
        "inputs/text/gone.csv",
        "methods.theirs.adapter",
        "training.device: The device cuda is not available",
    ):
        assert part in result.output


def test_check_says_how_many_steps_each_training_will_take(inside: Path) -> None:
    result = CliRunner().invoke(cli.main, ["check", "--json"])
    n = json.loads((inside / "metrics" / "split.json").read_text())["splits"]["train"]["n"]
    steps = -(-n // 8)  # one epoch in batches of 8
    assert json.loads(result.stdout)["steps"] == {"full": steps, "lora": steps}
    trained = pd.read_csv(inside / "reports" / "training" / "lora" / "history.csv")
    assert trained["step"].iloc[-1] == steps
    shown = CliRunner().invoke(cli.main, ["check"]).output
    assert f"full {steps:,}, lora {steps:,}" in shown


def test_check_counts_steps_of_the_data_that_is_named(
    trained_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_settings(tmp_path)
    text = (trained_project / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    record = json.loads(CliRunner().invoke(cli.main, ["check", "--json"]).stdout)
    assert record["steps"]["lora"] == -(-record["data"]["splits"]["train"] // 8)
    (tmp_path / "metrics").mkdir()
    other = {"splits": {"train": {"n": 8_000}, "test": {"n": 2_000}}}
    (tmp_path / "metrics" / "split.json").write_text(json.dumps(other))
    again = json.loads(CliRunner().invoke(cli.main, ["check", "--json"]).stdout)
    assert (again["steps"], again["power"]) == (record["steps"], record["power"])


def test_check_says_how_many_trainings_there_will_be(
    trained_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = "search: {learning_rate: {low: 5.0e-4, high: 8.0e-3, log: true}}"
    changes = {
        "learning_rate: 2.0e-3": f"learning_rate: 2.0e-3\n    {search}",
        "seeds: [123]": "seeds: [1, 2, 3]",
        "epochs: null": "epochs: 2",
    }
    text = (trained_project / "params.yaml").read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    write_settings(tmp_path)
    (tmp_path / "params.yaml").write_text(text)
    shutil.copytree(trained_project / "metrics", tmp_path / "metrics")
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(cli.main, ["check"]).output
    assert "trainings: full 3, lora 3 and 8 to tune; 14 in all" in said
    record = json.loads(CliRunner().invoke(cli.main, ["check", "--json"]).stdout)
    assert record["trainings"]["lora"] == {"tune": 8, "compare": 3}
    steps = record["steps"]["lora"]  # of one epoch
    assert record["all_steps"] == 6 * steps + 8 * 2 * steps
    assert f"steps of all trainings: {record['all_steps']:,}" in said


def test_make_repro_checks_the_parameters_before_dvc_removes_anything() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\nrepro:")[1]
    assert recipe.index("lora-compare check") < recipe.index("dvc repro")


@pytest.mark.slow
def test_make_repro_in_a_copy_without_git_says_git_init_and_works_after_it(
    tmp_path: Path,
) -> None:
    copy = copy_project(tmp_path / "copy")
    shutil.rmtree(copy / ".git")

    def make(target: str) -> "subprocess.CompletedProcess[str]":
        command = ["make", "-s", target]
        return subprocess.run(command, cwd=copy, env=environment(), capture_output=True, text=True)

    refused = make("repro")
    assert refused.returncode == 2
    assert "next: git init" in refused.stderr
    assert not (copy / ".venv").exists()
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
    assert make("in-git").returncode == 0
    assert ran(dvc(copy, "repro", "download", LORA_COMPARE_TRACKING="off")) == ["download"]


@pytest.fixture(scope="module")
def with_import(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after its LoRA was exported for PEFT and imported again as `theirs`."""
    folder = tmp_path_factory.mktemp("import") / "project"
    shutil.copytree(project, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for arguments in (
            ["export", "--format", "peft"],
            ["import", "exports/lora-peft", "--name", "theirs"],
        ):
            result = CliRunner().invoke(cli.main, arguments)
            assert result.exit_code == 0, result.output + repr(result.exception)
    stages = (f"{stage}@theirs" for stage in ("tune", "finetune", "evaluate"))
    return run_stages(folder, *stages, "compare")


def test_an_imported_adapter_is_evaluated_as_any_method(with_import: Path) -> None:
    mine, theirs = (
        pd.read_csv(with_import / f"reports/evaluation/{name}/predictions-123.csv")
        for name in ("lora", "theirs")
    )
    assert mine["text"].equals(theirs["text"])
    assert mine["p_spam"].tolist() == pytest.approx(theirs["p_spam"].tolist(), abs=1e-5)
    history = pd.read_csv(with_import / "reports/training/theirs/history.csv")
    assert history["step"].tolist() == [0]
    config = json.loads((with_import / "models/theirs/seed-123/config.json").read_text())
    exported = load_file(with_import / "exports/lora-peft/adapter_model.safetensors")
    assert config["trainable"] == "lora"
    assert config["trainable_parameters"] == sum(t.numel() for t in exported.values())
    assert metrics(with_import, "theirs")["trainable_parameters"] == config["trainable_parameters"]
    assert metrics(with_import, "theirs")["merge_error"]["float32"] < 1e-4


def test_the_comparison_shows_what_an_import_did_not_cost(
    with_import: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = metrics(with_import, "comparison")
    assert [record["method"] for record in comparison["methods"]] == ["full", "lora", "theirs"]
    assert comparison["reference"]["lora"] == "lora"
    cost = metrics(with_import, "theirs_cost")
    assert cost["train_seconds"] == 0.0
    assert cost["examples_per_second"] is cost["peak_memory_bytes"] is None
    report = (with_import / "reports/comparison/comparison.md").read_text()
    results, *_ = (line for line in report.splitlines() if line.startswith("| theirs | "))
    assert results.count("n/a") == 2  # time and memory
    assert "theirs" in (with_import / "reports/comparison/plots/loss.svg").read_text()
    assert "theirs" in (with_import / "reports/comparison/comparison.html").read_text()
    monkeypatch.chdir(with_import)
    result = CliRunner().invoke(cli.main, ["summary"])
    assert result.exit_code == 0, result.output
    assert "theirs" in result.output


def test_an_imported_adapter_is_a_run_in_mlflow(
    with_import: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(with_import / "params.yaml")
    (record,) = method_records(Pipeline(Paths(with_import), params), "theirs", True, True)
    points = {point.key: point.value for point in record.points}
    assert points["cost/train_seconds"] == 0.0
    assert "cost/examples_per_second" not in points
    assert points["params/trainable"] > 0
    assert record.params["method.trainable"] == "imported"


def test_an_import_under_a_taken_name_changes_nothing(
    with_import: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(with_import)
    before = (with_import / "params.yaml").read_text()
    arguments = ["import", "exports/lora-peft", "--name", "theirs"]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 2
    assert "has a method 'theirs' already" in result.output
    assert (with_import / "params.yaml").read_text() == before


def test_an_export_that_is_refused_says_what_to_type(inside: Path) -> None:
    result = CliRunner().invoke(
        cli.main, ["export", "--method", "full", "--format", "peft", "--output", "x"]
    )
    assert result.exit_code == 2
    assert "lora-compare export --method full --format merged" in result.output
    assert not (inside / "x").exists()
