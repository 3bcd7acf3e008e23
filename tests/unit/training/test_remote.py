"""A training whose inputs and result travel as bytes leaves what one on this machine leaves."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from faults.test_training_faults import checkpoints, outputs, trained_anew, untrained
from lora_compare.compute.device import Machine
from lora_compare.compute.engines.crew import WORKER, Inputs, attempt
from lora_compare.errors import ClusterError
from lora_compare.training import trainings
from lora_compare.training.remote import CHECKPOINT, Remote
from small_project import run

SETTINGS = {"checkpoint_every": 0, "lora_dropout": 0.1}


class Elsewhere:
    """A cluster of one worker, which is this process, and of which tasks may be lost.

    Attributes:
        tasks: What was given out.
        told: What was told, but for a checkpoint's bytes.
    """

    def __init__(self, change: Callable[[Remote], Remote] = lambda task: task, times: int = 1):
        self.tasks: list[Remote] = []
        self.told: list[Any] = []
        self._change, self._times = change, times

    def describe(self) -> str:
        return "elsewhere"

    def hire(
        self, work: Any, tasks: Sequence[Remote], inputs: Inputs, machine: Machine
    ) -> "Elsewhere":
        self.tasks = [self._change(task) for task in tasks]
        self._work = partial(attempt, work, inputs=inputs)
        self._left = list(enumerate(self.tasks))
        return self

    def is_busy(self) -> bool:
        return bool(self._left)

    def news(self, hear: Callable[[int, Any], None]) -> Iterator[tuple[int, Any]]:
        number, task = self._left.pop(0)

        def tell(message: Any) -> None:
            self.told.append(message[0])
            hear(number, message)

        for time in range(self._times):
            outcome = self._work(task=task, tell=tell, worker=f"worker {time}")
        yield number, outcome

    def end(self) -> None:
        self._left.clear()

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def here(trained_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose adapter was trained on this machine."""
    folder = tmp_path_factory.mktemp("here") / "project"
    return trained_anew(trained_project, folder, ["lora"], **SETTINGS)


@pytest.fixture
def project(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project before it was trained, as the current folder."""
    folder = untrained(here, tmp_path / "project")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    return folder


@pytest.mark.slow
def test_it_leaves_the_same_files_and_brings_its_checkpoints_home(
    here: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Elsewhere(times=2)
    monkeypatch.setattr(trainings, "choose_cluster", lambda: cluster)
    result = run("finetune", "lora")
    assert result.exit_code == 0, result.output
    assert "finetune lora: 1 training, elsewhere" in result.output
    again = "seed 123: its worker (worker 0) is gone; it is trained again (worker 1)"
    assert again in result.output
    assert outputs(project, "lora") == outputs(here, "lora")
    assert cluster.told[0] == WORKER
    assert cluster.told.count(CHECKPOINT) > 10
    assert checkpoints(project, "lora") == []
    (kept,) = project.glob(".checkpoints/finetune@lora/seed-123-*")
    (expected,) = here.glob(".checkpoints/finetune@lora/seed-123-*")
    assert kept.name == expected.name
    files = {path.relative_to(kept) for path in kept.rglob("*")}
    assert files == {path.relative_to(expected) for path in expected.rglob("*")}


def test_rows_that_are_told_again_are_shown_once(
    here: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[float] = []
    monkeypatch.setattr(trainings, "choose_cluster", lambda: Elsewhere(times=2))
    monkeypatch.setattr(
        "lora_compare.tracking.tracker.Tracker.log", lambda self, row: shown.append(row["step"])
    )
    assert run("finetune", "lora").exit_code == 0
    assert shown == sorted(set(shown))
    assert len(shown) > 2


def test_a_worker_that_would_train_something_else_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_facts(task: Remote) -> Remote:
        facts = {**task.job.facts, "torch": "1.0", "dtype": "torch.float16"}
        return replace(task, job=replace(task.job, facts=facts))

    monkeypatch.setattr(trainings, "choose_cluster", lambda: Elsewhere(with_facts))
    result = run("finetune", "lora")
    assert result.exit_code == 2
    assert "A worker would train something else." in result.output
    assert "worker worker 0" in result.output
    assert "dtype was torch.float16, is torch.float32" in result.output
    assert "torch was 1.0" in result.output
    assert ClusterError not in trainings.OF_ONE
