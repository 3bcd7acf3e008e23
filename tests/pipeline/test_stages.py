"""What every stage writes, one after the other, in one small project."""

import json
import random
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from lora_compare import cli
from lora_compare.models.tokens import read_examples
from lora_compare.project.checksums import seal
from lora_compare.project.corpus import read_split
from lora_compare.project.files import read_json, sha256
from lora_compare.project.paths import SPLITS, Paths
from small_project import METHODS, run, run_stages, write_settings


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


TOPICS = {
    "ham": "mum train dinner garden football homework birthday lesson kettle holiday",
    "spam": "winner prize loan casino voucher crypto ringtone bonus lottery refund",
}


def test_near_duplicates_stay_in_one_split_and_train_alone_is_cut(tmp_path: Path) -> None:
    folder = write_settings(tmp_path, twins="together", balance="train")
    rows = ["kind,message"]
    for i in range(240):
        kind = "ham" if i % 3 else "spam"
        # Every fourth message repeats the one before but for a number.
        words = random.Random(i - (i % 4 == 3) * 3).choices(TOPICS[kind].split(), k=7)
        rows.append(f"{kind},{' '.join(words)} {i}")
    (folder / "inputs/text/messages.csv").write_text("\n".join(rows) + "\n")
    run_stages(folder, "download", "split", "base_model")
    found = metrics(folder, "split")
    assert {name: part["classes"] for name, part in found["splits"].items()} == {
        "train": {"ham": 56, "spam": 56},
        "validation": {"ham": 16, "spam": 8},
        "test": {"ham": 32, "spam": 16},
        "unused": {"ham": 56, "spam": 0},
    }
    assert found["near_duplicates"]["groups"] > 20
    assert found["test_rows_with_twin_in_train"]["near"] == 0
    stems = {
        name: {text.rpartition(" ")[0] for text in read_split(Paths(folder).split(name))["Text"]}
        for name in ("train", "validation", "test", "unused")
    }
    assert not stems["test"] & (stems["train"] | stems["validation"] | stems["unused"])
    assert not stems["validation"] & (stems["train"] | stems["unused"])
    for name in ("train", "validation", "test"):
        assert len(read_examples(Paths(folder).tokens(name))) == found["splits"][name]["n"]


def test_shares_of_other_classes_than_the_datas_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_settings(tmp_path)
    text = (
        (folder / "params.yaml").read_text().replace("prior: null", "prior: {ham: 0.9, eggs: 0.1}")
    )
    (folder / "params.yaml").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    for result in (run("download"), CliRunner().invoke(cli.main, ["check"])):
        assert result.exit_code == 2
        assert "a share of each of 'ham', 'spam'" in result.output
        assert "no share of 'spam'; no class of the data: 'eggs'" in result.output
        assert "Traceback" not in result.output
    assert not (folder / "data" / "raw" / "messages.tsv").exists()


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
    assert files.keys() >= {"model.safetensors", "tokenizer.json", "SHA256SUMS"}
    for name, content in files.items():
        assert content == (project / "models" / "base" / name).read_bytes(), name
    same = {
        name: (other / file).read_bytes() == (project / file).read_bytes()
        for name in ("train", "validation", "test")
        for file in [f"data/tokens/{name}.safetensors"]
    }
    assert same == {"train": True, "validation": False, "test": False}


def test_the_tokens_of_a_character_stand_beside_the_base_and_on_the_page(project: Path) -> None:
    paths = Paths(project)
    tokens = read_json(paths.tokenization)
    texts = {"ham": "", "spam": ""}
    counts = dict.fromkeys(texts, 0)
    for name in SPLITS:
        split, examples = read_split(paths.split(name)), read_examples(paths.tokens(name))
        for label, text, ids in zip(split["Label"], split["Text"], examples.tokens, strict=True):
            of = list(texts)[label]
            texts[of] += text
            counts[of] += len(ids)
    expected = {of: counts[of] / len(text) for of, text in texts.items()}
    assert tokens["classes"] == pytest.approx(expected)
    assert tokens["warning"] is None
    shown = [f"{value:.2f}" for value in (tokens["tokens_per_character"], *expected.values())]
    page = paths.report("html").read_text(encoding="utf-8")
    cells = "".join(f"<td>{value}</td>" for value in shown)
    assert f'<th scope="row">tokens a character</th>{cells}' in page
    assert f"Tokens a character (gpt2-nano): {shown[0]}, from " in paths.report("md").read_text()


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


@pytest.mark.parametrize("method", METHODS)
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
    nothing = {"train": 0, "validation": 0, "test": 0}
    assert figures["truncated"] == figures["truncated_tokens"] == nothing
    file = project / "models" / method / "seed-123" / "model.safetensors"
    assert figures["artifact_bytes"] == file.stat().st_size
    assert figures["trainable_parameters"] <= figures["total_parameters"]
    cost = metrics(project, f"{method}_cost")
    assert cost["device"] == "cpu"
    assert cost["threads"] == 1
    assert cost["train_seconds"] > 0
    assert cost["peak_memory_bytes"] > 50e6
    assert 0 < cost["step_cpu_seconds_low"] <= cost["step_cpu_seconds"]
    weights = 4 * figures["total_parameters"]
    assert weights <= cost["training_state_bytes_weights"] < cost["training_state_bytes"]
    assert cost["training_state_bytes_gradients"] <= 4 * figures["trainable_parameters"]


def test_the_metrics_agree_with_the_predictions(project: Path) -> None:
    for method in METHODS:
        rows = pd.read_csv(project / f"reports/evaluation/{method}/predictions-123.csv")
        accuracy = (rows["label"] == rows["predicted"]).mean()
        assert metrics(project, method)["test"]["accuracy"] == accuracy
        assert ((rows["p_ham"] + rows["p_spam"] - 1).abs() < 1e-9).all()
        assert (rows["predicted"] == "spam").eq(rows["p_spam"] > rows["p_ham"]).all()


def test_histories_start_equal_and_end_at_the_last_step(project: Path) -> None:
    rows = {m: pd.read_csv(project / f"reports/training/{m}/history.csv") for m in METHODS}
    for history in rows.values():
        assert history["seed"].tolist() == [123] * 4
        assert history["step"].tolist() == [0, 5, 10, 11]
        assert history["epoch"].iloc[-1] == 1.0
    start = ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]
    assert rows["full"].loc[0, start].tolist() == rows["lora"].loc[0, start].tolist()


def test_baseline_holds_the_untuned_model_and_tfidf(project: Path) -> None:
    baseline = metrics(project, "baseline")
    assert baseline["untuned"]["trainable_parameters"] == 0
    assert baseline["tfidf"]["test"]["accuracy"] > 0.9
    history = pd.read_csv(project / "reports/training/full/history.csv")
    assert baseline["untuned"]["test"]["n"] == 24
    assert 0 < history["train_loss"][0] < 2


def test_the_comparison_names_both_methods_and_a_verdict(project: Path) -> None:
    comparison = metrics(project, "comparison")
    assert [record["method"] for record in comparison["methods"]][:2] == ["full", "lora"]
    claims = {"better", "worse", "equivalent", "not worse", "undecided"}
    assert {pair["claim"] for pair in comparison["pairs"]} <= claims
    assert 0 < comparison["reference"]["parameter_ratio"] < 1
    html = (project / "reports/comparison/comparison.html").read_text()
    assert "lora" in html
    assert 'src="http' not in html


def test_where_a_method_ran_stands_beside_its_cost_and_on_the_page(project: Path) -> None:
    paths = Paths(project)
    cost, beside = read_json(paths.cost("lora")), read_json(paths.cost_copy("lora"))
    provenance = read_json(paths.training("lora") / "provenance.json")
    environment = {key: provenance[key] for key in ("device", "platform", "versions")}
    assert beside == {**cost, "environment": environment}
    assert read_json(paths.evaluation("lora"))["versions"]["numpy"] == version("numpy")
    page = paths.report("html").read_text(encoding="utf-8")
    for name in ("torch", "numpy", "safetensors"):
        assert re.search(rf">{name}</th>\s*<td[^>]*>{re.escape(version(name))}<", page), name


def test_the_command_report_writes_the_bytes_of_the_stage(inside: Path) -> None:
    files = [
        p for name in ("reports", "metrics") for p in (inside / name).rglob("*") if p.is_file()
    ]
    before = {path: path.read_bytes() for path in files}
    (inside / "reports/comparison/comparison.html").unlink()
    result = CliRunner().invoke(cli.main, ["report"])
    assert result.exit_code == 0, result.output
    assert {path: path.read_bytes() for path in files} == before


def test_a_second_run_gives_the_same_bytes(inside: Path) -> None:
    files = [
        *(str(p.relative_to(inside)) for p in inside.glob("models/lora/**/*") if p.is_file()),
        "reports/training/lora/history.csv",
        "metrics/lora.json",
        "reports/evaluation/lora/predictions-123.csv",
    ]
    before = {name: (inside / name).read_bytes() for name in files}
    assert run("finetune", "lora").exit_code == 0
    assert run("evaluate", "lora").exit_code == 0
    assert {name: (inside / name).read_bytes() for name in files} == before


def test_every_output_has_a_checksum_that_fits(project: Path) -> None:
    folders = [project / name for name in ("data", "models", "reports")]
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    lists = {path for path in files if path.name == "SHA256SUMS"}
    lines = [(path, *line.split("  ")) for path in lists for line in path.read_text().splitlines()]
    sums = {(path.parent / name).resolve(): known for path, known, name in lines}
    beside = {project / "metrics" / f"{name}.json" for name in ("split", "baseline")}
    inner = {path for path in lists if path.parent.parent.parent == project / "models"}
    assert sums == {path: sha256(path) for path in beside | inner | (files - lists)}


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
