"""Temperature, prior, threshold and costs from params.yaml to report, classify and served model."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from lora_compare import cli
from lora_compare.models.answers.decision import FILE
from lora_compare.project.paths import Paths
from lora_compare.serving.bundles import bundles
from lora_compare.serving.classifiers import load_classifiers
from lora_compare.tracking.records import METHOD_TAG
from lora_compare.tracking.runs import METHOD, RunRecord
from small_project import METHODS, run_stages

RULES = {
    "prior: null": "prior: {ham: 0.8, spam: 0.2}",
    "threshold: argmax": "threshold: cost",
    "temperature: false": "temperature: true",
    "costs: null": "costs: {ham: {spam: 10}}",
}
STAGES = ["baseline", *(f"evaluate@{method}" for method in METHODS), "compare"]


@pytest.fixture(scope="module")
def decided(trained_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose models were trained without rules, and evaluated and compared with some."""
    folder = tmp_path_factory.mktemp("decided") / "project"
    shutil.copytree(trained_project, folder)
    with_rules(folder, RULES)
    return run_stages(folder, *STAGES)


def with_rules(folder: Path, rules: dict[str, str]) -> None:
    text = (folder / "params.yaml").read_text()
    for old, new in rules.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "params.yaml").write_text(text)


def invoke(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> Any:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    return CliRunner().invoke(cli.main, [*arguments])


def test_metrics_predictions_and_report_have_what_was_chosen(decided: Path) -> None:
    paths = Paths(decided)
    metrics = json.loads(paths.metrics("lora").read_text())
    assert len(metrics["decision"]["threshold"]) == 1
    assert metrics["decision"]["shift"] == pytest.approx([0.47, -0.916], abs=0.01)
    assert set(metrics["before"]) == {"validation", "test"}
    assert "expected_cost" in metrics["test"]
    decision = json.loads(paths.decision("lora", 123).read_text())
    assert decision["positive"] == "spam"
    with paths.predictions("lora", 123).open(newline="") as file:
        rows = list(csv.DictReader(file))
    threshold = metrics["decision"]["threshold"][0]
    for row in rows:
        assert row["predicted"] == ("spam" if float(row["p_spam"]) > threshold else "ham")
    comparison = json.loads(paths.metrics("comparison").read_text())
    assert [pair["a"] for pair in comparison["cost_pairs"]] == ["lora", "tfidf"]
    assert "in 100 messages" in comparison["headline"][0]
    page, markdown = (paths.report(kind).read_text() for kind in ("html", "md"))
    for text in (page, markdown):
        assert "What was chosen on validation" in text
    assert 'id="costs"' in page
    assert (paths.plots / "precision.svg").is_file()


def test_classify_answers_by_the_threshold(decided: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(decided)
    for method, seed in (("lora", 123), ("tfidf", None)):
        with paths.predictions(method, seed).open(newline="") as file:
            rows = list(csv.DictReader(file))[:12]
        texts = [row["text"] for row in rows]
        result = invoke(monkeypatch, decided, "classify", "--json", "--method", method, *texts)
        answers = [json.loads(line) for line in result.output.splitlines()]
        assert [a["label"] for a in answers] == [row["predicted"] for row in rows]
        chances = [a["probabilities"]["spam"] for a in answers]
        assert chances == pytest.approx([float(row["p_spam"]) for row in rows], abs=1e-6)


def test_a_served_model_brings_its_decision(decided: Path, tmp_path: Path) -> None:
    paths, text = Paths(decided), "WINNER no 7, claim now"
    params = {"data.source": "messages.csv", "model.name": "gpt2-nano"}
    record = RunRecord("k", "lora", METHOD, "", params, (), {METHOD_TAG: "lora"})
    (bundle,) = bundles(paths, [record])
    for target, source in bundle.files.items():
        (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, tmp_path / target)
    assert (tmp_path / "lora" / FILE).read_bytes() == paths.decision("lora", 123).read_bytes()
    served = load_classifiers(tmp_path / "base", {"lora": tmp_path / "lora"}, torch.device("cpu"))
    (answer,) = served.answer([text], "lora")
    decision = served.choose("lora").decision
    assert decision.chance is not None
    assert (answer.label == "spam") is (answer.probabilities["spam"] > decision.chance)
    # Another decision is another version of the model.
    decision_file = paths.decision("lora", 123)
    kept = decision_file.read_bytes()
    decision_file.write_bytes(kept.replace(b"temperature", b"temperature "))
    (changed,) = bundles(paths, [record])
    decision_file.write_bytes(kept)
    assert changed.key != bundle.key


def test_a_method_that_was_not_evaluated_by_the_rules_is_refused(
    trained_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(trained_project, folder)
    with_rules(folder, {"temperature: false": "temperature: true"})
    for arguments in (
        ("classify", "hello you"),
        ("classify", "--method", "tfidf", "hello you"),
        ("export", "--format", "merged"),
    ):
        result = invoke(monkeypatch, folder, *arguments)
        assert result.exit_code == 2
        stage = "baseline" if "tfidf" in arguments else "evaluate@lora"
        assert f"dvc repro {stage}" in result.output
        assert "Traceback" not in result.output


def test_a_decision_of_other_weights_is_refused(
    decided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(decided, folder)
    shutil.rmtree(folder / "models" / "lora")
    shutil.copytree(folder / "models" / "full", folder / "models" / "lora")
    result = invoke(monkeypatch, folder, "classify", "--method", "lora", "hello you")
    assert result.exit_code == 2
    assert "chosen for other weights" in result.output
    assert "dvc repro evaluate@lora" in result.output
