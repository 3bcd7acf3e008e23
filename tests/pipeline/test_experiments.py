"""Experiments as DVC's users run them: queued, in copies of the project, side by side."""

import csv
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dvc_runs import dvc, queue_workers, ran, run
from small_project import ROOT, commit, environment

pytestmark = pytest.mark.timeout(900)

PARENT = "mlflow.parentRunId"
RANKS = {"rank-1": 1, "rank-2": 8}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, results: Path) -> Path:
    """A project in which two ranks have been queued and run, two at a time."""
    folder = tmp_path_factory.mktemp("experiments") / "project"
    shutil.copytree(results, folder, symlinks=True)
    dvc(folder, "exp", "run", "--queue", "--name", "rank", "-S", "methods.lora.lora.r=1,8")
    assert dvc(folder, "queue", "status").count("Queued") == 2
    with queue_workers(folder, jobs=2):
        assert dvc(folder, "queue", "status").count("Success") == 2
    return folder


def read_json(output: str) -> Any:
    return json.loads(output.splitlines()[-1])


def runs(project: Path) -> dict[str, dict[str, str]]:
    """The tags of every run in MLflow, by its name; the name of the run above it is one."""
    with sqlite3.connect(project / "mlflow.db") as store:
        names = dict(store.execute("select run_uuid, name from runs"))
        tags = store.execute("select run_uuid, key, value from tags").fetchall()
    assert len({*names.values()}) == len(names)
    return {n: {k: names.get(v, v) for u, k, v in tags if u == uuid} for uuid, n in names.items()}


@pytest.mark.slow
def test_queued_experiments_run_from_a_clean_tree_and_leave_it_clean(project: Path) -> None:
    status = ["git", "status", "--porcelain"]
    done = subprocess.run(status, cwd=project, check=True, capture_output=True, text=True)
    assert done.stdout == ""
    assert list((project / ".dvc" / "tmp" / "exps").glob("tmp*")) == []
    log = dvc(project, "queue", "logs", "rank-1")
    assert ran(log) == ["tune@lora", "finetune@lora", "evaluate@lora", "compare"]
    assert "warning" not in log.lower()


@pytest.mark.slow
def test_their_runs_are_in_the_projects_store_under_their_names(project: Path) -> None:
    shown = runs(project)
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=project, text=True).strip()
    for name in RANKS:
        lora = shown[f"lora ({name})"]
        assert lora["dvc.experiment"] == name
        assert lora["mlflow.source.git.commit"] == head
        assert shown[f"pipeline messages gpt2-nano ({name})"]["dvc.experiment"] == name
    # What no rank changes was computed once, and is no experiment's.
    assert {"full", "lora", "baseline", "split", "download"} <= shown.keys()
    assert not [name for name in shown if name.startswith(("full (", "baseline ("))]


@pytest.mark.slow
def test_exp_show_puts_the_methods_side_by_side(project: Path) -> None:
    rows = list(csv.DictReader(dvc(project, "exp", "show", "--csv").splitlines()))
    experiments = {row["Experiment"]: row for row in rows if row["Experiment"] in RANKS}
    assert experiments.keys() == RANKS.keys()
    figures = [
        *("accuracy.full", "accuracy.lora", "accuracy.tfidf"),
        *("validation.full", "validation.lora", "parameters.full", "parameters.lora"),
    ]
    columns = list(rows[0])
    start = columns.index(figures[0])
    assert columns[start : start + len(figures)] == figures
    # Then the scalars of the comparison with what is recommended and why it holds (margin, prior),
    # then the settings: there are no other metrics.
    assert columns.index("data.source") <= start + len(figures) + 28
    for name, rank in RANKS.items():
        row = experiments[name]
        assert row["methods.lora.lora.r"] == str(rank)
        assert int(row["parameters.lora"]) * 4 == int(rows[0]["parameters.lora"]) * rank


@pytest.mark.slow
def test_the_table_of_what_differs_fits_a_terminal(project: Path) -> None:
    # Not to a terminal, which the pager would fill without end.
    command = ["make", "--silent", "--assume-old=.venv/.runtime", "experiments"]
    table = run(project, *command, COLUMNS="132")
    header = next(line for line in table.splitlines() if "Experiment" in line)
    shown = ["accuracy.full", "accuracy.lora", "accuracy.tfidf", "methods.lora.lora.r"]
    assert [name for name in shown if name in header] == shown
    assert "…" not in table
    assert "data.source" not in table


@pytest.mark.slow
def test_metrics_and_plots_compare_two_experiments(project: Path) -> None:
    diff = read_json(dvc(project, "metrics", "diff", "--json", *RANKS))
    assert diff["metrics/summary.json"]["parameters.lora"]["diff"] > 0
    assert not [key for key in diff["metrics/summary.json"] if key.endswith(".full")]
    plots = read_json(dvc(project, "plots", "diff", "--json", *RANKS))
    assert "errors" not in plots
    for name in ("loss", "accuracy", "confusion"):
        drawn = plots["data"][name][0]["content"]
        assert {row["rev"] for row in drawn["data"]["values"]} == {*RANKS}
        assert '"field": "rev"' in json.dumps(drawn["facet"])
    dvc(project, "plots", "diff", *RANKS, "--out", "page")
    page = (project / "page" / "index.html").read_text()
    assert all(page.count(f'"rev": "{name}"') > 2 for name in RANKS)
    shutil.rmtree(project / "page")


@pytest.mark.slow
def test_what_the_extension_for_vs_code_asks_for_is_answered(project: Path) -> None:
    shown = read_json(dvc(project, "exp", "show", "--json"))
    assert not [error for row in shown if (error := row["error"])]
    metrics = [row["data"]["metrics"] for row in shown]
    small = {"metrics/summary.json", "metrics/comparison.json"}
    assert all(files.keys() == small for files in metrics)
    status = read_json(dvc(project, "data", "status", "--granular", "--unchanged", "--json"))
    assert not {"committed", "uncommitted", "not_in_cache"} & status.keys()
    ask = ["plots", "diff", *RANKS, "--split", "--json", "--out", ".dvc/tmp/plots"]
    plots = read_json(dvc(project, *ask))
    assert "errors" not in plots
    for name in ("loss", "accuracy", "confusion"):
        (plot,) = plots["data"][name]
        assert {*plot["revisions"]} == {*RANKS}
        # The extension fills in data and title itself.
        assert {"<DVC_METRIC_DATA>", "<DVC_METRIC_TITLE>"} <= plot["anchor_definitions"].keys()


@pytest.mark.slow
def test_an_experiment_becomes_a_branch_or_the_working_tree(project: Path) -> None:
    dvc(project, "exp", "branch", "rank-2", "rank-eight")
    text = subprocess.check_output(
        ["git", "show", "rank-eight:params.yaml"], cwd=project, text=True
    )
    assert "r: 8\n" in text
    dvc(project, "exp", "apply", "rank-1")
    assert "r: 1\n" in (project / "params.yaml").read_text()
    assert "up to date" in dvc(project, "status")
    assert ran(dvc(project, "repro")) == []
    before = runs(project)
    code = "from lora_compare.cli import main; main()"
    sync = [sys.executable, "-c", code, "sync"]
    subprocess.run(sync, cwd=project, env=environment(), check=True, capture_output=True)
    # What several pipelines share is shown below the one that was shown last: this one by now.
    pipeline = "pipeline messages gpt2-nano (rank-1)"
    shared = {"download", "split", "base_model", "baseline", "full"}
    below = {name: {**before[name], PARENT: pipeline} for name in shared}
    assert runs(project) == before | below
    commit(project, "rank 1")


@pytest.mark.slow
def test_an_experiment_in_a_copy_finds_ones_own_text_and_small_rates(project: Path) -> None:
    # Python writes that rate as 5e-05.
    settings = ["-S", "methods.lora.learning_rate=5e-5", "-S", "split.seed=7"]
    output = dvc(project, "exp", "run", "--temp", "--name", "slow-learner", *settings)
    assert "split" in ran(output)
    assert "download" not in ran(output)
    shown = runs(project)
    assert shown["lora (slow-learner)"]["dvc.experiment"] == "slow-learner"
    assert shown["split (slow-learner)"]["dvc.experiment"] == "slow-learner"
    assert "git.dirty" in shown["lora (slow-learner)"]


def test_a_stage_in_a_copy_of_the_project_runs_the_copys_modules(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for folder in ("src", "stages"):
        ignored = shutil.ignore_patterns("__pycache__", "bundled_data")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    (copy / "params.yaml").write_text("methods: none\n")
    own = str(copy / "src" / "lora_compare" / "params" / "reading.py")

    def traceback(project: Path) -> str:
        done = subprocess.run(
            [sys.executable, "stages/split.py"],
            cwd=copy,
            env=environment(DVC_STAGE="split", DVC_ROOT=str(project), LORA_COMPARE_DEBUG="1"),
            capture_output=True,
            text=True,
        )
        assert "ParamsError" in done.stderr
        return done.stderr

    assert own in traceback(tmp_path)
    # As in the project itself, where the installed modules are those of the project.
    assert own not in traceback(copy)
