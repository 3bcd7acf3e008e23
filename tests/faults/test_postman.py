"""The postman is killed, its project deleted, its store locked; no stage notices."""

import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from click.testing import CliRunner

from lora_compare.cli import postman
from lora_compare.cli.stage import stage
from lora_compare.errors import UserError
from lora_compare.params import Params
from lora_compare.project.paths import Paths
from lora_compare.project.progress import Progress
from lora_compare.tracking import tracker as tracking
from lora_compare.tracking.store import Store
from small_project import environment
from tracked_project import (
    LOG_STAGE,
    RUNS,
    STAGES,
    Lines,
    TrackedProject,
    history,
    postmen,
    wait_until,
)

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("no_tracking_settings")]

GONE = 15.0
"""Seconds after the last stage at which no process is left."""


@pytest.fixture
def project(tmp_path: Path, empty_store: Path) -> Iterator[TrackedProject]:
    """A project as its stages leave it; its store has no experiment yet."""
    project = TrackedProject.with_store(tmp_path / "ein Projekt ü", empty_store)
    yield project
    for process in postmen(project.paths.root):
        process.kill()


def run(project: TrackedProject, name: str, *, rows: bool = True, pause: float = 0.0) -> None:
    """Run a stage that a postman of its own process serves."""
    hire = partial(postman.hire, project.paths)
    own, _, method = name.partition("@")
    start = time.monotonic()
    with tracking.tracker(
        project.paths, project.params, own, Lines(), hire, method or None
    ) as tracked:
        for row in history() if own == "finetune" and rows else ():
            tracked.log(row)
            time.sleep(pause)
        tracked.finish()
    working = pause * len(history())
    assert own == "compare" or time.monotonic() - start < working + 5, "no stage waits"


def check_all_is_there_once(project: TrackedProject) -> None:
    assert project.names() == RUNS
    assert {shown.info.status for shown in project.runs()} == {"FINISHED"}
    for method in ("full", "lora"):
        assert [step for step, _ in project.curve(method, "train/loss")] == [0, 10, 20, 30, 40]
    assert "history.csv" in project.files("lora")
    assert project.sync().published == ()


KILLED = 8
"""Projects whose postman is killed again and again."""


def kill_now_and_then(
    project: TrackedProject, dice: random.Random, done: Event, killed: list[int]
) -> None:
    while not done.wait(dice.uniform(0.2, 4.0)):
        for process in postmen(project.paths.root):
            process.kill()
            killed.append(process.pid)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_row_32_a_postman_killed_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path,
    empty_store: Path,
    record_property: Callable[[str, int], None],
) -> None:
    record_property("trials", KILLED)
    for trial in range(KILLED):
        project = TrackedProject.with_store(tmp_path / str(trial), empty_store)
        done, killed = Event(), list[int]()
        dice = random.Random(trial)
        killer = Thread(target=kill_now_and_then, args=(project, dice, done, killed))
        killer.start()
        try:
            for name in STAGES[:-1]:
                run(project, name, pause=1.0)
        finally:
            done.set()
            killer.join()
        run(project, "compare")
        project.wait()
        assert killed
        check_all_is_there_once(project)


@pytest.mark.slow
def test_row_32_no_process_is_left_and_no_pipe_held_open_after_the_last_stage(
    project: TrackedProject,
) -> None:
    done = subprocess.run(  # it ends when nobody holds its output any more
        [sys.executable, "-c", LOG_STAGE, str(project.paths.root), "split"],
        env=environment(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    ended = time.monotonic()
    assert done.stderr == b""
    assert postmen(project.paths.root)
    wait_until(lambda: not postmen(project.paths.root), GONE)
    assert time.monotonic() - ended < GONE
    assert project.names() == ["pipeline", "split"]
    assert project.letters() == []


@pytest.mark.parametrize("moment", [0.3, pytest.param(2.5, marks=pytest.mark.slow)])
def test_row_32_a_deleted_project_is_not_brought_back(
    project: TrackedProject, moment: float
) -> None:
    run(project, "split")
    wait_until(lambda: postmen(project.paths.root))
    time.sleep(moment)
    # What the postman writes at this moment may appear in a folder that has just been emptied.
    wait_until(lambda: shutil.rmtree(project.paths.root, True) or not project.paths.root.exists())
    wait_until(lambda: not postmen(project.paths.root), GONE)
    assert not project.paths.root.exists()


@pytest.mark.slow
def test_row_32_a_locked_store_holds_up_no_stage_and_gets_all_of_it_later(
    project: TrackedProject,
) -> None:
    database = project.paths.root / "mlflow.db"
    with closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        run(project, "download")
        run(project, "finetune@lora")
        wait_until(lambda: all(letter.is_returned for letter in project.letters()))
        other.rollback()
    hire = partial(postman.hire, project.paths)
    with tracking.tracker(project.paths, project.params, "split", Lines(), hire) as tracked:
        # While a stage works the postman stays, however slow the machine.
        wait_until(lambda: len(project.letters()) == 1)
        tracked.finish()
    project.wait_or_deliver()
    assert project.names() == ["download", "lora", "pipeline", "split"]
    assert len(project.curve("lora", "train/loss")) == len(history())


@pytest.mark.slow
def test_two_projects_have_a_postman_each(tmp_path: Path, empty_store: Path) -> None:
    projects = [TrackedProject.with_store(tmp_path / name, empty_store) for name in "ab"]
    for each in projects:
        run(each, "split")
    wait_until(lambda: all(postmen(each.paths.root) for each in projects))
    shutil.rmtree(projects[0].paths.root)
    run(projects[1], "download")
    projects[1].wait()
    assert projects[1].names() == ["download", "pipeline", "split"]
    wait_until(lambda: not any(postmen(each.paths.root) for each in projects), GONE)


@pytest.mark.slow
def test_a_copy_of_the_project_in_which_dvc_runs_an_experiment_shares_its_mailbox(
    project: TrackedProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = TrackedProject(tmp_path / "copy")
    monkeypatch.setenv("DVC_ROOT", str(project.paths.root))
    monkeypatch.setenv("DVC_EXP_NAME", "rank-8")
    run(copy, "split")
    shutil.rmtree(copy.paths.root)  # as DVC does
    project.wait()
    assert "split (rank-8)" in [shown.info.run_name for shown in project.runs()]
    assert not copy.paths.root.exists()


def test_a_letter_to_another_store_is_left_alone_until_that_has_refused_it(
    project: TrackedProject, tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(empty_store, tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    project.log("download", deliver=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    project.log("split")
    assert project.waiting() == ["download"]
    project.letters()[0].give_back()
    project.deliver()
    assert project.names() == ["download", "pipeline", "split"]


def test_the_new_rows_of_a_training_are_one_request_however_often_they_come(
    project: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    log = Store.log

    def counting(store: Store, run_id: str, points: Any = (), *more: Any, **others: Any) -> None:
        sent.append(len(points))
        log(store, run_id, points, *more, **others)

    monkeypatch.setattr(Store, "log", counting)
    with project.stage("finetune@lora") as tracked:
        for row in history()[:2]:
            tracked.log(row)
        project.deliver()
        sent.clear()
        for row in history()[2:]:
            tracked.log(row)
        project.deliver()
        project.deliver()
        assert sent == [5 * len(history()[2:])]
        # Another postman reads the letter from its beginning.
        project._postmen.clear()
        project.deliver()
        assert len(project.curve("lora", "train/loss")) == len(history())
        tracked.finish()
    assert project.run("lora").info.status == "FINISHED"


@pytest.fixture
def here(project: TrackedProject, monkeypatch: pytest.MonkeyPatch) -> TrackedProject:
    """The project as the current folder, with no postman at all."""
    monkeypatch.chdir(project.paths.root)
    monkeypatch.setattr(postman, "COMMAND", (sys.executable, "-c", ""))
    return project


def split(paths: Paths, params: Params, progress: Progress) -> None:
    progress.say("split done")


@pytest.mark.parametrize("rows", [0, 2])
def test_a_training_that_fails_is_shown_as_failed_with_its_curves_if_it_has_any(
    here: TrackedProject, rows: int
) -> None:
    @stage("finetune", per_method=True, live=True)
    def main(
        paths: Paths,
        params: Params,
        progress: Progress,
        method: str,
        show: Callable[[Mapping[str, Any]], None],
    ) -> None:
        for row in history()[:rows]:
            show(row)
        raise UserError("The loss is not finite.")

    result = CliRunner().invoke(main, ["lora"])
    assert (result.exit_code, "The loss is not finite." in result.output) == (2, True)
    here.deliver()
    assert here.letters() == []
    assert here.names() == (["lora", "pipeline"] if rows else [])
    if rows:
        assert here.run("lora").info.status == "FAILED"
        assert here.run("lora").data.metrics["train/loss"] == history()[1]["train_loss"]


def test_a_postman_that_does_not_live_costs_the_last_stage_a_warning(
    here: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "LONGEST_WAIT", 0.5)
    result = CliRunner().invoke(stage("split")(split))
    assert (result.exit_code, result.output) == (0, "split done\n")
    result = CliRunner().invoke(stage("compare")(split))
    assert result.exit_code == 0
    assert "it takes too long to answer" in result.output
    assert "lora-compare sync" in result.output
    assert here.waiting() == ["split", "compare"]


def test_a_mailbox_that_cannot_be_written_costs_a_warning_and_no_stage(
    here: TrackedProject,
) -> None:
    (here.paths.root / ".tracking").write_text("in the way")
    result = CliRunner().invoke(stage("split")(split))
    assert result.exit_code == 0, result.output
    assert "split done" in result.output
    assert result.output.count("warning: this run cannot be kept for MLflow") == 1


def test_a_tracking_that_is_switched_off_leaves_no_letter(
    here: TrackedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    result = CliRunner().invoke(stage("compare")(split))
    assert (result.exit_code, result.output) == (0, "split done\n")
    assert not (here.paths.root / ".tracking").exists()


def test_a_stage_loads_nothing_of_mlflow(here: TrackedProject) -> None:
    code = (
        f"{LOG_STAGE}\nprint([m for m in ('mlflow', 'requests', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(here.paths.root), "finetune@lora"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
