"""The process that shows a stage in MLflow: what it is told, and what becomes of its failure."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lora_compare.cli.stage import stage
from lora_compare.errors import UserError
from lora_compare.params import Params
from lora_compare.project.paths import Paths
from lora_compare.project.progress import SILENT, Progress
from lora_compare.tracking import live_run, process
from lora_compare.tracking.process import Tracker, serve
from lora_compare.tracking.store import Store
from tracked_project import history, store_client, write_project


@pytest.fixture
def project(
    tmp_path: Path, empty_store: Path, no_tracking_settings: None, monkeypatch: pytest.MonkeyPatch
) -> tuple[Paths, Params]:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    return write_project(tmp_path)


def run_of(paths: Paths, name: str) -> Any:
    client = store_client(f"sqlite:///{paths.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("a comparison").experiment_id
    (run,) = (r for r in client.search_runs([experiment]) if r.info.run_name == name)
    return run


def test_a_stages_run_lasts_as_long_as_its_work(project: tuple[Paths, Params]) -> None:
    @stage("split")
    def main(paths: Paths, params: Params, progress: Progress) -> None:
        import time

        time.sleep(0.05)

    assert CliRunner().invoke(main).exit_code == 0
    info = run_of(project[0], "split").info
    assert info.end_time - info.start_time >= 50


def test_a_training_that_fails_is_shown_as_failed_with_its_curves(
    project: tuple[Paths, Params],
) -> None:
    @stage("finetune", per_method=True, live=True)
    def main(paths: Paths, params: Params, progress: Progress, method: str, live: Tracker) -> None:
        for row in history()[:2]:
            live.log(row)
        raise UserError("The loss is not finite.")

    result = CliRunner().invoke(main, ["lora"])
    assert result.exit_code == 2
    assert "The loss is not finite." in result.output
    run = run_of(project[0], "lora")
    assert run.info.status == "FAILED"
    assert run.data.metrics["train/loss"] == history()[1]["train_loss"]


def test_a_training_that_dies_without_a_word_is_shown_as_killed(
    project: tuple[Paths, Params],
) -> None:
    serve(project[0], "finetune", "lora", [json.dumps({"rows": history()[:1]})], SILENT)
    assert run_of(project[0], "lora").info.status == "KILLED"


class Pipe:
    """Stands for a process: keeps the lines that it is sent."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stdin = self
        self.flush = self.close = lambda: None

    def write(self, line: str) -> None:
        self.lines.append(line)


def test_the_history_goes_out_once_an_epoch(project: tuple[Paths, Params]) -> None:
    pipe = Pipe()
    tracker = Tracker(pipe)  # type: ignore[arg-type]
    rows = [{"epoch": quarter / 4, "step": quarter} for quarter in range(9)]
    for row in rows:
        tracker.log(row)
    tracker.close()
    sent = [json.loads(line)["rows"] for line in pipe.lines]
    assert [len(batch) for batch in sent] == [1, 4, 4]
    assert [row for batch in sent for row in batch] == rows


def test_an_epochs_rows_are_one_request(
    project: tuple[Paths, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = live_run(*project, "lora", SILENT)
    requests: list[str] = []
    log = Store.log
    monkeypatch.setattr(Store, "log", lambda *a, **k: (requests.append(a[1]), log(*a, **k)))
    live.log(history())
    assert len(requests) == 1
    assert run_of(project[0], "lora").data.metrics["train/loss"] == history()[-1]["train_loss"]


def test_a_training_never_waits_for_a_tracker_that_takes_nothing() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(1000)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as deaf:
        tracker = Tracker(deaf)
        for row in history() * 2000:  # many times what a pipe holds
            tracker.log(row | {"epoch": 1.0})
        deaf.kill()
        tracker.close()


def test_a_tracker_that_dies_costs_a_warning_and_no_stage(
    project: tuple[Paths, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "COMMAND", "raise SystemExit(3)")

    @stage("split")
    def main(paths: Paths, params: Params, progress: Progress) -> None:
        progress.say("split done")

    result = CliRunner().invoke(main)
    assert result.exit_code == 0
    assert "split done" in result.output
    assert "ended with 3" in result.output
    assert "lora-compare sync" in result.output


def test_a_tracking_that_is_switched_off_starts_no_process(
    project: tuple[Paths, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    monkeypatch.setattr(process, "COMMAND", "raise SystemExit(3)")

    @stage("split")
    def main(paths: Paths, params: Params, progress: Progress) -> None:
        progress.say("split done")

    result = CliRunner().invoke(main)
    assert (result.exit_code, result.output) == (0, "split done\n")
