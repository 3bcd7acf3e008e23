"""Several trainings at once, and what becomes of the others when one or their stage ends badly."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from faults.test_training_faults import (
    checkpoints,
    code,
    go_on,
    outputs,
    trained_anew,
    untrained,
    wait_for,
)
from small_project import started

SEEDS = {"seeds": "[1, 2, 3]", "checkpoint_every": 0, "lora_dropout": 0.1}

IN_A_WORKER = """
import lora_compare.training.{module} as module
train_one = module.train_one
def sabotaged(job, tell):
    import os, signal, time
    from lora_compare.training import loop
    left, original = {steps}, loop.optimizer_step
    def step(*arguments, **named):
        nonlocal left
        if left == 0 and job.training.seed in {seeds}:
            {deed}
        left -= 1
        return original(*arguments, **named)
    loop.optimizer_step = step
    try:
        return train_one(job, tell)
    finally:
        loop.optimizer_step = original
module.train_one = sabotaged
"""
"""What makes ready the processes of trainings, which know nothing of their parent's changes."""

TWO = {"LORA_COMPARE_TRACKING": "off", "LORA_COMPARE_PROCESSES": "2"}


@pytest.fixture(scope="module")
def undisturbed(trained_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose adapter was trained with three seeds, one after the other."""
    folder = tmp_path_factory.mktemp("undisturbed") / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_COMPARE_PROCESSES", "1")
        return trained_anew(trained_project, folder, ["lora"], **SEEDS)


@pytest.fixture
def project(undisturbed: Path, tmp_path: Path) -> Path:
    """The project as it was before it was trained."""
    return untrained(undisturbed, tmp_path / "project")


@contextmanager
def finetuning(
    project: Path, steps: int, seeds: tuple[int, ...], deed: str
) -> "Iterator[subprocess.Popen[str]]":
    """Train with two processes, which do a deed before a step of these seeds."""
    prelude = IN_A_WORKER.format(module="trainings", steps=steps, seeds=seeds, deed=deed)
    with started(project, sys.executable, "-c", code("lora", prelude), **TWO) as stage:
        yield stage


def failed(project: Path, steps: int, seed: int, deed: str) -> str:
    """Train, and return what is printed when one seed has failed."""
    with finetuning(project, steps, (seed,), deed) as stage:
        output, _ = stage.communicate(timeout=200)
    assert stage.returncode == 2, output
    assert "Traceback" not in output
    assert outputs(project, "lora") == {}
    return output


def goes_on(project: Path, undisturbed: Path, *said: str) -> None:
    """Train again, one after the other, which must say this and end as if nothing had happened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_COMPARE_PROCESSES", "1")
        output = go_on(project, "lora")
    assert not [text for text in said if text not in output], output
    assert outputs(project, "lora") == outputs(undisturbed, "lora")


def are_gone(processes: list[psutil.Process]) -> bool:
    """Return whether none of these runs; one that nobody has asked how it ended is still listed."""
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            continue
    return True


@pytest.mark.slow
def test_row_33_a_killed_process_is_named_and_its_training_alone_goes_on(
    undisturbed: Path, project: Path
) -> None:
    output = failed(project, 4, 2, "os.kill(os.getpid(), signal.SIGKILL)")
    assert re.search(r"where: +seed 2, process \d+", output)
    assert "SIGKILL" in output
    assert re.search(r"kept: +the last checkpoint\n +and, finished: seed 1; seed 3", output)
    assert "LORA_COMPARE_PROCESSES=1 dvc repro" in output
    goes_on(project, undisturbed, "go on after step 4")


@pytest.mark.slow
def test_row_33_a_loss_that_is_no_number_is_that_of_one_seed(
    undisturbed: Path, project: Path
) -> None:
    output = failed(project, 2, 1, "next(arguments[0].parameters()).data.fill_(float('inf'))")
    assert "finetune lora, seed 1: The loss is nan. The others go on." in output
    assert re.search(r"where: +seed 1, step 3, learning rate", output)
    assert "and, finished: seed 2; seed 3" in output
    goes_on(project, undisturbed, "go on after step 2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130)],
)
def test_row_04_a_signal_ends_all_with_their_checkpoints(
    signum: signal.Signals, code: int, undisturbed: Path, project: Path
) -> None:
    deed = "tell(('say', f'seed {job.training.seed} waits')); time.sleep(2)"
    with finetuning(project, 3, (1, 2), deed) as stage:
        wait_for(lambda: len(checkpoints(project, "lora")) == 2)
        workers = psutil.Process(stage.pid).children(recursive=True)
        assert stage.stdout is not None
        while "waits" not in stage.stdout.readline():
            pass
        # Ctrl-C reaches every process of a terminal, SIGTERM the one that is named.
        os.killpg(stage.pid, signum) if signum == signal.SIGINT else stage.send_signal(signum)
        output, _ = stage.communicate(timeout=100)
    assert stage.returncode == code, output
    folder = project / ".checkpoints" / "finetune@lora"
    where = f"its trainings are kept in {folder}; dvc repro goes on from there"
    assert f"finetune@lora: ended by {signum.name}; {where}" in output
    assert "Traceback" not in output
    wait_for(lambda: are_gone(workers), 10)
    goes_on(project, undisturbed, "go on after step 4")


@pytest.mark.slow
def test_row_01_a_killed_stage_leaves_no_process_and_goes_on(
    undisturbed: Path, project: Path
) -> None:
    with finetuning(project, 3, (1, 2), "time.sleep(600)") as stage:
        wait_for(lambda: len(checkpoints(project, "lora")) == 2)
        workers = psutil.Process(stage.pid).children(recursive=True)
        assert len(workers) >= 2
        stage.kill()
        wait_for(lambda: are_gone(workers), 10)
    goes_on(project, undisturbed, "go on after step")
