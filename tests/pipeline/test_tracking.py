"""Runs in MLflow, against a real SQLite store and servers that fail."""

import json
import os
import shutil
import socket
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from click.testing import CliRunner

from lora_compare.cli import main
from lora_compare.errors import UserError
from lora_compare.params import load_params
from lora_compare.tracking.view import NOTE, SHARED_VIEW, VIEW
from mlflow_servers import REFUSING
from tracked_project import EXPERIMENT, RUNS, TrackedProject, history, write_method

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("no_tracking_settings")]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> TrackedProject:
    """A project whose pipeline has run once; only to be looked at."""
    root = tmp_path_factory.mktemp("logged")
    shutil.copyfile(empty_store, root / "mlflow.db")
    project = TrackedProject(root)
    project.log_pipeline()
    return project


@pytest.fixture
def again(tmp_path: Path, logged: TrackedProject) -> TrackedProject:
    """A copy of `logged` to change."""
    shutil.copytree(logged.paths.root, tmp_path / "again")
    return TrackedProject(tmp_path / "again")


@pytest.fixture
def project(tmp_path: Path, empty_store: Path) -> TrackedProject:
    """A project whose store has no experiment yet."""
    return TrackedProject.with_store(tmp_path / "ein Projekt ü", empty_store)


def test_every_method_and_every_other_stage_has_one_run_with_all_it_measured(
    logged: TrackedProject,
) -> None:
    assert logged.names() == RUNS
    assert {run.info.status for run in logged.runs()} == {"FINISHED"}
    full, lora, parent = (logged.run(name) for name in ("full", "lora", "pipeline"))
    assert lora.data.metrics["test/accuracy"] == 0.96
    assert lora.data.metrics["test/accuracy_low"] == 0.96 - 0.02
    assert lora.data.metrics["params/trainable"] == 100
    assert lora.data.metrics["cost/train_seconds"] == 3.0
    assert set(full.data.metrics) == set(lora.data.metrics)
    assert logged.curve("lora", "train/loss") == [
        (int(row["step"]), row["train_loss"]) for row in history()
    ]
    assert set(full.data.params) == set(lora.data.params)
    assert (full.data.params["method.lora.r"], lora.data.params["method.lora.r"]) == ("null", "16")
    assert lora.data.params["split.seed"] == "123"
    assert lora.data.tags["dvc.stage"] == "finetune@lora evaluate@lora"
    assert "data/tokens/train.safetensors" in lora.data.tags["dvc.deps"]
    assert "models/lora" in lora.data.tags["dvc.outs"]
    assert all(
        run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        for run in logged.runs()
        if run.info.run_id != parent.info.run_id
    )
    contexts = {i.tags[0].value: i.dataset.digest for i in lora.inputs.dataset_inputs}
    assert set(contexts) == {"train", "validation", "test"}
    assert logged.files("lora", "plots") == ["plots/confusion_lora.svg"]
    assert logged.files("lora", "model") == ["model/config.json", "model/model.safetensors"]


def test_the_parent_run_shows_the_verdict_and_links_every_run(logged: TrackedProject) -> None:
    note = logged.run("pipeline").data.tags["mlflow.note.content"]
    assert note.startswith("**Use lora: not worse than full by more than 2 points, with 10 % of")
    assert "\n\nBefore the verdict:\n\n- The base model is a stand-in.\n\n" in note
    assert "| lora | 96.0 % | 100 | 10 % | n/a | n/a | 1.2 kB |" in note
    linked = [run for run in logged.runs() if not run.info.run_name.startswith("pipeline")]
    assert all(f"[{run.info.run_name}](#" in note for run in linked)
    assert all(f"/runs/{run.info.run_id})" in note for run in linked)
    assert logged.files("pipeline") == ["comparison.html"]


def test_names_and_tags_say_which_data_set_and_base_a_run_is_of(logged: TrackedProject) -> None:
    parent = logged.run("pipeline")
    assert parent.info.run_name.startswith("pipeline bundled gpt2-nano ")
    for run in logged.runs():
        assert run.data.tags["lora_compare.data"] == "bundled"
        assert run.data.tags["lora_compare.base"] == "gpt2-nano"
    note = logged.client().get_experiment(parent.info.experiment_id).tags[NOTE]
    assert "of the data set bundled with the base model gpt2-nano" in note


def test_the_row_of_the_pipeline_has_the_figures_of_the_verdict(
    project: TrackedProject,
) -> None:
    project.log("compare")
    parent, champion = project.run("pipeline"), project.run("lora")
    assert parent.data.tags["lora_compare.champion"] == "lora"
    shown = "lora \N{MINUS SIGN} full: +1.0 points (\N{MINUS SIGN}1.2 to +3.0)"
    assert parent.data.tags["lora_compare.verdict"] == shown
    assert parent.data.tags["claim"] == project.run("compare").data.tags["claim"] == "not worse"
    for key in ("test/accuracy", "params/trainable", "cost/train_seconds"):
        assert parent.data.metrics[key] == champion.data.metrics[key]


def test_the_note_of_the_pipeline_leads_to_the_methods_beside_each_other(
    logged: TrackedProject,
) -> None:
    parent = logged.run("pipeline")
    address = parent.data.tags["mlflow.note.content"].partition("[Compare the methods](")[2]
    query = parse_qs(address.partition(")")[0].partition("?")[2])
    methods = [logged.run(name).info.run_id for name in ("full", "lora")]
    assert json.loads(query["runs"][0]) == methods
    assert json.loads(query["experiments"][0]) == [parent.info.experiment_id]


def test_running_again_adds_no_run_and_no_point(again: TrackedProject) -> None:
    before = {run.info.run_id: run.data.to_dictionary() for run in again.runs()}

    # A forced rerun takes another time; everything else repeats.
    for method in ("full", "lora"):
        write_method(again.paths, method, seconds=4.0)
    again.log_pipeline()

    after = {run.info.run_id: run.data.to_dictionary() for run in again.runs()}
    assert set(after) == set(before)
    assert again.run("lora").data.metrics["cost/train_seconds"] == 4.0
    assert len(again.curve("lora", "train/loss")) == len(history())


def test_other_settings_make_another_run(again: TrackedProject) -> None:
    text = again.paths.params.read_text().replace("r: 16", "r: 4")
    again.paths.params.write_text(text)
    again.params = load_params(again.paths.params)

    again.log("finetune@lora", "evaluate@lora")

    assert again.names() == sorted([*RUNS, "lora", "pipeline"])
    ranks = [r.data.params["method.lora.r"] for r in again.runs() if r.info.run_name == "lora"]
    assert sorted(ranks) == ["16", "4"]


def test_a_comparison_of_new_runs_stands_beside_them_though_no_prediction_changed(
    again: TrackedProject,
) -> None:
    (again.paths.root / "stages" / "finetune.py").write_text("changed")
    again.log("finetune@full", "evaluate@full", "finetune@lora", "evaluate@lora", "compare")
    groups = {r.info.run_id for r in again.runs() if r.info.run_name.startswith("pipeline")}
    beside: dict[str, list[str]] = {group: [] for group in groups}
    for run in again.runs():
        if run.info.run_id not in groups:
            beside[run.data.tags["mlflow.parentRunId"]].append(run.info.run_name)
    old, new = sorted(map(sorted, beside.values()), key=len, reverse=True)
    assert old == ["base_model", "baseline", "compare", "download", "full", "lora", "split"]
    assert new == ["compare", "full", "lora"]
    count = len(again.runs())
    again.sync()
    assert len(again.runs()) == count


def test_a_killed_training_leaves_one_run_after_the_next(project: TrackedProject) -> None:
    project.kill_training("lora", history()[:2])
    assert project.run("lora").info.status == "RUNNING"
    project.kill_training("lora", history()[3:])
    with project.stage("finetune@lora") as tracked:
        assert project.run("lora").info.status == "KILLED"
        tracked.finish()
    assert project.names() == ["lora", "pipeline"]
    assert [step for step, _ in project.curve("lora", "train/loss")] == [0, 10, 20, 30, 40]


def test_curves_of_another_training_replace_the_run(project: TrackedProject) -> None:
    project.log("finetune@lora")
    write_method(project.paths, "lora", loss=0.9)
    project.log("finetune@lora")
    assert project.names() == ["lora", "pipeline"]
    assert project.curve("lora", "train/loss")[0] == (0, 0.9)


def test_sync_brings_every_run_back_after_the_store_is_deleted(
    again: TrackedProject, empty_store: Path
) -> None:
    before = {run.info.run_name: run.data.metrics for run in again.runs()}
    again.paths.root.joinpath("mlflow.db").unlink()
    again.uri = f"sqlite:///{again.paths.root / 'second.db'}"
    shutil.copyfile(empty_store, again.paths.root / "second.db")
    os.environ["MLFLOW_TRACKING_URI"] = again.uri
    try:
        first, second = again.sync(), again.sync()
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]

    assert {run.info.run_name: run.data.metrics for run in again.runs()} == before
    assert sorted(name.split()[0] for name in first.published) == RUNS
    assert first.stale == second.stale == second.published == ()
    assert sorted(name.split()[0] for name in second.already_there) == RUNS


def test_outputs_of_other_inputs_are_not_shown_as_theirs(project: TrackedProject) -> None:
    from lora_compare.project.lineage import Pipeline

    entry: dict[str, Any] = {"params": {"params.yaml": {"training": {"epochs": 1}}}}
    pipeline = Pipeline(project.paths, project.params)
    tested = pipeline.lineage("evaluate", "full")
    deps = [{"path": path, "md5": md5} for path, md5 in tested.deps.items()]
    deps[0]["md5"] = "0" * 32
    lock = {"stages": {"finetune@lora": entry, "evaluate@full": {"deps": deps}}}
    project.paths.lock.write_text(_yaml(lock))

    result = project.sync()

    assert result.stale == ("evaluate@full", "finetune@lora")
    assert "lora" not in project.names()
    assert "test/accuracy" not in project.run("full").data.metrics


def _yaml(value: Any) -> str:
    from dvc.utils.serialize import dumps_yaml

    return str(dumps_yaml(value))


def test_an_experiments_runs_have_its_name_wherever_it_was_shown(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.log("download")
    monkeypatch.setenv("DVC_EXP_NAME", "rank-8")
    project.log("split")
    # What it computed while the server was away has its name when another one brings it along.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", REFUSING)
    project.log("baseline")
    monkeypatch.setenv("DVC_EXP_NAME", "rank-4")
    project.log("compare")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.delenv("DVC_EXP_NAME")
    project.sync()
    names = {run.info.run_name.partition(" ")[0]: run.info.run_name for run in project.runs()}
    assert names["download"] == "download"
    assert names["split"] == "split (rank-8)"
    assert names["baseline"] == "baseline (rank-8)"
    assert names["compare"] == "compare (rank-4)"
    assert project.run("baseline").data.tags["dvc.experiment"] == "rank-8"
    assert "dvc.experiment" not in project.run("download").data.tags


def test_a_deleted_experiment_is_restored(project: TrackedProject) -> None:
    project.log("download")
    client = project.client()
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    project.log("split")
    assert "split" in project.names()


def test_tracking_can_be_switched_off(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    project.log("finetune@lora")
    with pytest.raises(UserError, match="switched off"):
        project.sync()
    assert project.runs() == []


def test_ui_prints_the_address_that_shows_the_runs_and_starts_mlflow_there(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda program, arguments: started.append(arguments))
    monkeypatch.chdir(project.paths.root)
    port = free_port()
    result = CliRunner().invoke(main, ["ui", "--port", str(port)])
    assert result.exit_code == 0, result.output
    experiment = project.client().get_experiment_by_name(EXPERIMENT).experiment_id
    # Without the last part MLflow 3 opens on traces, and no run is in sight.
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning"
    assert f"http://127.0.0.1:{port}/{page}\n" in result.output
    assert started[0][started[0].index("--port") + 1] == str(port)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_ui_says_what_holds_a_busy_port_and_which_one_is_free(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda program, arguments: started.append(arguments))
    monkeypatch.chdir(project.paths.root)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]
        busy = CliRunner().invoke(main, ["ui", "--port", str(port)])
        as_json = CliRunner().invoke(main, ["ui", "--json", "--port", str(port)])
    assert (busy.exit_code, as_json.exit_code) == (2, 2)
    assert f"127.0.0.1:{port}" in busy.output
    assert f"process {os.getpid()} listens there" in busy.output
    assert "http://" not in busy.output
    assert json.loads(as_json.stdout)["error"]["kind"] == "BusyError"
    assert started == []
    proposed = busy.output.split("lora-compare ui --port ")[1].split()[0]
    free = CliRunner().invoke(main, ["ui", "--port", proposed])
    assert free.exit_code == 0, free.output
    assert f"http://127.0.0.1:{proposed}/" in free.output


def test_a_stages_run_lasts_as_long_as_the_stage(project: TrackedProject) -> None:
    project.log("split", seconds=30.0)
    assert project.duration("split") == 30_000
    project.log("compare")  # it publishes all again, and knows no time
    assert project.duration("split") == 30_000
    project.log("split", seconds=40.0)
    assert project.duration("split") == 40_000


def test_the_time_that_a_stage_took_waits_for_the_server_too(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", REFUSING)
    project.log("split", seconds=30.0)
    project.log("compare")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    project.sync()
    assert project.duration("split") == 30_000


def test_a_time_that_no_file_knows_is_not_invented(project: TrackedProject) -> None:
    project.sync()
    durations = {name: project.duration(name) for name in RUNS}
    assert durations == {**dict.fromkeys(RUNS), "full": 3_000, "lora": 3_000}
    assert project.sync().published == ()


def test_a_methods_run_lasts_as_long_live_as_after_sync(logged: TrackedProject) -> None:
    assert (logged.duration("full"), logged.duration("lora")) == (3_000, 3_000)


def test_sync_says_when_the_server_is_away(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", REFUSING)
    with pytest.raises(UserError, match="does not take the runs"):
        project.sync()


@pytest.mark.slow
def test_sync_waits_for_who_writes_to_the_store_and_restarts_nothing(
    project: TrackedProject,
) -> None:
    with closing(sqlite3.connect(project.paths.root / "mlflow.db")) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="wait until the process that writes") as told:
            project.sync()
    assert "MLFLOW_TRACKING_URI" not in told.value.next


def test_what_waits_is_published_with_the_next_stage_once_the_server_is_back(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", REFUSING)
    project.log("download")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    project.log("split")
    assert project.names() == ["download", "pipeline", "split"]
    assert project.waiting() == []


def test_the_experiment_says_what_came_out_and_shows_the_columns_that_matter(
    logged: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = logged.client().get_experiment_by_name(EXPERIMENT)
    assert experiment.tags[NOTE].startswith(
        "**Use lora: not worse than full by more than 2 points,"
    )
    assert "| lora | 96.0 %" in experiment.tags[NOTE]
    view = json.loads(experiment.tags[SHARED_VIEW])
    columns = json.loads(view["state"])["selectedColumns"]
    assert columns[:2] == ["metrics.`test/accuracy`", "metrics.`params/trainable`"]
    assert "params.`method.lora.r`" in columns
    assert "params.`training.seed`" not in columns
    monkeypatch.setattr(os, "execvp", lambda program, arguments: None)
    monkeypatch.chdir(logged.paths.root)
    address = CliRunner().invoke(main, ["ui", "--json", "--port", str(free_port())]).stdout
    assert json.loads(address)["address"].endswith(f"&viewStateShareKey={VIEW}")


def test_an_experiment_of_dvc_does_not_speak_for_the_project(
    again: TrackedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = again.client().get_experiment_by_name(EXPERIMENT).tags
    copy = tmp_path / "copy"
    shutil.copytree(again.paths.root, copy)
    monkeypatch.setenv("DVC_ROOT", str(again.paths.root))
    experiment = TrackedProject(copy)
    comparison = experiment.paths.metrics("comparison")
    comparison.write_text(comparison.read_text().replace("Use lora", "Take lora"))
    experiment.log("compare")
    assert again.client().get_experiment_by_name(EXPERIMENT).tags == before


def test_a_method_says_in_a_sentence_what_it_reached(logged: TrackedProject) -> None:
    note = logged.run("lora").data.tags["mlflow.note.content"]
    assert note.startswith("Test accuracy **96.0 %** (95 % interval 94.0 to 97.0)")
    assert note.endswith("in 3.0 s of training on cpu.")


@pytest.mark.parametrize("wanted", [True, False])
def test_the_machines_use_is_logged_where_that_is_asked_for(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    if wanted:
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
        monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    with project.stage("finetune@lora") as tracked:
        tracked.log(history()[0])
        project.deliver()
        deadline = time.monotonic() + 30
        while wanted and not system_metrics(project) and time.monotonic() < deadline:
            time.sleep(0.1)
        tracked.finish()
    assert bool(system_metrics(project)) == wanted
    assert not [t for t in threading.enumerate() if t.name == "SystemMetricsMonitor"]
    project.log("evaluate@lora")
    assert project.run("lora").info.status == "FINISHED"
    assert project.run("lora").data.metrics["test/accuracy"] == 0.96


def system_metrics(project: TrackedProject) -> set[str]:
    found = set(project.run("lora").data.metrics)
    return {key for key in found if key.startswith("system/") and "cpu" in key}
