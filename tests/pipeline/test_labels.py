"""Messages with several labels, from a file to verdict, answers, exports and a served model."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from faults.commands import refusal, run, succeed
from labelled_messages import SAID, make_messages, write_jsonl
from lora_compare.evaluation.tfidf import load_tfidf
from lora_compare.models.base import load_base
from lora_compare.models.classifier import TextClassifier
from lora_compare.models.methods import load_method
from lora_compare.project.files import read_json
from lora_compare.project.paths import TFIDF, Paths
from lora_compare.serving.classifiers import load_classifiers
from lora_compare.tracking.figures import evaluation
from small_project import STAGES, run_stages, write_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TEXTS = ["the lamp came broken, please refund", "hello there"]
COLUMNS = {
    "text_column": "text",
    "label_column": "topics",
    "balance": "none",
    "train": 0.6,
    "validation": 0.2,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of a CSV with a separator, after all stages."""
    folder = tmp_path_factory.mktemp("labels")
    source = "inputs/text/topics.csv"
    settings = {**COLUMNS, "labels_separator": '";"', "seeds": "[1, 2, 3]", "metric": "jaccard"}
    write_settings(folder, source=source, **settings)
    with (folder / source).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["topics", "text"])
        rows.writerows(["; ".join(labels), text] for labels, text in make_messages(240))
    return run_stages(folder, *STAGES)


def method(folder: Path, seed: int = 1) -> TextClassifier:
    paths = Paths(folder)
    return load_method(paths.trained("full", seed), load_base(paths.base))


def test_every_figure_is_that_of_the_predictions_by_scikit_learn(project: Path) -> None:
    metrics = read_json(project / "metrics" / "full.json")
    frames = [
        pd.read_csv(project / f"reports/evaluation/full/predictions-{seed}.csv")
        for seed in (1, 2, 3)
    ]
    names = sorted(SAID)
    found = {"accuracy": [], "micro_f1": [], "macro_f1": [], "jaccard": []}
    for seed, frame in zip((1, 2, 3), frames, strict=True):
        truth, given = (
            np.array([[name in json.loads(cell) for name in names] for cell in frame[column]])
            for column in ("label", "predicted")
        )
        thresholds = read_json(project / f"models/full/seed-{seed}/config.json")["thresholds"]
        chances = frame[[f"p_{name}" for name in names]].to_numpy()
        assert (given == (chances >= [thresholds[name] for name in names])).all()
        found["accuracy"].append(sk.accuracy_score(truth, given))
        found["jaccard"].append(
            sk.jaccard_score(truth, given, average="samples", zero_division=1.0)
        )
        for average in ("micro", "macro"):
            found[f"{average}_f1"].append(sk.f1_score(truth, given, average=average))
    for name, values in found.items():
        assert metrics["test"][name] == pytest.approx(np.mean(values))
    comparison = read_json(project / "metrics" / "comparison.json")
    assert comparison["metric"] == "jaccard"
    pair = next(p for p in comparison["pairs"] if p["a"] == "lora")
    assert pair["value_b"] == pytest.approx(metrics["test"]["jaccard"])
    assert comparison["several_labels"]


def test_the_report_names_labels_and_combinations(project: Path) -> None:
    page = (project / "reports/comparison/comparison.html").read_text(encoding="utf-8")
    assert "Figures of each label on the test messages" in page
    assert "combinations of labels" in page
    assert "one class" in page
    assert "&#34;]" not in page, "labels stand as words, not as files have them"
    written = (project / "reports/comparison/comparison.md").read_text(encoding="utf-8")
    for title in ("Jaccard index", "accuracy", "micro-F1", "macro-F1"):
        assert f"test {title}" in written
    answers = pd.read_csv(project / "reports/comparison/test_answers.csv", keep_default_na=False)
    assert "(none)" in set(answers["label"])
    assert "Jaccard" in succeed(project, "summary")


@pytest.mark.parametrize("name", ["full", TFIDF])
def test_classify_and_serving_answer_with_labels(project: Path, name: str) -> None:
    paths = Paths(project)
    classifier = method(project, read_json(paths.model("full") / "seeds.json")["chosen"])
    own = load_tfidf(paths.model(TFIDF)) if name == TFIDF else classifier
    rows = own.probabilities(TEXTS)
    given = own.targets.answers(rows)
    lines = succeed(project, "classify", "--method", name, "--json", *TEXTS).splitlines()
    for line, row, answer in zip(map(json.loads, lines), rows, given, strict=True):
        assert line["labels"] == [c for c, there in zip(own.classes, answer, strict=True) if there]
        assert [*line["probabilities"].values()] == pytest.approx(row, rel=1e-5)
    shown = succeed(project, "classify", "--method", name, TEXTS[0]).split("\t")[0]
    assert shown == (", ".join(json.loads(lines[0])["labels"]) or "(none)")
    served = load_classifiers(
        paths.base, {name: paths.model(TFIDF) if name == TFIDF else paths.trained("full", 1)}, "cpu"
    ).answer(TEXTS, name)
    assert {*json.loads(served[0].label)} <= {*SAID}
    assert {*served[0].probabilities} == {*SAID}


def test_an_export_gives_transformers_pipeline_the_same_answers(project: Path) -> None:
    pytest.importorskip("transformers")
    said = succeed(project, "export", "--method", "full", "--seed", "1", "--format", "merged")
    config = read_json(project / "exports/full-seed-1-merged/config.json")
    assert config["problem_type"] == "multi_label_classification"
    own = method(project)
    lines = said[said.index("from transformers") :]
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        exec(compile(lines, "printed", "exec"), names)
        scores = names["classify"](TEXTS, top_k=None, truncation=True)
    rows = own.probabilities(TEXTS)
    thresholds = names["thresholds"]
    for found, row, answer in zip(scores, rows, own.targets.answers(rows), strict=True):
        by_name = {one["label"]: one["score"] for one in found}
        assert [by_name[name] for name in own.classes] == pytest.approx(row, abs=1e-5)
        given = [by_name[name] >= thresholds[name] for name in own.classes]
        assert given == [bool(there) for there in answer]


def test_the_lines_of_the_baselines_export_run(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = succeed(project, "export", "--method", TFIDF, "--format", "sklearn")
    lines = said[said.index("import json") :]
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        exec(compile(lines, "printed", "exec"), names)
    capsys.readouterr()
    own = load_tfidf(Paths(project).model(TFIDF))
    logits = names["model"].decision_function(TEXTS)
    assert 1 / (1 + np.exp(-logits)) == pytest.approx(own.probabilities(TEXTS), rel=1e-9)


def test_mlflow_gets_the_figures_of_several_labels(project: Path) -> None:
    keys = {point.key for point in evaluation(read_json(project / "metrics" / "full.json"))}
    assert {"test/jaccard", "test/micro_f1", "test/macro_f1", "test/hamming_loss"} <= keys


def test_lists_and_a_base_of_transformers_set_up_for_several_labels(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tiny_models import make_model

    model, source = "inputs/models/tiny", "inputs/text/topics.jsonl"
    settings = {**COLUMNS, "source": source, "name": model, "epochs": 2}
    write_settings(tmp_path, **settings)
    params = tmp_path / "params.yaml"
    params.write_text(re.sub("target_modules: .*", "target_modules: default", params.read_text()))
    messages = make_messages(120)
    write_jsonl(tmp_path / source, messages)
    problem = {"problem_type": "multi_label_classification"}
    make_model(tmp_path / model, "bert", [text for _, text in messages], **problem)
    succeed(tmp_path, "check")
    run_stages(tmp_path, *STAGES)
    succeed(tmp_path, "export", "--method", "lora", "--format", "merged")
    config = read_json(tmp_path / "exports/lora-merged/config.json")
    assert config["problem_type"] == "multi_label_classification"
    assert sorted(config["label2id"]) == sorted(SAID)
    assert run(tmp_path, "export", "--method", "lora", "--format", "peft").exit_code == 0

    write_settings(tmp_path, name=model)  # one class a message again
    assert "another problem than one label a text" in refusal(tmp_path, "check")
