"""Every stage as its command, one after the other, in one small project."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from lora_compare import cli
from lora_compare.params import load_params
from lora_compare.project.checksums import seal
from lora_compare.project.files import read_json, sha256
from lora_compare.project.lineage import Pipeline
from lora_compare.project.paths import Paths
from lora_compare.tracking.records import method_record
from small_project import ROOT, small_params
from stage_commands import make_project, run


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    methods = [f"{stage}@{m}" for m in ("full", "lora") for stage in ("finetune", "evaluate")]
    stages = ["download", "split", "base_model", "baseline", *methods, "compare"]
    return make_project(tmp_path_factory.mktemp("project with ünicode"), *stages)


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    return project


def metrics(project: Path, name: str) -> dict:
    return json.loads((project / "metrics" / f"{name}.json").read_text())


def test_split_writes_disjoint_balanced_splits(project: Path) -> None:
    frames = {
        name: pd.read_csv(project / f"data/splits/{name}.csv")
        for name in ("train", "validation", "test", "unused")
    }
    assert {n: len(f) for n, f in frames.items()} == {
        "train": 84,
        "validation": 12,
        "test": 24,
        "unused": 60,
    }
    assert frames["train"]["Label"].value_counts().tolist() == [42, 42]
    texts = pd.concat(list(frames.values()))["Text"]
    assert texts.is_unique
    assert len(texts) == 180


def test_the_base_model_learns_nothing_from_what_it_is_evaluated_on(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    for name in ("data", "inputs"):
        shutil.copytree(project / name, other / name)
    shutil.copy(project / "params.yaml", other)
    for name in ("validation", "test"):
        split = other / "data" / "splits" / f"{name}.csv"
        split.write_text(split.read_text() + "0,another text that nobody has read before\n")
        seal(split.parent)
    monkeypatch.chdir(other)
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    assert run("base_model").exit_code == 0
    files = {path.name: path.read_bytes() for path in (other / "models" / "base").iterdir()}
    assert files.keys() >= {"model.safetensors", "tokenizer.json", "provenance.json", "SHA256SUMS"}
    for name, content in files.items():
        assert content == (project / "models" / "base" / name).read_bytes(), name
    same = {
        name: (other / file).read_bytes() == (project / file).read_bytes()
        for name in ("train", "validation", "test")
        for file in [f"data/tokens/{name}.safetensors"]
    }
    assert same == {"train": True, "validation": False, "test": False}


def test_tokens_of_another_split_stop_an_evaluation(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(project, tmp_path / "other")
    split = other / "data" / "splits" / "test.csv"
    split.write_text(split.read_text() + "0,another text\n")
    seal(split.parent)
    monkeypatch.chdir(other)
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    for stage in (["baseline"], ["evaluate", "full"]):
        result = run(*stage)
        assert result.exit_code == 2
        assert "dvc repro --force base_model" in result.output


@pytest.mark.parametrize("method", ["full", "lora"])
def test_every_method_has_every_figure(project: Path, method: str) -> None:
    figures = metrics(project, method)
    for split in ("train", "validation", "test"):
        assert {
            "accuracy",
            "accuracy_ci95",
            "n",
            "f1",
            "precision",
            "recall",
            "auroc",
            "average_precision",
            "log_loss",
            "brier",
            "ece",
            "confusion_matrix",
        } <= figures[split].keys()
        low, high = figures[split]["accuracy_ci95"]
        assert low <= figures[split]["accuracy"] <= high
    assert figures["truncated"] == {"train": 0, "validation": 0, "test": 0}
    file = project / "models" / method / "model.safetensors"
    assert figures["artifact_bytes"] == file.stat().st_size
    assert figures["trainable_parameters"] <= figures["total_parameters"]
    cost = metrics(project, f"{method}_cost")
    assert cost["device"] == "cpu"
    assert cost["threads"] == 1
    assert cost["train_seconds"] > 0
    assert cost["peak_memory_bytes"] > 50e6


def test_the_metrics_agree_with_the_predictions(project: Path) -> None:
    for method in ("full", "lora"):
        rows = pd.read_csv(project / f"reports/predictions/{method}.csv")
        accuracy = (rows["label"] == rows["predicted"]).mean()
        assert metrics(project, method)["test"]["accuracy"] == accuracy
        assert ((rows["p_ham"] + rows["p_spam"] - 1).abs() < 1e-9).all()
        assert (rows["predicted"] == "spam").eq(rows["p_spam"] > rows["p_ham"]).all()


def test_histories_start_equal_and_end_at_the_last_step(project: Path) -> None:
    rows = {m: pd.read_csv(project / f"reports/history/{m}.csv") for m in ("full", "lora")}
    for history in rows.values():
        assert history["step"].tolist() == [0, 5, 10, 11]
        assert history["epoch"].iloc[-1] == 1.0
    start = ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]
    assert rows["full"].loc[0, start].tolist() == rows["lora"].loc[0, start].tolist()


def test_baseline_holds_the_untuned_model_and_tfidf(project: Path) -> None:
    baseline = metrics(project, "baseline")
    assert baseline["untuned"]["trainable_parameters"] == 0
    assert baseline["tfidf"]["test"]["accuracy"] > 0.9
    history = pd.read_csv(project / "reports/history/full.csv")
    assert baseline["untuned"]["test"]["n"] == 24
    assert 0 < history["train_loss"][0] < 2


def test_the_comparison_names_both_methods_and_a_verdict(project: Path) -> None:
    comparison = metrics(project, "comparison")
    assert [record["method"] for record in comparison["methods"]][:2] == ["full", "lora"]
    verdicts = {"A better", "B better", "no evidence of a difference"}
    assert {pair["verdict"] for pair in comparison["pairs"]} <= verdicts
    assert 0 < comparison["reference"]["parameter_ratio"] < 1
    html = (project / "reports/comparison.html").read_text()
    assert "lora" in html
    assert 'src="http' not in html


def test_where_a_method_ran_stands_beside_its_cost_and_on_the_page(project: Path) -> None:
    paths = Paths(project)
    cost, beside = read_json(paths.cost("lora")), read_json(paths.cost_copy("lora"))
    provenance = read_json(paths.model("lora") / "provenance.json")
    environment = {key: provenance[key] for key in ("device", "platform", "versions")}
    assert beside == {**cost, "environment": environment}
    assert read_json(paths.evaluation("lora"))["versions"]["scikit-learn"] == version(
        "scikit-learn"
    )
    page = paths.report("html").read_text(encoding="utf-8")
    for name in ("torch", "numpy", "safetensors", "scikit-learn"):
        assert re.search(rf">{name}</th>\s*<td[^>]*>{re.escape(version(name))}<", page), name


def test_the_command_report_writes_the_bytes_of_the_stage(inside: Path) -> None:
    files = [
        p for name in ("reports", "metrics") for p in (inside / name).rglob("*") if p.is_file()
    ]
    before = {path: path.read_bytes() for path in files}
    (inside / "reports" / "comparison.html").unlink()
    result = CliRunner().invoke(cli.main, ["report"])
    assert result.exit_code == 0, result.output
    assert {path: path.read_bytes() for path in files} == before


def test_a_second_run_gives_the_same_bytes(inside: Path) -> None:
    files = [
        *(f"models/lora/{path.name}" for path in (inside / "models/lora").iterdir()),
        "reports/history/lora.csv",
        "metrics/lora.json",
        "reports/predictions/lora.csv",
    ]
    before = {name: (inside / name).read_bytes() for name in files}
    assert run("finetune", "lora").exit_code == 0
    assert run("evaluate", "lora").exit_code == 0
    assert {name: (inside / name).read_bytes() for name in files} == before


def test_every_output_has_a_checksum_that_fits(project: Path) -> None:
    folders = [project / name for name in ("data", "models", "reports")]
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    lists = {path for path in files if path.name.endswith((".sha256", "SHA256SUMS"))}
    lines = [(path, *line.split("  ")) for path in lists for line in path.read_text().splitlines()]
    sums = {path.with_name(name): known for path, known, name in lines}
    assert sums == {path: sha256(path) for path in files - lists}


def test_training_does_not_read_the_test_split(inside: Path) -> None:
    test = inside / "data/splits/test.csv"
    content = test.read_bytes()
    test.unlink()
    try:
        assert run("finetune", "lora").exit_code == 0
        result = run("evaluate", "lora")
    finally:
        test.write_bytes(content)
    assert result.exit_code == 2
    assert "dvc repro split" in result.output


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
    rows = pd.read_csv(inside / "reports/predictions/lora.csv").head(5)
    result = CliRunner().invoke(cli.main, ["classify", "--json", *rows["text"]])
    records = [json.loads(line) for line in result.output.splitlines()]
    spam = [record["probabilities"]["spam"] for record in records]
    assert spam == pytest.approx(rows["p_spam"].tolist(), abs=1e-6)


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
        "stages: {compare: {outs: [{path: reports/gone.md, md5: 7}]}}"
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
        patch.setenv("LORA_COMPARE_TRACKING", "off")
        for arguments in (
            ["export", "--format", "peft"],
            ["import", "exports/lora-peft", "--name", "theirs"],
        ):
            result = CliRunner().invoke(cli.main, arguments)
            assert result.exit_code == 0, result.output + repr(result.exception)
        for stage, *method in (("finetune", "theirs"), ("evaluate", "theirs"), ("compare",)):
            result = run(stage, *method)
            assert result.exit_code == 0, result.output + repr(result.exception)
    return folder


def test_an_imported_adapter_is_evaluated_as_any_method(with_import: Path) -> None:
    mine, theirs = (
        pd.read_csv(with_import / f"reports/predictions/{name}.csv") for name in ("lora", "theirs")
    )
    assert mine["text"].equals(theirs["text"])
    assert mine["p_spam"].tolist() == pytest.approx(theirs["p_spam"].tolist(), abs=1e-5)
    history = pd.read_csv(with_import / "reports/history/theirs.csv")
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
    report = (with_import / "reports/comparison.md").read_text()
    results, *_ = (line for line in report.splitlines() if line.startswith("| theirs | "))
    assert results.count("n/a") == 2  # time and memory
    assert "theirs" in (with_import / "reports/plots/loss.svg").read_text()
    assert "theirs" in (with_import / "reports/comparison.html").read_text()
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
