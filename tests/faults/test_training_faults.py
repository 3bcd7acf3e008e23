"""A training that is killed, stopped, ruined, starved or changed under its checkpoint."""

import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import torch

from dvc_runs import ended, repro
from dvc_runs import outputs as recorded
from lora_compare.models.tokens import read_examples, write_examples
from lora_compare.project.checksums import seal
from small_project import (
    METHODS,
    ROOT,
    copy_project,
    environment,
    run,
    run_stages,
    write_settings,
)

STEPS = 11
"""Optimizer steps of the small project's training."""

BEFORE_A_STEP = """
from lora_compare.training import loop as training
left, original = {steps}, training.optimizer_step
def step(*arguments, **named):
    global left
    if left == 0:
        {deed}
    left -= 1
    return original(*arguments, **named)
training.optimizer_step = step
"""

WHILE_WRITING = """
from pathlib import Path
from lora_compare.project import files
from lora_compare.models import weights
left = {checkpoints}
def reached(point, path):
    global left
    folder, checkpoint = Path(path).parent, False
    if folder.parent.name == ".checkpoints":  # not that of a finished training
        checkpoint = str(path).endswith((".tmp", ".safetensors"))
    if checkpoint and point == {point!r}:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sync, replace, save = files._sync, Path.replace, weights.save_file
def half(tensors, path, *rest):
    save(tensors, path, *rest)
    if left == 1 and {point!r} == "half written":
        os.truncate(path, os.path.getsize(path) // 2)
    reached("half written", path)
weights.save_file = half
def syncing(path):
    reached("before fsync", path)
    sync(path)
files._sync = syncing
def replacing(self, target):
    reached("before the rename", self)
    result = replace(self, target)
    reached("after the rename", self)
    return result
Path.replace = replacing
"""

RUN = """
sys.argv = ["stages/finetune.py", {method!r}]
runpy.run_path({stage!r}, run_name="__main__")
"""


def finetune(project: Path, method: str, prelude: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the stage in a process of its own, which does `prelude` first."""
    return subprocess.run(
        [sys.executable, "-c", code(method, prelude)],
        cwd=project,
        env=environment(LORA_COMPARE_TRACKING="off"),
        capture_output=True,
        text=True,
    )


def code(method: str, prelude: str) -> str:
    stage = str(ROOT / "stages" / "finetune.py")
    return f"import os, runpy, signal, sys\n{prelude}" + RUN.format(method=method, stage=stage)


def go_on(project: Path, method: str) -> str:
    """Run the stage again in this process, and return what it said; it must end well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("LORA_COMPARE_TRACKING", "off")
        result = run("finetune", method)
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert not checkpoints(project, method)
    return result.output


def outputs(project: Path, method: str) -> dict[str, bytes]:
    """Return the bytes of all that the stage writes, but for times and memory."""
    found = [*(project / "models" / method).rglob("*"), *history(project, method)]
    return {str(p.relative_to(project)): p.read_bytes() for p in found if p.is_file()}


def history(project: Path, method: str) -> Iterator[Path]:
    return (project / "reports" / "training" / method).glob("history.csv")


def checkpoints(project: Path, method: str) -> list[Path]:
    """Return the files of trainings that are not finished."""
    return sorted((project / ".checkpoints" / f"finetune@{method}").glob("*.safetensors"))


@pytest.fixture(scope="module")
def trained(trained_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with both methods trained without a disturbance, dropout in one of them."""
    folder = tmp_path_factory.mktemp("trained") / "project"
    return trained_anew(trained_project, folder, METHODS, checkpoint_every=0, lora_dropout=0.1)


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """The project as it was before it was trained."""
    return untrained(trained, tmp_path / "project")


def trained_anew(
    trained_project: Path, folder: Path, methods: Sequence[str], **changes: object
) -> Path:
    """Copy a project to `folder`, and train methods there with other settings; return `folder`."""
    shutil.copytree(trained_project, folder)
    write_settings(folder, **changes)
    return run_stages(folder, *(f"finetune@{method}" for method in methods))


def untrained(trained: Path, folder: Path) -> Path:
    """Copy a project to `folder` as it was before it was trained, and return `folder`."""
    shutil.copytree(trained, folder)
    untrain(folder)
    return folder


def untrain(project: Path) -> None:
    trained = (project / "models" / method for method in METHODS)
    for folder in (*trained, project / "reports", *project.glob(".checkpoints/finetune@*/")):
        shutil.rmtree(folder, ignore_errors=True)


Record = Callable[[str, object], None]


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def kill_and_go_on(trained: Path, project: Path, method: str, steps: int) -> None:
    untrain(project)
    killed = finetune(project, method, BEFORE_A_STEP.format(steps=steps, deed=KILL))
    assert killed.returncode == -signal.SIGKILL
    assert outputs(project, method) == {}
    said = go_on(project, method)
    assert f"go on after step {steps}, from " in said or not steps
    assert outputs(project, method) == outputs(trained, method)


def test_row_01_a_killed_training_goes_on_to_the_same_bytes(trained: Path, project: Path) -> None:
    kill_and_go_on(trained, project, "lora", random.Random(1).randrange(1, STEPS))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", METHODS)
def test_row_01_killed_at_twenty_steps(
    method: str, trained: Path, project: Path, record_property: Record
) -> None:
    dice = random.Random(1)
    for _ in range(20):
        kill_and_go_on(trained, project, method, dice.randrange(STEPS))
    record_property("trials", 20)


def kill_while_writing(
    trained: Path, project: Path, method: str, point: str, checkpoints: int
) -> None:
    untrain(project)
    prelude = WHILE_WRITING.format(checkpoints=checkpoints, point=point)
    killed = finetune(project, method, prelude)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = checkpoints if point == "after the rename" else checkpoints - 1
    assert (f"go on after step {kept}, from " in go_on(project, method)) == (kept > 0)
    assert outputs(project, method) == outputs(trained, method)
    assert not list((project / ".checkpoints").rglob(".*.tmp"))


POINTS = ["half written", "before fsync", "before the rename", "after the rename"]


@pytest.mark.slow
def test_row_02_killed_while_a_checkpoint_is_written(trained: Path, project: Path) -> None:
    kill_while_writing(trained, project, "lora", "half written", 4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("point", POINTS)
def test_row_02_killed_at_every_point_of_writing(
    point: str, trained: Path, project: Path, record_property: Record
) -> None:
    trials = [("full", 1), ("lora", 2), ("full", 7)]
    for method, checkpoints in trials:
        kill_while_writing(trained, project, method, point, checkpoints)
    record_property("trials", len(trials))


@pytest.mark.slow
def test_row_04_a_signal_ends_it_with_a_checkpoint(trained: Path, project: Path) -> None:
    write_settings(project, checkpoint_every="null", lora_dropout=0.1)
    kept = 0
    for signum, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        deed = f"os.kill(os.getpid(), {int(signum)})"
        ended = finetune(project, "lora", BEFORE_A_STEP.format(steps=3, deed=deed))
        assert ended.returncode == code
        assert f"go on after step {kept}, from " in ended.stderr or not kept
        kept += 4  # the step is finished first
        where = f"step {kept} is kept in {checkpoints(project, 'lora')[0]}"
        said = f"finetune@lora: ended by {signum.name}; {where}; dvc repro goes on from there"
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr
    write_settings(project, checkpoint_every=0, lora_dropout=0.1)
    assert "go on after step 8" in go_on(project, "lora")
    assert outputs(project, "lora") == outputs(trained, "lora")


@pytest.mark.slow
def test_row_21_what_is_no_number_keeps_the_last_good_checkpoint(project: Path) -> None:
    gradient = "arguments[0].score.weight.register_hook(lambda gradient: gradient * float('nan'))"
    ended = finetune(project, "full", BEFORE_A_STEP.format(steps=2, deed=gradient))
    assert ended.returncode == 2
    # The step that it spoils is not kept; it is seen in the loss of the next.
    assert "step 4, learning rate" in ended.stderr
    loss = "arguments[0].score.weight.data.fill_(float('inf'))"
    ended = finetune(project, "full", BEFORE_A_STEP.format(steps=2, deed=loss))
    assert ended.returncode == 2
    assert "go on after step 2" in ended.stderr
    assert "The loss is nan" in ended.stderr
    assert re.search(
        r"step 5, learning rate [\d.e-]+, rows [\d, ]+ of data/splits/train.csv", ended.stderr
    )
    assert "go on after step 4" in go_on(project, "full")


@pytest.mark.slow
def test_row_22_memory_that_runs_out_names_batch_and_length(project: Path) -> None:
    prelude = """
held = []
def fill():
    "Take the memory that is free in steps, so that the next tensor finds none."
    import psutil, resource, torch
    limit = psutil.Process().memory_info().vms + 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    size = 2**24
    while size >= 2**15:
        try:
            held.append(torch.empty(size, dtype=torch.uint8))
        except RuntimeError:
            size //= 2
"""
    ended = finetune(project, "full", prelude + BEFORE_A_STEP.format(steps=4, deed="fill()"))
    assert ended.returncode == 2, ended.stderr
    assert "The memory does not suffice." in ended.stderr
    assert re.search(r"step 5, batches of 8 messages, the longest of \d+ tokens", ended.stderr)
    assert "Traceback" not in ended.stderr
    assert "go on after step 4" in go_on(project, "full")


@pytest.fixture(scope="module")
def killed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose training was killed after five steps."""
    folder = untrained(trained, tmp_path_factory.mktemp("killed") / "project")
    finetune(folder, "lora", BEFORE_A_STEP.format(steps=5, deed=KILL))
    return folder


def other_settings(project: Path) -> None:
    write_settings(project, checkpoint_every=0, batch_size=16, lora_dropout=0.1, lora_alpha=8)


def other_data(project: Path) -> None:
    tokens = project / "data" / "tokens" / "train.safetensors"
    examples = read_examples(tokens)
    write_examples(tokens, examples.take(range(len(examples))[::-1]))
    seal(tokens.parent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            other_settings,
            ["training.batch_size was 8, is 16", "method.lora.lora_alpha was 4"],
            marks=pytest.mark.slow,
        ),
        (other_data, ["train was "]),
        pytest.param(
            lambda _: torch.__setattr__("__version__", "2.99.0"),
            ["torch was 2.", "is 2.99.0"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["settings", "data", "torch"],
)
def test_row_23_what_changes_under_a_checkpoint_is_shown_and_it_is_not_used(
    change: Callable[[Path], object],
    said: list[str],
    killed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "__version__", torch.__version__)  # undone at the end
    folder = tmp_path / "project"
    shutil.copytree(killed, folder)
    change(folder)
    output = go_on(folder, "lora")
    assert "the checkpoint of step 5 is not used: " in output
    assert not [part for part in said if part not in output], output


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


@pytest.mark.slow
def test_row_03_a_stage_ends_with_the_dvc_that_started_it(tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "project", checkpoint_every=0, epochs=20)
    first = repro(folder, "finetune@lora")
    wait_for(lambda: bool(checkpoints(folder, "lora")))
    stage = psutil.Process(int((folder / ".checkpoints" / "finetune@lora.pid").read_text()))
    stage.suspend()  # it would have ended before the other has started
    first.kill()
    second = finetune(folder, "lora")
    stage.resume()
    assert second.returncode == 2
    assert f"process {stage.pid} writes its outputs" in second.stderr
    wait_for(lambda: not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE)
    assert checkpoints(folder, "lora")
    assert not (folder / "models" / "lora").exists()
    output, _ = first.communicate()
    assert "dvc, which started this stage, has ended" in output
    assert "go on after step" in ended(repro(folder, "finetune@lora"))
    undisturbed = copy_project(tmp_path / "undisturbed", checkpoint_every=0, epochs=20)
    ended(repro(undisturbed, "finetune@lora"))
    assert recorded(folder) == recorded(undisturbed)


@pytest.mark.slow
def test_row_12_the_same_stage_runs_once_at_a_time(project: Path) -> None:
    deed = "print('reached', flush=True); sys.stdin.readline()"
    with subprocess.Popen(
        [sys.executable, "-c", code("lora", BEFORE_A_STEP.format(steps=3, deed=deed))],
        cwd=project,
        env=environment(LORA_COMPARE_TRACKING="off"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "reached\n"
        second = finetune(project, "lora")
        assert second.returncode == 2
        assert f"process {first.pid} writes its outputs" in second.stderr
        first.stdin.write("\n")
        first.stdin.flush()
        assert first.wait() == 0
    assert not checkpoints(project, "lora")
