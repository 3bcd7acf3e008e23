"""Runs in MLflow, against a real SQLite store, a real server, and servers that fail."""

import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lora_compare import tracking
from lora_compare.cli import main
from lora_compare.errors import UserError
from lora_compare.params import load_params
from lora_compare.progress import SILENT, Progress
from lora_compare.tracking.store import quietly
from tracked_project import history, write_method, write_project

# One worker for all: they share the server and the stores that are slow to make.
pytestmark = pytest.mark.timeout(120)

EXPERIMENT = "a comparison"
RUNS = ["base_model", "baseline", "compare", "download", "full", "lora", "pipeline", "split"]
TIME_LOST = 30.0
"""Seconds that tracking may cost a pipeline at most when the server fails."""


class Project:
    """A synthetic project and what its store shows."""

    def __init__(self, root: Path, uri: str = "") -> None:
        self.paths, self.params = write_project(root)
        self.uri = uri or f"sqlite:///{self.paths.root / 'mlflow.db'}"

    def client(self) -> Any:
        return _client(self.uri)

    def runs(self) -> list[Any]:
        client = self.client()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    def names(self) -> list[str]:
        return sorted(run.info.run_name.split()[0] for run in self.runs())

    def run(self, name: str) -> Any:
        (run,) = [run for run in self.runs() if run.info.run_name.split()[0] == name]
        return run

    def duration(self, name: str) -> int | None:
        """The milliseconds that MLflow shows; None where it shows none."""
        info = self.run(name).info
        return info.end_time and info.end_time - info.start_time

    def curve(self, name: str, key: str) -> list[tuple[int, float]]:
        points = self.client().get_metric_history(self.run(name).info.run_id, key)
        return sorted((point.step, point.value) for point in points)

    def files(self, name: str, folder: str | None = None) -> list[str]:
        found = self.client().list_artifacts(self.run(name).info.run_id, folder)
        return sorted(file.path for file in found)

    def log(self, *stages: str, progress: Progress = SILENT) -> None:
        for stage in stages:
            name, _, method = stage.partition("@")
            tracking.log_stage(self.paths, self.params, name, progress, method=method or None)

    def train(self, method: str, rows: list[dict[str, Any]] | None = None) -> None:
        live = tracking.live_run(self.paths, self.params, method, SILENT)
        for row in rows if rows is not None else history():
            live.log([row])

    def log_pipeline(self, progress: Progress = SILENT) -> None:
        self.log("download", "split", "base_model", "baseline", progress=progress)
        for method in ("full", "lora"):
            self.train(method)
            self.log(f"finetune@{method}", f"evaluate@{method}", progress=progress)
        self.log("compare", progress=progress)

    def sync(self) -> tracking.SyncResult:
        return tracking.sync(self.paths, self.params, SILENT)

    def waiting(self) -> list[str]:
        return [path.name for path in (self.paths.root / ".tracking" / "spool").glob("*")]


def _client(uri: str) -> Any:
    # Importing MLflow and opening a store warn of what SQLAlchemy deprecates.
    with quietly():
        from mlflow.tracking import MlflowClient

        return MlflowClient(uri)


class Lines(Progress):
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine decides where these runs go."""
    for name in ("MLFLOW_TRACKING_URI", "LORA_COMPARE_TRACKING", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    from lora_compare.tracking.server import PATIENCE

    for name, value in PATIENCE.items():
        monkeypatch.setenv(name, value)


FIRST_START = """
import sys
from pathlib import Path
from lora_compare.tracking.server import Server
from lora_compare.tracking.store import connect
with connect(Server(f"sqlite:///{sys.argv[1]}/mlflow.db", Path(sys.argv[1])), "first"):
    pass
"""


@pytest.fixture(scope="module")
def first_starts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, str]]]:
    """A store that two processes started at once, and each one's exit code and output."""
    folder = tmp_path_factory.mktemp("store")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST_START, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=100)[0] for process in processes]
    codes = [process.returncode for process in processes]
    return folder / "mlflow.db", list(zip(codes, outputs, strict=True))


@pytest.fixture(scope="module")
def empty_store(first_starts: tuple[Path, list[tuple[int, str]]]) -> Path:
    """A fresh SQLite store, which takes MLflow seconds to make."""
    return first_starts[0]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Project:
    """A project whose pipeline has run once; only to be looked at."""
    root = tmp_path_factory.mktemp("logged")
    shutil.copyfile(empty_store, root / "mlflow.db")
    project = Project(root)
    project.log_pipeline()
    return project


@pytest.fixture
def again(tmp_path: Path, logged: Project) -> Project:
    """A copy of `logged` to change."""
    shutil.copytree(logged.paths.root, tmp_path / "again")
    return Project(tmp_path / "again")


@pytest.fixture
def project(tmp_path: Path, empty_store: Path) -> Project:
    """A project whose store has no experiment yet."""
    root = tmp_path / "ein Projekt ü"
    root.mkdir()
    shutil.copyfile(empty_store, root / "mlflow.db")
    return Project(root)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[str]:
    """The address of a real MLflow server on loopback."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(empty_store, folder / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "files"), "--serve-artifacts"]
    # The server's own job runner is of no use here and takes seconds to start.
    settings = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=settings, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, process, folder / "log")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def _wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(log.read_text())


def test_every_method_and_every_other_stage_has_one_run_with_all_it_measured(
    logged: Project,
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
    assert "data/splits/train.csv" in lora.data.tags["dvc.deps"]
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


def test_the_parent_run_shows_the_verdict_and_links_every_run(logged: Project) -> None:
    note = logged.run("pipeline").data.tags["mlflow.note.content"]
    assert "No evidence of a difference between full and lora." in note
    assert "| lora | 96.00 % (94.0 to 97.0) | 100 | 3 s |" in note
    linked = [run for run in logged.runs() if not run.info.run_name.startswith("pipeline")]
    assert all(f"[{run.info.run_name}](#" in note for run in linked)
    assert all(f"/runs/{run.info.run_id})" in note for run in linked)
    assert logged.files("pipeline") == ["comparison.html"]


def test_running_again_adds_no_run_and_no_point(again: Project) -> None:
    before = {run.info.run_id: run.data.to_dictionary() for run in again.runs()}

    # A forced rerun takes another time; everything else repeats.
    for method in ("full", "lora"):
        write_method(again.paths, method, seconds=4.0)
    again.log_pipeline()

    after = {run.info.run_id: run.data.to_dictionary() for run in again.runs()}
    assert set(after) == set(before)
    assert again.run("lora").data.metrics["cost/train_seconds"] == 4.0
    assert len(again.curve("lora", "train/loss")) == len(history())


def test_other_settings_make_another_run(again: Project) -> None:
    text = again.paths.params.read_text().replace("r: 16", "r: 4")
    again.paths.params.write_text(text)
    again.params = load_params(again.paths.params)

    again.train("lora")
    again.log("finetune@lora", "evaluate@lora")

    assert again.names() == sorted([*RUNS, "lora", "pipeline"])
    ranks = [r.data.params["method.lora.r"] for r in again.runs() if r.info.run_name == "lora"]
    assert sorted(ranks) == ["16", "4"]


def test_a_killed_training_leaves_one_run_after_the_next(project: Project) -> None:
    project.train("lora", history()[:2])
    assert project.run("lora").info.status == "RUNNING"
    project.train("lora", history()[3:])
    project.log("finetune@lora")
    assert project.names() == ["lora", "pipeline"]
    assert [step for step, _ in project.curve("lora", "train/loss")] == [0, 10, 20, 30, 40]


def test_curves_of_another_training_replace_the_run(project: Project) -> None:
    project.log("finetune@lora")
    write_method(project.paths, "lora", loss=0.9)
    project.log("finetune@lora")
    assert project.names() == ["lora", "pipeline"]
    assert project.curve("lora", "train/loss")[0] == (0, 0.9)


def test_sync_brings_every_run_back_after_the_store_is_deleted(
    again: Project, empty_store: Path
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


def test_outputs_of_other_inputs_are_not_shown_as_theirs(project: Project) -> None:
    from lora_compare.tracking.lineage import Pipeline

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
    import yaml

    return str(yaml.safe_dump(value))


def test_a_deleted_experiment_is_restored(project: Project) -> None:
    project.log("download")
    client = project.client()
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    project.log("split")
    assert "split" in project.names()


def test_tracking_can_be_switched_off(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    project.train("lora")
    project.log("finetune@lora")
    with pytest.raises(UserError, match="switched off"):
        project.sync()
    assert project.runs() == []


def test_ui_prints_the_address_that_shows_the_runs_and_starts_mlflow_there(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda program, arguments: started.append(arguments))
    monkeypatch.chdir(project.paths.root)
    result = CliRunner().invoke(main, ["ui", "--port", "5003"])
    assert result.exit_code == 0, result.output
    experiment = project.client().get_experiment_by_name(EXPERIMENT).experiment_id
    # Without the last part MLflow 3 opens on traces, and no run is in sight.
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning"
    assert f"http://127.0.0.1:5003/{page}\n" in result.output
    assert started[0][started[0].index("--port") + 1] == "5003"


def test_a_stages_run_lasts_as_long_as_the_stage(project: Project) -> None:
    tracking.log_stage(project.paths, project.params, "split", SILENT, seconds=30.0)
    assert project.duration("split") == 30_000
    project.log("compare")  # it publishes all again, and knows no time
    assert project.duration("split") == 30_000
    tracking.log_stage(project.paths, project.params, "split", SILENT, seconds=40.0)
    assert project.duration("split") == 40_000


def test_the_time_that_a_stage_took_waits_for_the_server_too(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = _refusing()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", next(refusing))
    tracking.log_stage(project.paths, project.params, "split", SILENT, seconds=30.0)
    project.log("compare")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    project.sync()
    assert project.duration("split") == 30_000


def test_a_time_that_no_file_knows_is_not_invented(project: Project) -> None:
    project.sync()
    durations = {name: project.duration(name) for name in RUNS}
    assert durations == {**dict.fromkeys(RUNS), "full": 3_000, "lora": 3_000}
    assert project.sync().published == ()


def test_a_methods_run_lasts_as_long_live_as_after_sync(logged: Project) -> None:
    assert (logged.duration("full"), logged.duration("lora")) == (3_000, 3_000)


def test_two_first_starts_at_once_make_one_experiment(
    first_starts: tuple[Path, list[tuple[int, str]]],
) -> None:
    store, outcomes = first_starts
    assert outcomes == [(0, ""), (0, "")]
    experiments = _client(f"sqlite:///{store}").search_experiments()
    assert sorted(experiment.name for experiment in experiments) == ["Default", "first"]


def test_a_real_server_shows_the_same_and_sync_changes_nothing(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    project = Project(tmp_path, server)
    project.log_pipeline()

    assert project.names() == RUNS
    assert project.run("lora").data.metrics["test/accuracy"] == 0.96
    assert len(project.curve("lora", "validation/accuracy")) == len(history())
    assert (project.duration("lora"), project.duration("split")) == (3_000, None)
    assert "history.csv" in project.files("lora")
    assert project.run("lora").info.artifact_uri.startswith("mlflow-artifacts:")
    assert project.sync().published == ()
    assert not (tmp_path / "mlflow.db").exists()


class _Answer(http.server.BaseHTTPRequestHandler):
    """Answers every request with one status and body."""

    status, body = 500, b"{}"

    def _answer(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST = do_PUT = _answer  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


class _Page(_Answer):
    """A login page where MLflow should be."""

    status, body = 200, b"<html>please log in</html>"


class _Slow(_Answer):
    """Is well when asked, and then never answers."""

    def _slow(self) -> None:
        if self.path == "/health":
            self.status, self.body = 200, b"OK"
            self._answer()
        else:
            time.sleep(60)

    do_GET = do_POST = do_PUT = _slow  # noqa: N815


def _serve(handler: type[_Answer]) -> Callable[[], Iterator[str]]:
    def serving() -> Iterator[str]:
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as fake:
            fake.daemon_threads = True
            # Requests that sleep must not hold up the end of the test.
            fake.block_on_close = False
            threading.Thread(target=fake.serve_forever, daemon=True).start()
            yield f"http://user:secret@127.0.0.1:{fake.server_address[1]}"
            fake.shutdown()

    return serving


def _refusing() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


def _hanging() -> Iterator[str]:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        yield f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}"


FAULTS = {
    "refusing": _refusing,
    "hanging": _hanging,
    "failing": _serve(_Answer),
    "login page": _serve(_Page),
    "slow": _serve(_Slow),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails_costs_seconds_and_one_warning_and_loses_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    lines = Lines()
    faulty = FAULTS[fault]()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", next(faulty))
    # A user's own setting holds; with the default of 5 s the slow server costs 16 s.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    start = time.monotonic()
    project.log_pipeline(lines)
    assert time.monotonic() - start < TIME_LOST
    assert len(lines.lines) == 1
    assert "lora-compare sync" in lines.lines[0]
    assert "secret" not in lines.lines[0]
    assert len(project.waiting()) == len(RUNS)
    next(faulty, None)

    # What waits does not change with what a later run writes over it.
    for folder in ("reports", "metrics", "models"):
        shutil.rmtree(project.paths.root / folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    first = project.sync()
    assert sorted(name.split()[0] for name in first.published) == RUNS
    assert project.names() == RUNS
    assert project.run("lora").data.metrics["test/accuracy"] == 0.96
    assert "history.csv" in project.files("lora")
    assert project.waiting() == []
    assert project.sync().published == ()


def test_sync_says_when_the_server_is_away(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = _refusing()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", next(refusing))
    with pytest.raises(UserError, match="does not take the runs"):
        project.sync()


def test_what_waits_is_published_with_the_next_stage_once_the_server_is_back(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = _refusing()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", next(refusing))
    project.log("download")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    project.log("split")
    assert project.names() == ["download", "pipeline", "split"]
    assert project.waiting() == []
