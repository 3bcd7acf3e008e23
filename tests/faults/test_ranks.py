"""A training that several processes share, of which one dies, is stopped, or meets an error."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from faults.test_several_trainings import are_gone
from faults.test_training_faults import outputs, untrain, untrained
from small_project import ROOT, run_stages, started, write_settings

pytestmark = pytest.mark.slow

LONG = {"epochs": 6, "checkpoint_every": 0, "lora_dropout": 0.1}
STAGE = str(ROOT / "stages" / "finetune.py")


def write(folder: Path, strategy: str = "fsdp", devices: int = 2, **changes: object) -> None:
    """Write the settings of a long training that processes share."""
    write_settings(folder, **(LONG | changes))
    text = (folder / "params.yaml").read_text()
    shared = {"strategy": strategy, "devices": devices}
    for name, value in shared.items():
        text, times = re.subn(rf"(?m)^  {name}: .*$", f"  {name}: {value}", text)
        assert times == 1
    (folder / "params.yaml").write_text(text)


@pytest.fixture(scope="module")
def undisturbed(trained_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose adapter was trained by two processes."""
    folder = tmp_path_factory.mktemp("undisturbed") / "project"
    shutil.copytree(trained_project, folder)
    write(folder)
    return run_stages(folder, "finetune@lora")


@pytest.fixture
def project(undisturbed: Path, tmp_path: Path) -> Path:
    """The project as it was before it was trained."""
    return untrained(undisturbed, tmp_path / "project")


@contextmanager
def finetuning(project: Path, *launcher: str) -> "Iterator[subprocess.Popen[str]]":
    command = *(launcher or [sys.executable]), STAGE, "lora"
    with started(project, *command, LORA_COMPARE_TRACKING="off") as stage:
        yield stage


def ranks_of(stage: psutil.Process) -> list[psutil.Process]:
    """Return the processes of a training, once a state of it is kept."""
    return [
        child
        for child in stage.children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline()) or STAGE in child.cmdline()
    ]


def after_a_step(project: Path, stage: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Wait until a state is kept, and return the processes of the training."""
    until = time.monotonic() + 120
    while not list(project.glob(".checkpoints/finetune@lora/*.shards/0*/head.json")):
        assert stage.poll() is None, stage.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.05)
    return ranks_of(psutil.Process(stage.pid))


def steps_kept(project: Path) -> int:
    (head,) = project.glob(".checkpoints/finetune@lora/*.shards/0*/head.json")
    return int(json.loads(head.read_text())["step"])


def goes_on(project: Path, undisturbed: Path, **changes: object) -> str:
    kept = steps_kept(project)
    with finetuning(project) as stage:
        output, _ = stage.communicate(timeout=250)
    assert stage.returncode == 0, output
    assert f"go on after step {kept}, from" in output
    assert not list(project.glob(".checkpoints/finetune@lora/*.shards"))
    if not changes:
        assert outputs(project, "lora") == outputs(undisturbed, "lora")
    return output


@pytest.mark.parametrize("rank", [0, 1])
def test_row_36_a_rank_that_is_killed_ends_the_others_with_its_message(
    rank: int, undisturbed: Path, project: Path
) -> None:
    with finetuning(project) as stage:
        processes = after_a_step(project, stage)
        assert len(processes) == 2
        processes[rank].kill()
        killed = time.monotonic()
        output, _ = stage.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert stage.returncode == 2, output
    assert "Traceback" not in output
    assert "A process of the training was killed." in output
    assert f"process {processes[rank].pid}" in output
    assert "it ended by SIGKILL" in output
    assert "kept:     the last checkpoint" in output
    assert are_gone(processes)
    goes_on(project, undisturbed)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_ranks_after_their_step(
    stop: signal.Signals, undisturbed: Path, project: Path
) -> None:
    with finetuning(project) as stage:
        processes = after_a_step(project, stage)
        stage.send_signal(stop)
        output, _ = stage.communicate(timeout=60)
    assert stage.returncode == 128 + stop, output
    assert "Traceback" not in output
    assert are_gone(processes)
    goes_on(project, undisturbed)


def test_ranks_end_with_the_stage_that_is_killed_and_another_number_goes_on(
    undisturbed: Path, project: Path
) -> None:
    with finetuning(project) as stage:
        processes = after_a_step(project, stage)
        stage.kill()
        until = time.monotonic() + 20
        while not are_gone(processes):
            assert time.monotonic() < until
            time.sleep(0.1)
        stage.communicate()
    write(project, devices=3)
    output = goes_on(project, undisturbed, devices=3)
    assert "3 processes" in output


def test_an_error_that_all_ranks_meet_is_told_once(project: Path) -> None:
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("rate: 2.0e-3", "rate: 1.0e+30"))
    with finetuning(project) as stage:
        output, _ = stage.communicate(timeout=250)
    assert stage.returncode == 2, output
    assert output.count("The loss is") == 1
    assert "Traceback" not in output


def test_ranks_that_torchrun_has_started_join(undisturbed: Path, project: Path) -> None:
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    launcher = torchrun, "--standalone", "--nproc-per-node", "2"
    with finetuning(project, *launcher) as stage:
        output, _ = stage.communicate(timeout=250)
    assert stage.returncode == 0, output
    assert output.count("1 trained") == 1
    assert outputs(project, "lora") == outputs(undisturbed, "lora")
    untrain(project)
    with finetuning(project, torchrun, "--standalone", "--nproc-per-node", "3") as stage:
        output, _ = stage.communicate(timeout=250)
    assert stage.returncode != 0
    assert "strategy ddp or fsdp, devices 3" in output
    assert "error: torchrun has started another number of processes." in output


def test_no_port_is_open_beyond_loopback(project: Path) -> None:
    with finetuning(project) as stage:
        processes = [psutil.Process(stage.pid), *after_a_step(project, stage)]
        sockets = [c for p in processes for c in p.net_connections() if c.status == "LISTEN"]
        stage.terminate()
        stage.communicate(timeout=60)
    assert {c.laddr.ip for c in sockets} <= {"127.0.0.1", "::1"}
