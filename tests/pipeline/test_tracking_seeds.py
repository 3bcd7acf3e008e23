"""The runs of a method's seeds in MLflow: below the method's own, live, and never doubled."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_compare.tracking.figures import CURVES as KEYS
from mlflow_servers import REFUSING
from tracked_project import (
    ACCURACY,
    CURVES,
    RUNS,
    STEPS,
    TrackedProject,
    histories,
    history,
    label,
    write_method,
)

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("no_tracking_settings")]

SEEDS = (3, 1)
ALL = sorted([*RUNS, *(f"{method} seed {seed}" for method in ("full", "lora") for seed in SEEDS)])


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> TrackedProject:
    """A project of two seeds whose pipeline has run once; only to be looked at."""
    root = tmp_path_factory.mktemp("logged")
    shutil.copyfile(empty_store, root / "mlflow.db")
    project = TrackedProject(root)
    project.use_seeds(*SEEDS)
    project.log_pipeline()
    return project


@pytest.fixture
def project(tmp_path: Path, empty_store: Path) -> TrackedProject:
    """A project of two seeds whose store has no experiment yet."""
    project = TrackedProject.with_store(tmp_path / "project", empty_store)
    project.use_seeds(*SEEDS)
    return project


def mean_curve(column: str) -> list[tuple[int, float]]:
    rows = [history(0.7 + i / 10, seed) for i, seed in enumerate(SEEDS)]
    values = np.mean([[row[column] for row in one] for one in rows], axis=0)
    return [(step, pytest.approx(value)) for step, value in zip(STEPS, values, strict=True)]


def shown(project: TrackedProject) -> dict[str, Any]:
    """What a store shows that does not depend on when it was told, by the name of the run."""
    return {
        label(run): (
            run.info.status,
            run.data.metrics,
            run.data.params,
            {key: project.curve(label(run), key) for key in KEYS.values()},
            project.files(label(run)),
        )
        for run in project.runs()
    }


def parents(project: TrackedProject) -> dict[str, str]:
    """The name of the run above each one."""
    names = {run.info.run_id: label(run) for run in project.runs()}
    tags: dict[str, Mapping[str, str]] = {label(r): r.data.tags for r in project.runs()}
    above = {name: of.get("mlflow.parentRunId") for name, of in tags.items()}
    return {name: names[number] for name, number in above.items() if number}


def test_every_seed_has_a_run_below_its_methods_with_its_own_curve_and_figures(
    logged: TrackedProject,
) -> None:
    assert logged.names() == ALL
    assert {run.info.status for run in logged.runs()} == {"FINISHED"}
    for place, seed in enumerate(SEEDS):
        name = f"lora seed {seed}"
        run = logged.run(name)
        assert parents(logged)[name] == "lora"
        assert (run.data.tags["seed"], run.data.params) == (str(seed), {"seed": str(seed)})
        rows = history(0.7 + place / 10, seed)
        assert logged.curve(name, "train/loss") == [(r["step"], r["train_loss"]) for r in rows]
        assert run.data.metrics["test/accuracy"] == ACCURACY["lora"] - place / 100
        assert logged.files(name) == ["history.csv"]


def test_a_methods_run_has_means_and_spreads_and_its_chosen_model(logged: TrackedProject) -> None:
    run = logged.run("lora")
    assert logged.curve("lora", "validation/loss") == mean_curve("validation_loss")
    assert run.data.metrics["test/accuracy"] == 0.96
    assert run.data.metrics["test/accuracy_sd"] == 0.004
    assert run.data.metrics["final/train/accuracy_sd"] == 0.004
    # The lower seed has the lower validation loss here.
    assert run.data.tags["lora_compare.model"] == "models/lora/seed-1"
    assert {"seeds.json", "predictions-1.csv", "predictions-3.csv"} <= {*logged.files("lora")}
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith(
        "Test accuracy **96.0 ± 0.4 %**, mean and standard deviation of 2 trainings"
    )
    assert note.endswith("in 3.0 s of training each on cpu.")


def test_the_comparison_of_methods_is_one_click_and_lists_no_seed(logged: TrackedProject) -> None:
    note = logged.run("pipeline").data.tags["mlflow.note.content"]
    link = note.partition("[Compare the methods](")[2].partition(")")[0]
    for run in logged.runs():
        assert (run.info.run_id in link) == (label(run) in ("full", "lora"))
        assert "seed" not in label(run) or run.info.run_id not in note


def test_running_again_and_sync_add_no_run_and_no_point(
    logged: TrackedProject, tmp_path: Path
) -> None:
    shutil.copytree(logged.paths.root, tmp_path / "again")
    again = TrackedProject(tmp_path / "again")
    again.use_seeds(*SEEDS)
    before = {run.info.run_id: run.data.to_dictionary() for run in again.runs()}
    again.log_pipeline()
    assert {run.info.run_id for run in again.runs()} == {*before}
    assert again.sync().published == ()
    assert {run.info.run_id: run.data.metrics for run in again.runs()} == {
        number: data["metrics"] for number, data in before.items()
    }
    for seed in SEEDS:
        assert len(again.curve(f"lora seed {seed}", "train/loss")) == len(STEPS)


@pytest.mark.slow
def test_sync_shows_the_same_as_the_stages_did(
    logged: TrackedProject, project: TrackedProject
) -> None:
    project.sync()
    assert shown(project) == shown(logged)
    assert parents(project) == parents(logged)


def test_several_trainings_grow_at_once_and_their_method_gets_their_mean_in_the_end(
    project: TrackedProject,
) -> None:
    first, second = history(0.7, 3), history(0.8, 1)
    with project.stage("finetune@lora") as tracked:
        tracked.log(first[0])
        project.deliver()
        assert project.names() == ["lora", "lora seed 3", "pipeline"]
        for row in (second[0], first[1], second[1], first[2]):
            tracked.log(row)
        project.deliver()
        assert {run.info.status for run in project.runs() if "lora" in label(run)} == {"RUNNING"}
        grown = {seed: project.curve(f"lora seed {seed}", "train/loss") for seed in SEEDS}
        assert {seed: len(points) for seed, points in grown.items()} == {3: 3, 1: 2}
        assert project.curve("lora", "train/loss") == []
        tracked.finish()
    assert project.curve("lora", "train/loss") == mean_curve("train_loss")
    assert [len(project.curve(f"lora seed {s}", "train/loss")) for s in SEEDS] == [5, 5]
    assert {run.info.status for run in project.runs() if "lora" in label(run)} == {"FINISHED"}


def test_a_killed_training_leaves_one_run_a_seed_after_the_next_all_below_the_method(
    project: TrackedProject,
) -> None:
    rows = histories(0.7, SEEDS)
    project.kill_training("lora", [*rows[:2], rows[5]])
    project.deliver()
    assert {run.info.status for run in project.runs() if "lora" in label(run)} == {"KILLED"}
    # The next one is killed too, before it comes to the second seed.
    project.kill_training("lora", rows[:3])
    with project.stage("finetune@lora") as tracked:
        tracked.finish()
    assert project.names() == ["lora", "lora seed 1", "lora seed 3", "pipeline"]
    assert parents(project) == {"lora": "pipeline", "lora seed 1": "lora", "lora seed 3": "lora"}
    for seed in SEEDS:
        steps = [step for step, _ in project.curve(f"lora seed {seed}", "train/loss")]
        assert steps == [*STEPS]


def test_other_curves_of_one_seed_replace_its_run_and_its_methods_and_move_the_others(
    project: TrackedProject,
) -> None:
    project.log("finetune@lora")
    kept = project.run("lora seed 1").info.run_id
    text = project.paths.history("lora").read_text()
    own = repr(history(0.7, 3)[0]["train_loss"])
    project.paths.history("lora").write_text(text.replace(f",{own},", ",0.71,", 1))
    project.log("finetune@lora")
    assert project.names() == ["lora", "lora seed 1", "lora seed 3", "pipeline"]
    assert project.curve("lora seed 3", "train/loss")[0] == (0, 0.71)
    assert project.run("lora seed 1").info.run_id == kept
    assert parents(project)["lora seed 1"] == "lora"


@pytest.mark.slow
def test_what_trained_while_the_server_was_away_is_shown_as_if_it_had_not_been(
    logged: TrackedProject, project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", REFUSING)
    project.log_pipeline()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    project.sync()
    assert shown(project) == shown(logged)
    assert project.waiting() == []


def test_a_method_of_one_seed_has_no_run_below_it(project: TrackedProject) -> None:
    project.use_seeds(7)
    write_method(project.paths, "lora", seeds=(7,))
    with project.stage("finetune@lora") as tracked:
        tracked.log(history(seed=7)[0])
        project.deliver()
        assert len(project.curve("lora", "train/loss")) == 1
        tracked.finish()
    assert project.names() == ["lora", "pipeline"]
    assert {len(project.curve("lora", key)) for key in CURVES} == {5}


TRIALS = [f"lora trial {trial} seed {seed}" for trial in (1, 2) for seed in (101, 102)]


def test_every_training_of_a_search_has_a_run_below_its_method_that_is_yet_to_begin(
    project: TrackedProject,
) -> None:
    project.search("lora")
    project.log("tune@lora")
    assert project.names() == sorted(["lora", "pipeline", *TRIALS])
    assert project.run("lora").info.status == "SCHEDULED"
    assert {parents(project)[name] for name in TRIALS} == {"lora"}
    one, other = project.run(TRIALS[0]), project.run(TRIALS[3])
    assert (one.data.tags["tuning"], one.data.tags["seed"]) == ("1", "101")
    assert one.data.params == {"method.learning_rate": "0.0001", "seed": "101"}
    assert one.data.metrics["tuning/validation_loss"] == 0.3
    assert len(project.curve(TRIALS[0], "validation/loss")) == len(STEPS)
    assert other.data.tags["status"] == "diverged"
    assert "tuning/validation_loss" not in other.data.metrics


@pytest.mark.slow
def test_a_methods_training_goes_on_in_the_run_that_holds_its_search(
    project: TrackedProject,
) -> None:
    project.search("lora")
    project.log("tune@lora")
    planned = project.run("lora").info.run_id
    assert project.run("lora").data.params["method.learning_rate"] == "0.0001"  # as chosen
    with project.stage("finetune@lora") as tracked:
        tracked.log(history(seed=3)[0])
        project.deliver()
        assert project.run("lora").info.status == "RUNNING"
        tracked.finish()
    assert project.run("lora").info.run_id == planned
    assert project.run("lora").info.status == "FINISHED"
    assert {parents(project)[name] for name in TRIALS} == {"lora"}
    assert set(project.names()) >= {"lora seed 3", "lora seed 1", *TRIALS}
    project.log("tune@lora", "compare")
    assert project.sync().published == ()
    assert project.names().count(TRIALS[0]) == 1


@pytest.mark.slow
def test_a_search_is_shown_by_sync_too_and_moves_below_a_run_that_replaces_its_methods(
    project: TrackedProject,
) -> None:
    project.search("lora")
    project.sync()
    before = project.run("lora").info.run_id
    assert {parents(project)[name] for name in TRIALS} == {"lora"}
    write_method(project.paths, "lora", loss=0.9, seeds=SEEDS)
    project.search("lora")
    project.sync()
    assert project.run("lora").info.run_id != before
    assert {parents(project)[name] for name in TRIALS} == {"lora"}


def test_without_a_search_tuning_shows_nothing_of_itself(project: TrackedProject) -> None:
    project.log("tune@lora")
    assert project.names() == ["pipeline"]
