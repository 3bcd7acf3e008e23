"""Runs in PostgreSQL, without a server of MLflow's between."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from click.testing import CliRunner

import postgres
from dvc_runs import ended, outputs, repro
from lora_compare.cli import main, postman
from lora_compare.errors import UserError
from lora_compare.params import load_params
from lora_compare.project.lineage import Pipeline
from lora_compare.project.paths import Paths
from lora_compare.tracking.records import current_records
from lora_compare.tracking.tracker import tracker
from mlflow_servers import kill, wait_for
from postgres import PASSWORD, Database
from small_project import copy_project, environment
from tracked_project import (
    RUNS,
    Lines,
    Shown,
    TrackedProject,
    history,
    log_at_once,
    store_client,
    wait_until,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("no_tracking_settings"),
]

COMMAND = [sys.executable, "-c", "from lora_compare.cli import main; main()"]
SECRETS = (PASSWORD, quote(PASSWORD, safe=""))


@pytest.fixture(scope="module")
def server() -> Iterator[Database]:
    """PostgreSQL with a database `template` that MLflow has made its tables in."""
    with postgres.database() as running:
        store_client(running.create("template")).search_experiments()
        running.disconnect("template")
        yield running


@pytest.fixture
def uri(server: Database, request: pytest.FixtureRequest) -> str:
    """The address of a database without runs."""
    return server.create(re.sub(r"\W+", "_", request.node.name)[:60], "template")


@pytest.fixture
def project(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> TrackedProject:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return TrackedProject(tmp_path / "project", uri)


def leaks(folder: Path) -> list[Path]:
    """Return the files that hold the password."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(s.encode() in path.read_bytes() for s in SECRETS)]


def check_no_secret(text: str) -> None:
    assert [secret for secret in SECRETS if secret in text] == []


def test_postgresql_shows_everything_once_and_the_password_nowhere(
    project: TrackedProject, server: Database, uri: str
) -> None:
    lines = Lines()
    project.log_pipeline(lines)

    assert lines.lines == []
    assert project.names() == RUNS
    assert project.run("lora").data.metrics["test/accuracy"] == 0.96
    assert len(project.curve("lora", "validation/accuracy")) == len(history())
    for record in current_records(Pipeline(project.paths, project.params))[0]:
        sources = {artifact.target: artifact.source.read_bytes() for artifact in record.artifacts}
        assert project.artifacts(record.name.split()[0]) == sources
    place = (project.paths.root / "mlartifacts").as_uri()
    assert project.run("lora").info.artifact_uri.startswith(place)
    assert not (project.paths.root / "mlflow.db").exists()

    before = project.content()
    assert project.sync().published == ()
    assert project.content() == before
    assert leaks(project.paths.root) == []
    database = uri.rpartition("/")[2]
    for table in ("experiments", "runs", "tags", "params", "experiment_tags", "inputs", "datasets"):
        check_no_secret(str(server.run(f"SELECT * FROM {table}", database)))


def test_an_experiment_that_was_made_elsewhere_keeps_its_place_for_files(
    project: TrackedProject, tmp_path: Path
) -> None:
    place = (tmp_path / "shared").as_uri()
    project.client().create_experiment(project.experiment, place)
    project.log("download")
    assert project.run("download").info.artifact_uri.startswith(place)
    assert (project.artifacts("download")).keys() == {"provenance.json"}


def test_an_address_that_names_no_driver_works_too(
    project: TrackedProject, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("+psycopg2", ""))
    project.log("download")
    assert project.names() == ["download", "pipeline"]


@pytest.mark.slow
def test_two_stages_at_once_make_no_run_twice(project: TrackedProject) -> None:
    log_at_once(project, "download", "finetune@lora")
    project.deliver()
    assert project.names() == ["download", "lora", "pipeline"]


@pytest.mark.slow
def test_stages_that_meet_an_empty_database_at_once_make_one_experiment(
    tmp_path: Path, server: Database
) -> None:
    project = TrackedProject(tmp_path / "project", server.create("empty"))
    log_at_once(project, "download", "split", "base_model", "finetune@lora", "compare")
    project.deliver()
    assert project.names() == RUNS


def test_a_database_that_goes_away_costs_a_warning_and_sync_completes_it(
    project: TrackedProject, server: Database
) -> None:
    lines = Lines()
    project.log("download", "split", progress=lines)
    with project.stage("finetune@lora", lines) as tracked:
        for row in history()[:2]:
            tracked.log(row)
        project.deliver()
        server.stop()
        try:
            for row in history()[2:]:
                tracked.log(row)
            project.deliver()
            tracked.finish()
            project.log("evaluate@lora", progress=lines)
        finally:
            server.start()

    (line,) = lines.lines
    assert "when the server is back: lora-compare sync" in line
    check_no_secret(line)
    assert project.waiting() == ["finetune@lora", "evaluate@lora"]
    assert leaks(project.paths.root) == []
    project.sync()
    assert project.waiting() == []
    assert project.names() == RUNS
    assert len(project.curve("lora", "train/loss")) == len(history())
    before = project.content()
    assert project.sync().published == ()
    assert project.content() == before


def test_a_database_that_is_away_is_not_tried_for_long(
    project: TrackedProject, server: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:p%40ss@127.0.0.1:9/runs")
    with pytest.raises(UserError, match="does not take the runs"):
        project.sync()
    assert slept == []  # MLflow's own attempts sleep 100 seconds in all


def test_a_connection_that_the_database_has_closed_meanwhile_is_no_outage(
    project: TrackedProject, server: Database, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE", "1")  # seconds in place of a minute
    lines = Lines()
    with project.stage("finetune@lora", lines) as tracked:
        tracked.log(history()[0])
        project.deliver()
        time.sleep(1.1)
        server.disconnect(uri.rpartition("/")[2])
        for row in history()[1:]:
            tracked.log(row)
        project.deliver()
        assert len(project.curve("lora", "train/loss")) == len(history())
        tracked.finish()
    assert lines.lines == []


def test_an_address_whose_password_is_not_escaped_is_refused_without_a_part_of_it(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:hush@hush@127.0.0.1:9/runs")
    with pytest.raises(UserError, match="@ in a user's password is %40") as error:
        project.sync()
    assert "hush" not in str(error.value)


@pytest.mark.slow
def test_a_database_that_freezes_holds_up_no_stage_and_sync_completes_it(
    project: TrackedProject, server: Database
) -> None:
    lines = Lines()
    hire = partial(postman.hire, project.paths)
    with tracker(project.paths, project.params, "finetune", lines, hire, "lora") as tracked:
        tracked.log(history()[0])
        wait_until(lambda: "lora" in project.names())
        server.freeze()
        try:
            start = time.monotonic()
            for row in history()[1:]:
                tracked.log(row)
            tracked.finish()
        finally:
            assert time.monotonic() - start < 5
            time.sleep(15)  # the postman ends, whatever it waits for
            server.thaw()
    project.sync()
    assert project.names() == RUNS
    assert len(project.curve("lora", "train/loss")) == len(history())
    assert project.sync().published == ()


def test_a_missing_driver_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:hush@127.0.0.1:9/runs")
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    project = TrackedProject(tmp_path / "project")
    lines = Lines()
    project.log("download", "split", progress=lines)
    remedy = 'pip install -e ".[postgres]"'
    (line,) = lines.lines
    assert f"{remedy}, then: lora-compare sync" in line
    with pytest.raises(UserError) as error:
        project.sync()
    assert "psycopg2" in error.value.actual
    assert error.value.next == f"{remedy}, then: lora-compare sync"
    monkeypatch.chdir(project.paths.root)
    shown = CliRunner().invoke(main, ["ui"])
    assert shown.exit_code == 2
    assert remedy in shown.output
    assert "hush" not in line + str(error.value) + shown.output


def test_ui_starts_mlflow_on_the_database_without_the_password_in_its_arguments(
    project: TrackedProject, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda program, arguments: started.append(arguments))
    monkeypatch.chdir(project.paths.root)
    result = CliRunner().invoke(main, ["ui", "--port", "5003"])
    monkeypatch.delenv("MLFLOW_BACKEND_STORE_URI")
    assert result.exit_code == 0, result.output
    experiment = project.client().get_experiment_by_name(project.experiment)
    assert f"http://127.0.0.1:5003/#/experiments/{experiment.experiment_id}/runs" in result.output
    check_no_secret(result.output + " ".join(started[0]))


@pytest.mark.slow
def test_the_user_interface_of_a_database_answers_and_no_process_shows_the_password(
    project: TrackedProject, tmp_path: Path
) -> None:
    project.log("download")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*COMMAND, "ui", "--port", str(port)],
            cwd=project.paths.root,
            env=environment(MLFLOW_TRACKING_URI=project.uri),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}", process, tmp_path / "log")
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]
        check_no_secret(str([member.cmdline() for member in family]))
    finally:
        kill(process)
    check_no_secret((tmp_path / "log").read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("outage", [False, True], ids=["answers", "goes away"])
def test_a_whole_pipeline_is_shown_by_postgresql(
    tmp_path: Path, uri: str, server: Database, outage: bool
) -> None:
    folder = copy_project(tmp_path / "project")
    run = repro(folder, MLFLOW_TRACKING_URI=uri)
    shown = Shown(uri, load_params(Paths(folder).params).tracking.experiment)
    if outage:
        wait_until(lambda: "base_model" in shown.names())
        server.stop()
    try:
        printed = ended(run)
    finally:
        if outage:
            server.start()
    check_no_secret(printed)
    assert ("warning:" in printed) == outage

    published = [int(sync(folder, uri).split("published ")[1].split(",")[0]) for _ in range(2)]
    assert (published[0] > 0, published[1]) == (outage, 0)
    assert shown.names() == RUNS
    assert {run.info.status for run in shown.runs()} == {"FINISHED"}
    assert leaks(folder) == []
    assert len(outputs(folder)) > 10


def sync(folder: Path, uri: str) -> str:
    """Return what `lora-compare sync` prints."""
    return subprocess.run(
        [*COMMAND, "sync"],
        cwd=folder,
        env=environment(MLFLOW_TRACKING_URI=uri),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
