"""MLflow's server fails in every way, and its store meets several stages at once."""

import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dvc_runs import ended, outputs, repro
from lora_compare.cli import postman
from lora_compare.params import load_params
from lora_compare.project.paths import Paths
from lora_compare.serving.publication import sync
from lora_compare.tracking.mailbox import Mailbox
from lora_compare.tracking.tracker import tracker
from mlflow_servers import (
    REFUSING,
    TAKING_NOTHING,
    TAKING_SOME,
    Dripping,
    dying,
    kill,
    real_server,
    serving,
    slow,
)
from small_project import ROOT, copy_project, environment, make_project
from tracked_project import (
    RUNS,
    STAGES,
    Lines,
    TrackedProject,
    history,
    log_at_once,
    postmen,
    store_client,
    wait_until,
)

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("no_tracking_settings")]

HISTORY = "reports/training/lora/history.csv"

TIME_LOST = 30.0
"""Seconds that tracking may cost at most when the server fails."""


@pytest.fixture
def project(tmp_path: Path, empty_store: Path) -> TrackedProject:
    """A project as its stages leave it; its store has no experiment yet."""
    return TrackedProject.with_store(tmp_path / "ein Projekt ü", empty_store)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=() if fault in ("refusing", "garbage") else pytest.mark.slow)
        for fault in TAKING_NOTHING
    ],
)
def test_row_13_a_server_that_takes_nothing_costs_seconds_and_one_warning_and_loses_nothing(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    lines = Lines()
    with TAKING_NOTHING[fault]() as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        # A user's own setting holds; with the default of 5 s the deaf server costs 16 s.
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        project.log("download", "split", deliver=False)
        project.deliver()
        assert all(letter.is_returned for letter in project.letters())
        start = time.monotonic()
        project.log("base_model", progress=lines, deliver=False)
        project.log("baseline", progress=lines, deliver=False)
        assert time.monotonic() - start < 1.0
        for stage in ("finetune@full", "evaluate@full", "finetune@lora", "evaluate@lora"):
            project.log(stage, deliver=False)
        project.log("compare", progress=lines)
        assert time.monotonic() - start < TIME_LOST
    # Once to the stage that ends next, and to the last one, whose reader looks at the end.
    assert len(lines.lines) == 2
    assert all("lora-compare sync" in line for line in lines.lines)
    assert "secret" not in str(lines.lines)
    assert len(project.waiting()) == len(STAGES)

    # What waits does not change with what a later run writes over it.
    for folder in ("reports", "metrics", "models"):
        shutil.rmtree(project.paths.root / folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    first = project.sync()
    assert sorted(name.split()[0] for name in first.published) == RUNS
    check_complete(project)


@pytest.mark.slow
@pytest.mark.parametrize("fault", TAKING_SOME)
def test_row_13_what_a_server_took_before_it_failed_is_on_disk_too(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    with TAKING_SOME[fault]() as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        project.log_pipeline()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    project.sync()
    check_complete(project)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_row_13_a_server_may_die_after_any_request(
    tmp_path: Path,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, int], None],
) -> None:
    trials = range(0, 60, 2)
    record_property("trials", len(trials))
    for after in trials:
        root = tmp_path / str(after)
        root.mkdir()
        shutil.copyfile(empty_store, root / "mlflow.db")
        project = TrackedProject(root)
        with serving(dying(after)) as address:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
            project.log_pipeline()
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        project.sync()
        check_complete(project)
        shutil.rmtree(root)


def check_complete(project: TrackedProject) -> None:
    """Check that a store shows everything once, and that another `sync` changes nothing."""
    assert project.names() == RUNS
    assert project.run("lora").data.metrics["test/accuracy"] == 0.96
    assert len(project.curve("lora", "train/loss")) == len(history())
    assert "history.csv" in project.files("lora")
    assert project.waiting() == []
    before = project.content()
    assert project.sync().published == ()
    assert project.content() == before


@pytest.mark.slow
def test_row_13_answers_that_drip_in_are_waited_for_by_the_last_stage_alone(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Lines()
    with serving(Dripping) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        hire = partial(postman.hire, project.paths)
        for stage, limit in (("split", 2.0), ("compare", TIME_LOST)):
            start = time.monotonic()
            with tracker(project.paths, project.params, stage, lines, hire) as tracked:
                tracked.finish()
            assert time.monotonic() - start < limit
        (line,) = lines.lines
        assert "it takes too long to answer" in line
        wait_until(lambda: not postmen(project.paths.root), 15)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    project.sync()
    check_complete(project)


@pytest.fixture(scope="module")
def before_training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after the stages that finetune needs."""
    return make_project(tmp_path_factory.mktemp("project"), "download", "split", "base_model")


def train(folder: Path, **variables: str) -> tuple[float, str, dict[str, bytes]]:
    """Run a training; return its seconds, its output, and its files without measured times."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "stages" / "finetune.py"), "lora"],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    models = (p for p in (folder / "models" / "lora").rglob("*") if p.is_file())
    files = [*models, folder / HISTORY]
    # Of the one seed its two files, with their checksums; which seeds there are, with those.
    assert len(files) == 6
    return seconds, done.stdout, {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def untracked(
    before_training: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[float, dict[str, bytes]]:
    """The seconds and the files of a training without tracking."""
    folder = shutil.copytree(before_training, tmp_path_factory.mktemp("untracked") / "project")
    seconds, _, files = train(folder, LORA_COMPARE_TRACKING="off")
    return seconds, files


def check_training(folder: Path, files: dict[str, bytes], uri: str) -> None:
    """Check that a training is in a store that works after `sync`, once, and all of it."""
    paths = Paths(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        wait_until(lambda: not postmen(folder), 15)
        first, second = (sync(paths, load_params(paths.params)) for _ in range(2))
    assert first.stale == second.stale == second.published == ()
    client = store_client(uri)
    runs = client.search_runs([client.get_experiment_by_name("lora-compare").experiment_id])
    names = sorted(run.info.run_name.split()[0] for run in runs)
    assert names == ["base_model", "download", "lora", "pipeline", "split"]
    (run,) = (run for run in runs if run.info.run_name == "lora")
    points = client.get_metric_history(run.info.run_id, "train/loss")
    rows = files[HISTORY].decode().splitlines()[1:]
    assert len(points) == len(rows)
    assert Mailbox(paths.root / ".tracking").letters() == []


KINDS = {**TAKING_NOTHING, **TAKING_SOME, "slower": lambda: serving(slow(4.0))}


@pytest.mark.slow
@pytest.mark.parametrize("fault", KINDS)
def test_row_13_a_training_is_the_same_to_the_byte(
    before_training: Path,
    untracked: tuple[float, dict[str, bytes]],
    tmp_path: Path,
    empty_store: Path,
    fault: str,
) -> None:
    folder = shutil.copytree(before_training, tmp_path / "project")
    with KINDS[fault]() as address:
        seconds, output, files = train(folder, MLFLOW_TRACKING_URI=address)
    assert files == untracked[1]
    assert seconds < untracked[0] + TIME_LOST
    assert output.count("warning:") <= 1  # a stage does not wait to learn of it
    assert "secret" not in output
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    check_training(folder, files, f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.mark.slow
def test_row_13_a_real_server_is_killed_while_a_training_runs(
    before_training: Path,
    untracked: tuple[float, dict[str, bytes]],
    tmp_path: Path,
    empty_store: Path,
    record_property: Callable[[str, int], None],
) -> None:
    dice, trials = random.Random(13), 4
    record_property("trials", trials)
    for trial in range(trials):
        folder = shutil.copytree(before_training, tmp_path / f"project {trial}")
        store = tmp_path / f"server {trial}"
        store.mkdir()
        with real_server(store, empty_store) as (address, server):
            killer = threading.Timer(dice.uniform(1, untracked[0] + 3), kill, [server])
            killer.start()
            seconds, _, files = train(folder, MLFLOW_TRACKING_URI=address)
            killer.join()
        assert files == untracked[1]
        assert seconds < untracked[0] + TIME_LOST
        # Once it is back, what it had stored is completed, and nothing is there twice.
        with real_server(store, empty_store) as (address, _):
            check_training(folder, files, address)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_row_13_the_whole_pipeline_is_the_same_with_a_server_that_refuses(tmp_path: Path) -> None:
    printed = {}
    for name, settings in {"off": {}, "refusing": {"MLFLOW_TRACKING_URI": REFUSING}}.items():
        folder = copy_project(tmp_path / name)
        printed[name] = ended(repro(folder, **settings))
    assert "lora-compare sync" in printed["refusing"]
    assert outputs(tmp_path / "off") == outputs(tmp_path / "refusing")


@pytest.mark.slow
@pytest.mark.timeout(600)  # thirty processes that import MLflow
@pytest.mark.parametrize(
    ("stages", "trials"),
    [
        (["download", "finetune@lora"], 1),
        (["download", "split", "base_model", "finetune@full", "finetune@lora", "compare"], 5),
    ],
    ids=["two", "six"],
)
def test_row_14_stages_that_meet_a_fresh_store_at_once_make_one_experiment(
    tmp_path: Path, stages: list[str], trials: int, record_property: Callable[[str, int], None]
) -> None:
    record_property("trials", trials)
    for trial in range(trials):
        root = tmp_path / str(trial)
        project = TrackedProject(root)
        log_at_once(project, *stages)
        project.wait_or_deliver()
        client = store_client(f"sqlite:///{root / 'mlflow.db'}")
        experiments = {e.name: e.experiment_id for e in client.search_experiments()}
        assert sorted(experiments) == ["Default", "a comparison"]
        runs = client.search_runs([experiments["a comparison"]])
        names = sorted(run.info.run_name.split()[0] for run in runs)
        expected = RUNS if "compare" in stages else ["download", "lora", "pipeline"]
        assert names == expected
