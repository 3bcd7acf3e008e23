"""Runs in a team's MLflow server: behind a password, TLS and a path, as MLflow's users know it."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gate import LOGIN, Certificates, Gate, gate, make_certificates
from lora_compare.cli import main
from lora_compare.errors import UserError
from lora_compare.project.lineage import Pipeline
from lora_compare.tracking.records import current_records
from lora_compare.tracking.runs import UPLOAD_LIMIT
from lora_compare.tracking.server import UNHURRIED
from mlflow_servers import REFUSING, Page, real_server, serving
from postgres import database
from small_project import ROOT
from tracked_project import RUNS, SEED, Lines, TrackedProject, history

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("no_tracking_settings")]

PREFIX = "/team/mlflow"
EXAMPLE = "https://mlflow.example.org/team"
PAGE = (ROOT / "docs" / "tracking.md").read_text()


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[str]:
    """The address of a real MLflow server that answers below a path."""
    folder = tmp_path_factory.mktemp("server")
    with real_server(folder, empty_store, prefix=PREFIX) as (address, _):
        yield address


@pytest.fixture
def locked(behind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A proxy in front of it that asks for a password, which is in MLflow's own variables."""
    with gate(behind, locked=True) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        log_in(monkeypatch)
        yield proxy


def log_in(monkeypatch: pytest.MonkeyPatch, password: str = LOGIN[1]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", LOGIN[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> TrackedProject:
    """A project with an experiment of its own: its runs are keyed by the same content."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    name = re.sub(r"\W+", " ", request.node.name)
    return TrackedProject(tmp_path / "project", uri, experiment=name)


@pytest.fixture
def downloaded(project: TrackedProject) -> TrackedProject:
    """A project of which only the first stage has run."""
    for folder in ("metrics", "models", "reports"):
        shutil.rmtree(project.paths.root / folder)
    return project


def check_artifacts(project: TrackedProject) -> None:
    """Check that every file of every run comes back with equal bytes."""
    for record in current_records(Pipeline(project.paths, project.params))[0]:
        sources = {artifact.target: artifact.source for artifact in record.artifacts}
        assert project.artifacts(record.name.split()[0]) == {
            target: source.read_bytes() for target, source in sources.items()
        }


def ui(project: TrackedProject, monkeypatch: pytest.MonkeyPatch) -> Result:
    def start(*_: Any) -> None:
        raise AssertionError("it starts a server beside the one that is configured")

    monkeypatch.setattr(os, "execvp", start)
    monkeypatch.chdir(project.paths.root)
    return CliRunner().invoke(main, ["ui"])


@pytest.mark.slow
def test_a_server_behind_a_password_and_a_path_shows_everything_once(
    locked: Gate, project: TrackedProject
) -> None:
    lines = Lines()
    project.log_pipeline(lines)

    assert lines.lines == []
    last = max(n for n, (_, path) in enumerate(locked.requests) if path.endswith("/health"))
    compare = [call for call, _ in locked.requests[last:] if call != "PUT"]
    assert len(compare) <= 33  # it looks at every run again, and describes the experiment
    assert project.names() == RUNS
    assert {run.info.status for run in project.runs()} == {"FINISHED"}
    assert project.run("lora").data.metrics["test/accuracy"] == 0.96
    assert len(project.curve("lora", "validation/accuracy")) == len(history())
    assert (project.duration("lora"), project.duration("split")) == (3_000, None)
    assert project.run("lora").info.artifact_uri.startswith("mlflow-artifacts:")
    assert not (project.paths.root / "mlflow.db").exists()
    check_artifacts(project)
    before = project.content()
    assert project.sync().published == ()
    assert project.content() == before
    assert LOGIN[1] not in str(before)
    kept = [path for path in project.paths.root.glob(".tracking/**/*") if path.is_file()]
    assert [path for path in kept if LOGIN[1].encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_a_stage_asks_a_server_a_dozen_times_and_once_for_each_file(
    locked: Gate, project: TrackedProject
) -> None:
    project.log("download")  # the first one makes the experiment and the parent run
    for stage, files in (("split", 1), ("finetune@lora", 5), ("evaluate@lora", 2)):
        locked.requests.clear()
        project.log(stage, seconds=2.0)
        calls = [call for call, _ in locked.requests]
        assert calls.count("PUT") == files
        assert len(calls) - files <= 12, locked.requests


@pytest.mark.slow
def test_a_password_that_is_missing_or_wrong_costs_a_warning_and_is_told_the_remedy(
    locked: Gate, downloaded: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Lines()
    log_in(monkeypatch, "wrong")
    downloaded.log("download", progress=lines)
    (line,) = lines.lines
    assert "401" in line
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in line
    assert "then: lora-compare sync" in line
    with pytest.raises(UserError, match="set MLFLOW_TRACKING_USERNAME"):
        downloaded.sync()
    assert downloaded.waiting() == ["download"]

    log_in(monkeypatch)
    downloaded.sync()
    assert downloaded.names() == ["download", "pipeline"]
    assert downloaded.waiting() == []


@pytest.mark.slow
def test_a_login_in_the_address_works_and_is_not_shown(
    locked: Gate, project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name)
    project.uri = locked.address.replace("://", f"://{':'.join(LOGIN)}@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", project.uri)
    project.log("download")
    assert project.names() == ["download", "pipeline"]
    output = ui(project, monkeypatch).output
    assert locked.address in output
    assert LOGIN[1] not in output


@pytest.mark.slow
def test_a_proxy_that_takes_no_large_file_is_told_from_an_outage(
    locked: Gate, downloaded: TrackedProject
) -> None:
    provenance = downloaded.paths.provenance
    provenance.write_text(provenance.read_text() + " " * 100_000)
    locked.limit = 50_000
    with pytest.raises(UserError, match="client_max_body_size"):
        downloaded.sync()
    locked.limit = 10**9
    downloaded.sync()
    check_artifacts(downloaded)


def test_ui_prints_where_the_runs_of_this_project_are(
    locked: Gate, project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = ui(project, monkeypatch)
    assert result.exit_code == 2
    assert "has no runs of this project yet" in result.output
    assert project.client().get_experiment_by_name(project.experiment) is None

    project.log("download")
    result = ui(project, monkeypatch)
    assert result.exit_code == 0, result.output
    experiment = project.run("download").info.experiment_id
    page = f"{locked.address}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    assert result.output == f"The runs are at\n  {page}\n"
    shown = result.output.replace(locked.address, EXAMPLE)
    assert shown.replace(f"experiments/{experiment}", "experiments/1") in PAGE


@pytest.mark.slow
def test_the_page_on_tracking_shows_an_outage_and_its_end_as_they_are(
    locked: Gate, project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.paths.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", REFUSING)
    lines = Lines()
    project.log("split", progress=lines)
    assert lines.lines[0].replace(REFUSING, EXAMPLE) in PAGE
    monkeypatch.setenv("MLFLOW_TRACKING_URI", locked.address)
    for _ in range(2):
        printed = CliRunner().invoke(main, ["sync"]).output
        assert printed.replace(locked.address, EXAMPLE) in PAGE


@pytest.mark.parametrize("fault", ["refusing", "login page"])
def test_ui_says_when_the_server_is_away(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    with serving(Page) as page:
        address = {"refusing": REFUSING, "login page": page}[fault]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        result = ui(project, monkeypatch)
    assert result.exit_code == 2
    assert "error: The tracking server does not answer." in result.output
    assert "next:     start the server or correct MLFLOW_TRACKING_URI" in result.output
    assert "secret" not in result.output


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_a_private_certificate_and_one_of_the_client_are_those_of_mlflows_variables(
    behind: str,
    certificates: Certificates,
    downloaded: TrackedProject,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with gate(behind, tls=certificates.for_server(ask_clients=True)) as proxy:
        downloaded.uri = proxy.address
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        with pytest.raises(UserError, match="MLFLOW_TRACKING_SERVER_CERT_PATH"):
            downloaded.sync()
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificates.authority))
        with pytest.raises(UserError):
            downloaded.sync()
        monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(certificates.client))
        downloaded.sync()
        check_artifacts(downloaded)


@pytest.mark.slow
def test_a_certificate_need_not_be_checked(
    behind: str,
    certificates: Certificates,
    downloaded: TrackedProject,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with gate(behind, tls=certificates.for_server(ask_clients=False)) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        assert len(downloaded.sync().published) == 2


def test_an_experiment_that_another_machine_has_just_made_is_used(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    from mlflow.tracking import MlflowClient

    project.uri = f"sqlite:///{project.paths.root / 'mlflow.db'}"
    (project.paths.root / "mlflow.db").write_bytes(empty_store.read_bytes())
    project.client().create_experiment(project.experiment)
    find, answers = MlflowClient.get_experiment_by_name, iter([None])
    monkeypatch.setattr(
        MlflowClient,
        "get_experiment_by_name",
        lambda client, name: next(answers, ...) and find(client, name),
    )
    project.log("download")
    monkeypatch.undo()
    assert project.names() == ["download", "pipeline"]


@pytest.mark.slow
def test_the_largest_model_that_is_uploaded_comes_back_with_equal_bytes(
    locked: Gate, project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in UNHURRIED.items():  # as `sync` has them where a user has set none
        monkeypatch.setenv(name, value)
    weights = project.paths.trained("lora", SEED) / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + os.urandom(UPLOAD_LIMIT - weights.stat().st_size))
    larger = project.paths.trained("full", SEED) / "model.safetensors"
    larger.write_bytes(larger.read_bytes() + bytes(UPLOAD_LIMIT))
    project.sync()
    check_artifacts(project)
    assert project.files("full", "model") == ["model/config.json"]
    assert project.run("full").data.tags["lora_compare.model.sha256"]


@pytest.mark.slow
def test_a_server_over_postgresql_shows_the_same(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database() as postgres:
        store = postgres.create("runs")
        with real_server(tmp_path, empty_store, store=store) as (address, _):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
            project = TrackedProject(tmp_path / "project", address)
            project.log_pipeline()
            assert project.names() == RUNS
            check_artifacts(project)
            assert project.sync().published == ()
