"""The commands that use what the stages wrote: classify, summary, check, import, export."""

import json
import shlex
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

from lora_compare import cli
from lora_compare.params import load_params
from lora_compare.project.lineage import Pipeline
from lora_compare.project.paths import Paths
from lora_compare.tracking.records import method_record
from small_project import ROOT, run, run_stages, small_params


def metrics(project: Path, name: str) -> dict:
    return json.loads((project / "metrics" / f"{name}.json").read_text())


def test_an_unknown_method_is_an_error_with_the_methods_there_are(inside: Path) -> None:
    result = run("finetune", "lora_r4")
    assert result.exit_code == 2
    assert "full, lora" in result.output
    assert "Traceback" not in result.output


def test_classify_prints_label_probability_and_text(inside: Path) -> None:
    result = CliRunner().invoke(cli.main, ["classify", "claim £9 now", "home by 6"])
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.output.splitlines()]
    assert [row[2] for row in rows] == ["claim £9 now", "home by 6"]
    assert all(row[0] in ("ham", "spam") and 0.5 <= float(row[1]) <= 1 for row in rows)


def test_classify_prints_one_line_for_a_text_of_several(inside: Path) -> None:
    result = CliRunner().invoke(cli.main, ["classify", "home\tby 6\r\nlove", "two  spaces"])
    shown = [line.split("\t")[2] for line in result.output.splitlines()]
    # Every other character stays, so that a line can be found again in its file.
    assert shown == ["home by 6 love", "two  spaces"]


def test_classify_reads_lines_and_writes_json(inside: Path, tmp_path: Path) -> None:
    file = tmp_path / "messages.txt"
    file.write_text("claim £9 now\r\n\nhome by 6", encoding="utf-8")
    arguments = ["classify", "--json", "--method", "full"]
    from_file = CliRunner().invoke(cli.main, [*arguments, "--file", str(file)])
    from_stdin = CliRunner().invoke(cli.main, arguments, input=file.read_bytes())
    assert from_file.output == from_stdin.output
    records = [json.loads(line) for line in from_file.output.splitlines()]
    assert [record["text"] for record in records] == ["claim £9 now", "home by 6"]
    for record in records:
        assert sum(record["probabilities"].values()) == pytest.approx(1)
        assert record["probability"] == record["probabilities"][record["label"]]


def test_classify_gives_the_probabilities_of_the_evaluation(inside: Path) -> None:
    rows = pd.read_csv(inside / "reports/evaluation/lora/predictions.csv").head(5)
    result = CliRunner().invoke(cli.main, ["classify", "--json", *rows["text"]])
    records = [json.loads(line) for line in result.output.splitlines()]
    spam = [record["probabilities"]["spam"] for record in records]
    assert spam == pytest.approx(rows["p_spam"].tolist(), abs=1e-6)


def test_classify_by_tfidf_gives_the_probabilities_of_the_baseline(inside: Path) -> None:
    rows = pd.read_csv(inside / "reports/evaluation/tfidf/predictions.csv", keep_default_na=False)
    result = CliRunner().invoke(
        cli.main, ["classify", "--json", "--method", "tfidf", *rows["text"]]
    )
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in result.output.splitlines()]
    assert [answer["label"] for answer in answers] == rows["predicted"].tolist()
    for name in ("ham", "spam"):
        chances = [answer["probabilities"][name] for answer in answers]
        np.testing.assert_allclose(chances, rows[f"p_{name}"], rtol=0, atol=1e-12)


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


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        (["classify", " "], None, "empty text"),
        (["classify", "--file", "missing.txt"], None, "missing.txt"),
        (["classify"], b"ok\ncaf\xe9\n", "standard input:2"),
        (["classify"], b"ok\ncaf\xe9\n", "iconv -f WINDOWS-1252 -t UTF-8 FILE"),
        (["classify"], "caf\xe9".encode("utf-16"), "iconv -f UTF-16 -t UTF-8 FILE"),
        (["classify"], "café\n".encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8 FILE"),
        (["classify", "--method", "nope", "hi"], None, "full, lora"),
    ],
)
def test_classify_refuses_what_it_cannot_read(
    inside: Path, arguments: list[str], stdin: bytes | None, expected: str
) -> None:
    result = CliRunner().invoke(cli.main, arguments, input=stdin)
    assert result.exit_code == 2
    assert expected in result.output


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


def test_check_accepts_good_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(small_params())
    result = CliRunner().invoke(cli.main, ["check"])
    assert (result.exit_code, result.output) == (
        0,
        "params.yaml is in order; methods: full, lora\n",
    )


def test_make_repro_checks_the_parameters_before_dvc_removes_anything() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\nrepro:")[1]
    assert recipe.index("lora-compare check") < recipe.index("dvc repro")


def test_the_command_that_classify_suggests_for_another_encoding_works(
    inside: Path, tmp_path: Path
) -> None:
    for encoding in ("cp1252", "utf-16", "utf-16-le", "utf-16-be"):
        file = tmp_path / f"my {encoding}.txt"
        file.write_bytes("claim £9 café\n".encode(encoding))
        refused = CliRunner().invoke(cli.main, ["classify", "--file", str(file)])
        assert refused.exit_code == 2
        suggested = refused.output.split("next:")[1].strip()
        conversion, _, command = suggested.partition(" | lora-compare ")
        text = subprocess.run(shlex.split(conversion), capture_output=True, check=True).stdout
        result = CliRunner().invoke(cli.main, shlex.split(command), input=text)
        assert result.output.endswith("\tclaim £9 café\n")


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
    return run_stages(folder, "finetune@theirs", "evaluate@theirs", "compare")


def test_an_imported_adapter_is_evaluated_as_any_method(with_import: Path) -> None:
    mine, theirs = (
        pd.read_csv(with_import / f"reports/evaluation/{name}/predictions.csv")
        for name in ("lora", "theirs")
    )
    assert mine["text"].equals(theirs["text"])
    assert mine["p_spam"].tolist() == pytest.approx(theirs["p_spam"].tolist(), abs=1e-5)
    history = pd.read_csv(with_import / "reports/training/theirs/history.csv")
    assert history["step"].tolist() == [0]
    config = json.loads((with_import / "models/theirs/config.json").read_text())
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
    record = method_record(Pipeline(Paths(with_import), params), "theirs", True, True)
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
