"""The pipeline as its users run it: dvc repro, experiments, the run cache, metrics and plots.

One small project goes through the tests of this file in their order.
"""

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from dvc_runs import PATH, count_runs, dvc, ran
from reproducible import read_lock
from small_project import commit, copy_project, environment

ALL = [
    "download",
    "split",
    "base_model",
    "baseline",
    "tune@full",
    "tune@lora",
    "finetune@full",
    "finetune@lora",
    "evaluate@full",
    "evaluate@lora",
    "compare",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this project in which every stage has run once."""
    copy = copy_project(tmp_path_factory.mktemp("project"))
    assert ran(dvc(copy, "repro")) == ALL
    commit(copy, "results")
    return copy


def test_repro_that_has_run_every_stage_runs_none_again(project: Path) -> None:
    assert ran(dvc(project, "repro")) == []


def test_outputs_are_ignored_by_git_and_metrics_are_not(project: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=project, check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"metrics/full.json", "metrics/lora_cost.json", "metrics/comparison.json"} <= {*tracked}
    assert not [path for path in tracked if path.startswith(("data/", "models/", "reports/"))]
    assert "dvc.lock" in tracked


def test_the_run_cache_restores_everything_without_training(project: Path) -> None:
    before = read_lock(project)
    for folder in ("data", "models", "reports"):
        shutil.rmtree(project / folder)
    (project / "dvc.lock").unlink()
    assert ran(dvc(project, "repro")) == []
    assert read_lock(project) == before
    assert (project / "models/lora/seed-123/model.safetensors").exists()


def test_every_run_is_in_mlflow_once(project: Path) -> None:
    with sqlite3.connect(project / "mlflow.db") as store:
        names = [row[0] for row in store.execute("select name from runs")]
        (experiments,) = store.execute(
            "select count(*) from experiments where name = 'lora-compare'"
        )
    assert experiments == (1,)
    others = [name for name in names if not name.startswith("pipeline")]
    assert sorted(others) == sorted(
        ["download", "split", "base_model", "baseline", "full", "lora", "compare"]
    )
    assert len(names) == len(others) + 1


@pytest.mark.slow
def test_training_is_the_same_without_tracking(project: Path) -> None:
    folder = project / "models" / "lora" / "seed-123"
    before = {p: p.read_bytes() for p in folder.iterdir()}
    runs = count_runs(project)
    output = dvc(project, "repro", "-f", "-s", "finetune@lora", LORA_COMPARE_TRACKING="off")
    assert ran(output) == ["finetune@lora"]
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    assert count_runs(project) == runs
    subprocess.run(["git", "checkout", "-q", "."], cwd=project, check=True)
    dvc(project, "checkout", "-f")


@pytest.mark.slow
def test_a_mistake_in_params_costs_no_training(project: Path) -> None:
    params, outputs = project / "params.yaml", ("reports/tuning/full",)
    good = params.read_text()
    params.write_text(good.replace("epochs: 1", "epochs: one"))
    checked = subprocess.run(
        ["make", "--silent", "--assume-old=.venv/.runtime", "repro"],
        cwd=project,
        env=environment(PATH=PATH),
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 2
    assert "training.epochs" in checked.stderr
    # The check comes before DVC, which deletes a stage's outputs before the stage can refuse.
    assert all((project / path).exists() for path in outputs)

    with pytest.raises(AssertionError, match="comes back with dvc repro"):
        dvc(project, "repro")
    assert not any((project / path).exists() for path in outputs)
    params.write_text(good)
    assert ran(dvc(project, "repro")) == []
    assert all((project / path).exists() for path in outputs)


def test_plots_show_curves_and_confusion_of_every_method(project: Path) -> None:
    plots = json.loads(dvc(project, "plots", "show", "--json").splitlines()[-1])["data"]
    rows = plots["loss"][0]["content"]["data"]["values"]
    assert {row["method"] for row in rows} == {"full", "lora"}
    assert {row["split"] for row in rows} == {"train", "validation"}
    # Points on the lines would replace the dashes in the legend, and hide which split is which.
    marks = [layer["mark"] for layer in plots["loss"][0]["content"]["spec"]["layer"]]
    assert [mark["type"] for mark in marks] == ["area", "line"]
    assert "point" not in marks[1]
    # Metrics files that DVC may not list as metrics are there too, with nothing to draw.
    assert {name for name in plots if plots[name]} == {"loss", "accuracy", "confusion"}
    confusion = plots["confusion"][0]["content"]
    assert {facet["field"] for facet in confusion["facet"].values()} == {"rev", "method"}
    axes = confusion["spec"]["encoding"]
    assert (axes["x"]["field"], axes["y"]["field"]) == ("predicted", "label")
    rows = confusion["data"]["values"]
    assert {row["method"] for row in rows} == {"full", "lora", "tfidf", "untuned"}
    assert {row["label"] for row in rows} == {"ham", "spam"}
