"""Few messages in folds, through all stages: each is tested once, by models new to it."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.metrics import accuracy_score

from grouped_messages import make_customers
from lora_compare import cli
from lora_compare.models.base import load_base, read_description
from lora_compare.models.methods import load_method
from lora_compare.project.corpus import FOLD, read_split
from lora_compare.project.paths import SPLITS, Paths
from lora_compare.project.seeds import base_of, read_seeds
from small_project import STAGES, make_project, run_stages, write_settings

pytestmark = pytest.mark.slow

SEEDS = [5, 6, 7]
SETTINGS = {
    "folds": len(SEEDS),
    "seeds": str(SEEDS),
    "train": "null",
    "validation": 0.2,
    "source": "inputs/text/tickets.csv",
    "text_column": "text",
    "label_column": "label",
    "group_column": "group",
    "twins": "together",
    "balance": "none",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A project of customers' messages after all stages, in three folds."""
    folder = write_settings(tmp_path_factory.mktemp("folds"), **SETTINGS)
    messages = make_customers(90, classes=("delivery", "invoice")).drop(columns="time")
    messages["text"] = messages["label"].str.upper() + " " + messages["text"]
    messages.to_csv(folder / "inputs" / "text" / "tickets.csv", index=False)
    return Paths(run_stages(folder, *STAGES))


def predictions(paths: Paths, name: str, seeds: list[int] | None = None) -> pd.DataFrame:
    files = [paths.predictions(name, seed) for seed in seeds or [None]]
    return pd.concat([pd.read_csv(file) for file in files], ignore_index=True)


def test_every_message_is_tested_once_by_methods_and_baselines_alike(project: Paths) -> None:
    messages = pd.read_csv(project.root / "inputs" / "text" / "tickets.csv")
    test = read_split(project.split("test"))
    assert Counter(test["Text"]) == Counter(messages["text"])
    for name in ("full", "lora"):
        assert predictions(project, name, SEEDS)["text"].tolist() == test["Text"]
    for name in ("tfidf", "untuned"):
        assert predictions(project, name)["text"].tolist() == test["Text"]


def test_what_a_fold_tests_no_model_of_it_has_seen(project: Paths) -> None:
    hashes = set()
    for fold in range(1, len(SEEDS) + 1):
        parts = {n: read_split(project.split(n), fold) for n in (*SPLITS, "unused")}
        groups = {n: {*part["Group"]} for n, part in parts.items()}
        assert not groups["test"] & (groups["train"] | groups["validation"] | groups["unused"])
        hashes.add(read_description(project.base_of(fold))["sha256"])
    assert len(hashes) == len(SEEDS)


def test_a_model_answers_as_its_predictions_say(project: Paths) -> None:
    seeds = read_seeds(project.model("lora"))
    assert seeds.in_folds
    assert seeds.chosen == SEEDS[0]
    for seed in SEEDS:
        base = load_base(base_of(project, "lora", seed))
        model = load_method(project.trained("lora", seed), base, "finetune@lora")
        rows = pd.read_csv(project.predictions("lora", seed)).head(20)
        chances = model.probabilities(rows["text"].tolist())
        columns = [f"p_{name}" for name in model.classes]
        np.testing.assert_allclose(chances, rows[columns], atol=1e-5)


def test_figures_and_verdict_are_of_all_messages(project: Paths) -> None:
    rows = predictions(project, "lora", SEEDS)
    metrics = json.loads(project.metrics("lora").read_text())
    right = accuracy_score(rows["label"], rows["predicted"])
    assert metrics["test"]["accuracy"] == pytest.approx(right)
    assert metrics["test"]["n"] == len(rows)
    comparison = json.loads(project.metrics("comparison").read_text())
    (pair, baseline) = comparison["pairs"]
    full = predictions(project, "full", SEEDS)
    assert pair["difference"] == pytest.approx(
        right - accuracy_score(full["label"], full["predicted"])
    )
    assert (pair["folds"], baseline["folds"], len(pair["per_seed"])) == (3, 3, 3)
    split = json.loads(project.metrics("split").read_text())
    learnt = np.mean([own["train"] for own in split["folds"].values()]) / len(rows)
    assert comparison["trained_on"] == pytest.approx(learnt)
    assert "each tested once in 3 folds" in comparison["headline"][0]
    assert "folds" in [caution["key"] for caution in comparison["cautions"]]
    page = project.report("html").read_text(encoding="utf-8")
    assert "standard deviation over the folds" in page
    assert "3 folds: every message is tested once" in project.report("md").read_text()
    answers = pd.read_csv(project.answers)
    folds = Counter(read_split(project.split("test"))[FOLD])
    counts = answers[answers["method"] == "lora"].groupby("seed").size()
    assert counts.to_dict() == {float(s): folds[f] for f, s in enumerate(SEEDS, start=1)}


def test_any_folds_model_classifies_and_is_exported_on_its_own_base(
    project: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(project.root)
    for seed in (None, SEEDS[2]):
        chosen = [] if seed is None else ["--seed", str(seed)]
        done = CliRunner().invoke(cli.main, ["classify", "--method", "lora", *chosen, "DELIVERY"])
        assert done.exit_code == 0, done.output
        folder = str(tmp_path / f"export{seed}")
        arguments = ["export", "--method", "lora", "--format", "peft", *chosen, "--output", folder]
        done = CliRunner().invoke(cli.main, arguments)
        assert done.exit_code == 0, done.output


def test_folds_that_are_gone_leave_no_base_behind(tmp_path: Path) -> None:
    stages = ("download", "split", "base_model")
    paths = Paths(
        make_project(tmp_path, *stages, folds=3, train="null", seeds="[1, 2, 3]", balance="none")
    )
    assert paths.base_of(3).name == "fold-3"
    write_settings(tmp_path)
    run_stages(tmp_path, *stages)
    assert paths.base_of(3) == paths.base
    assert {path.name for path in paths.base.iterdir()} == {
        *("SHA256SUMS", "config.json", "model.safetensors", "tokenizer.json")
    }
