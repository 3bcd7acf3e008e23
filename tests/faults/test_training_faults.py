"""A training that is killed, stopped, ruined, starved or changed under its checkpoint."""

import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dvc_runs import outputs as recorded
from lora_compare.models.tokens import read_examples, write_examples
from lora_compare.project.checksums import seal
from small_project import ROOT, copy_project, environment, small_params

METHODS = ["full", "lora"]

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
    checkpoint = ".checkpoints" in str(path) and str(path).endswith((".tmp", ".safetensors"))
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


def finetune(
    project: Path, method: str, prelude: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the stage in a process of its own, which does `prelude` first."""
    stage = str(ROOT / "stages" / "finetune.py")
    code = "import os, runpy, signal, sys\n" + prelude + RUN.format(method=method, stage=stage)
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env=environment(LORA_COMPARE_TRACKING="off", **variables),
        capture_output=True,
        text=True,
    )


def outputs(project: Path, method: str) -> dict[str, bytes]:
    """Return the bytes of all that the stage writes, but for times and memory."""
    found = [*sorted((project / "models" / method).rglob("*")), *history(project, method)]
    return {str(p.relative_to(project)): p.read_bytes() for p in found if p.is_file()}


def history(project: Path, method: str) -> Iterator[Path]:
    return (project / "reports" / "history").glob(f"{method}.csv*")


def checkpoint(project: Path, method: str) -> Path:
    return project / ".checkpoints" / f"{method}.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with both methods trained without a disturbance."""
    folder = copy_project(tmp_path_factory.mktemp("trained"))
    params = small_params().replace("checkpoint_every: 30.0", "checkpoint_every: 0")
    params = params.replace("lora_dropout: 0.0", "lora_dropout: 0.1")
    (folder / "params.yaml").write_text(params)
    for name in ("download", "split", "base_model"):
        subprocess.run(
            [sys.executable, str(ROOT / "stages" / f"{name}.py"), "--quiet"],
            cwd=folder,
            env=environment(LORA_COMPARE_TRACKING="off"),
            check=True,
        )
    for method in METHODS:
        assert finetune(folder, method).returncode == 0
        assert not checkpoint(folder, method).exists()
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Callable[[], Path]:
    """Return a function that copies the project as it was before it was trained."""

    def copy() -> Path:
        folder = tmp_path / f"copy{len(list(tmp_path.iterdir()))}"
        shutil.copytree(trained, folder)
        for method in METHODS:
            shutil.rmtree(folder / "models" / method)
        shutil.rmtree(folder / "reports")
        return folder

    return copy


Record = Callable[[str, object], None]


def kill_and_go_on(trained: Path, project: Path, method: str, steps: int) -> None:
    deed = "os.kill(os.getpid(), signal.SIGKILL)"
    killed = finetune(project, method, BEFORE_A_STEP.format(steps=steps, deed=deed))
    assert killed.returncode == -signal.SIGKILL
    assert outputs(project, method) == {}
    rerun = finetune(project, method)
    assert rerun.returncode == 0, rerun.stderr
    if steps:
        assert f"go on after step {steps}, from " in rerun.stderr
    assert outputs(project, method) == outputs(trained, method)
    assert not checkpoint(project, method).exists()


@pytest.mark.parametrize("method", METHODS)
def test_row_01_a_killed_training_goes_on_to_the_same_bytes(
    method: str, trained: Path, project: Callable[[], Path]
) -> None:
    kill_and_go_on(trained, project(), method, random.Random(method).randrange(1, STEPS))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", METHODS)
def test_row_01_killed_at_twenty_steps(
    method: str, trained: Path, project: Callable[[], Path], record_property: Record
) -> None:
    dice = random.Random(1)
    for _ in range(20):
        kill_and_go_on(trained, project(), method, dice.randrange(STEPS))
    record_property("trials", 20)


def kill_while_writing(
    trained: Path, project: Path, method: str, point: str, checkpoints: int
) -> None:
    prelude = WHILE_WRITING.format(checkpoints=checkpoints, point=point)
    killed = finetune(project, method, prelude)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    rerun = finetune(project, method)
    assert rerun.returncode == 0, rerun.stderr
    kept = checkpoints if point == "after the rename" else checkpoints - 1
    assert (f"go on after step {kept}, from " in rerun.stderr) == (kept > 0)
    assert outputs(project, method) == outputs(trained, method)
    assert not list((project / ".checkpoints").glob(".*.tmp"))


POINTS = ["half written", "before fsync", "before the rename", "after the rename"]


@pytest.mark.parametrize("point", ["half written", "before the rename"])
def test_row_02_killed_while_a_checkpoint_is_written(
    point: str, trained: Path, project: Callable[[], Path]
) -> None:
    kill_while_writing(trained, project(), "lora", point, 4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("point", POINTS)
def test_row_02_killed_at_every_point_of_writing(
    method: str,
    point: str,
    trained: Path,
    project: Callable[[], Path],
    record_property: Record,
) -> None:
    for checkpoints in (1, 2, 7):
        kill_while_writing(trained, project(), method, point, checkpoints)
    record_property("trials", 3)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_row_04_a_signal_ends_it_with_a_checkpoint(
    signum: signal.Signals, code: int, trained: Path, project: Callable[[], Path]
) -> None:
    folder = project()
    params = folder / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("checkpoint_every: 0", "checkpoint_every: null"))
    deed = f"os.kill(os.getpid(), {int(signum)})"
    ended = finetune(folder, "lora", BEFORE_A_STEP.format(steps=5, deed=deed))
    assert ended.returncode == code
    kept = f"step 6 is kept in {checkpoint(folder, 'lora')}; dvc repro goes on from there"
    assert f"finetune@lora: ended by {signum.name}; {kept}" in ended.stderr
    assert "Traceback" not in ended.stderr
    params.write_text(before)
    rerun = finetune(folder, "lora")
    assert "go on after step 6" in rerun.stderr
    assert outputs(folder, "lora") == outputs(trained, "lora")


def test_row_21_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(
    project: Callable[[], Path],
) -> None:
    folder = project()
    deed = "arguments[0].score.weight.data.fill_(float('inf'))"
    ended = finetune(folder, "full", BEFORE_A_STEP.format(steps=4, deed=deed))
    assert ended.returncode == 2
    assert "The loss is nan" in ended.stderr
    assert re.search(
        r"step 5, learning rate [\d.e-]+, rows [\d, ]+ of data/splits/train.csv", ended.stderr
    )
    assert "go on after step 4" in finetune(folder, "full").stderr


def test_row_21_a_gradient_that_is_no_number_is_never_kept(project: Callable[[], Path]) -> None:
    folder = project()
    deed = "arguments[0].score.weight.register_hook(lambda gradient: gradient * float('nan'))"
    ended = finetune(folder, "full", BEFORE_A_STEP.format(steps=2, deed=deed))
    assert ended.returncode == 2
    assert "step 4, learning rate" in ended.stderr
    assert "go on after step 2" in finetune(folder, "full").stderr


def test_row_22_memory_that_runs_out_names_batch_and_length(project: Callable[[], Path]) -> None:
    folder = project()
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
    ended = finetune(folder, "full", prelude + BEFORE_A_STEP.format(steps=4, deed="fill()"))
    assert ended.returncode == 2, ended.stderr
    assert "The memory does not suffice." in ended.stderr
    assert re.search(r"step 5, batches of 8 messages, the longest of \d+ tokens", ended.stderr)
    assert "Traceback" not in ended.stderr
    assert "go on after step 4" in finetune(folder, "full").stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("batch_size: 8", "batch_size: 16", "training.batch_size was 8, is 16"),
        ("lora_alpha: 16", "lora_alpha: 8", "method.lora.lora_alpha was 16"),
    ],
)
def test_row_23_other_settings_do_not_use_the_checkpoint(
    old: str, new: str, said: str, project: Callable[[], Path]
) -> None:
    folder = project()
    deed = "os.kill(os.getpid(), signal.SIGKILL)"
    finetune(folder, "lora", BEFORE_A_STEP.format(steps=5, deed=deed))
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace(old, new))
    changed = finetune(folder, "lora")
    assert changed.returncode == 0, changed.stderr
    assert f"the checkpoint of step 5 is not used: {said}" in changed.stderr


def test_row_23_other_data_do_not_use_the_checkpoint(project: Callable[[], Path]) -> None:
    folder = project()
    deed = "os.kill(os.getpid(), signal.SIGKILL)"
    finetune(folder, "lora", BEFORE_A_STEP.format(steps=5, deed=deed))
    tokens = folder / "data" / "tokens" / "train.safetensors"
    examples = read_examples(tokens)
    write_examples(tokens, examples.take(range(len(examples))[::-1]))
    seal(tokens.parent)
    changed = finetune(folder, "lora")
    assert changed.returncode == 0, changed.stderr
    assert "the checkpoint of step 5 is not used: train was " in changed.stderr


def test_row_23_another_torch_does_not_use_the_checkpoint(project: Callable[[], Path]) -> None:
    folder = project()
    deed = "os.kill(os.getpid(), signal.SIGKILL)"
    finetune(folder, "lora", BEFORE_A_STEP.format(steps=5, deed=deed))
    changed = finetune(folder, "lora", "import torch; torch.__version__ = '2.99.0'\n")
    assert "the checkpoint of step 5 is not used: torch was 2." in changed.stderr
    assert "is 2.99.0" in changed.stderr


def start_dvc(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "finetune@lora"],
        cwd=folder,
        env=environment(
            PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin", LORA_COMPARE_TRACKING="off"
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


@pytest.mark.slow
def test_row_03_a_stage_ends_with_the_dvc_that_started_it(tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "project")
    params = folder / "params.yaml"
    text = small_params().replace("checkpoint_every: 30.0", "checkpoint_every: 0")
    params.write_text(text.replace("epochs: 1", "epochs: 20"))
    first = start_dvc(folder)
    file = checkpoint(folder, "lora")
    wait_for(file.exists)
    stage = psutil.Process(int((folder / ".checkpoints" / "finetune@lora.pid").read_text()))
    stage.suspend()  # it would have ended before the other has started
    first.kill()
    second = finetune(folder, "lora")
    stage.resume()
    assert second.returncode == 2
    assert f"process {stage.pid} writes its outputs" in second.stderr
    wait_for(lambda: not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE)
    assert file.exists()
    assert not (folder / "models" / "lora").exists()
    output, _ = first.communicate()
    assert "dvc, which started this stage, has ended" in output
    again = start_dvc(folder)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert "go on after step" in output
    undisturbed = copy_project(tmp_path / "undisturbed")
    shutil.copy2(params, undisturbed)
    whole = start_dvc(undisturbed)
    output, _ = whole.communicate()
    assert whole.returncode == 0, output
    assert recorded(folder) == recorded(undisturbed)


def test_row_12_the_same_stage_runs_once_at_a_time(project: Callable[[], Path]) -> None:
    folder = project()
    deed = "print('reached', flush=True); sys.stdin.readline()"
    stage = str(ROOT / "stages" / "finetune.py")
    code = BEFORE_A_STEP.format(steps=3, deed=deed) + RUN.format(method="lora", stage=stage)
    with subprocess.Popen(
        [sys.executable, "-c", "import os, runpy, signal, sys\n" + code],
        cwd=folder,
        env=environment(LORA_COMPARE_TRACKING="off"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "reached\n"
        second = finetune(folder, "lora")
        assert second.returncode == 2
        assert f"process {first.pid} writes its outputs" in second.stderr
        first.stdin.write("\n")
        first.stdin.flush()
        assert first.wait() == 0
    assert not checkpoint(folder, "lora").exists()
