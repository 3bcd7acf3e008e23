"""Pieces of work in this process or in others: the same outcomes, whatever becomes of a process."""

import os
import signal
import threading
import time
from typing import Any

import psutil
import pytest
import torch

from lora_compare.compute.device import Machine
from lora_compare.compute.parallel import choose_processes, run_tasks
from lora_compare.errors import KilledError, ParamsError, UserError
from lora_compare.project.interruption import Interrupted, deferred, interruptible, pending

CPU, GPU = (Machine(torch.device(name), torch.float32, 1) for name in ("cpu", "cuda"))


class Heard:
    """Who hears of the work.

    Attributes:
        told: What each task has told.
        outcomes: What became of each.
    """

    def __init__(self, goes_on: bool = True) -> None:
        self.told: dict[int, list[Any]] = {}
        self.outcomes: dict[int, Any] = {}
        self._goes_on = goes_on

    def hear(self, number: int, message: Any) -> None:
        self.told.setdefault(number, []).append(message)

    def ended(self, number: int, outcome: Any) -> bool:
        self.outcomes[number] = outcome
        return self._goes_on or not isinstance(outcome, Exception)


def square(task: int, tell: Any) -> int:
    tell(f"{task} at work")
    tell(("twice", 2 * task))
    if task == 3:
        raise ParamsError("No threes.", where="here", next="another number")
    return task * task


@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_told_and_what_comes_out_do_not_depend_on_the_processes(processes: int) -> None:
    heard = Heard()
    with deferred():
        run_tasks(square, [1, 2, 3, 4, 5], processes, heard.hear, heard.ended)
    assert heard.told == {n - 1: [f"{n} at work", ("twice", 2 * n)] for n in (1, 2, 3, 4, 5)}
    error = heard.outcomes.pop(2)
    assert heard.outcomes == {0: 1, 1: 4, 3: 16, 4: 25}
    assert str(error) == str(ParamsError("No threes.", where="here", next="another number"))


def slow_square(task: int, tell: Any) -> int:
    if task != 3:
        time.sleep(0.2)  # so that they are not all done before the first one's end is heard of
    return square(task, tell)


@pytest.mark.parametrize("processes", [1, 2])
def test_no_task_is_begun_where_one_says_that_all_is_over(processes: int) -> None:
    heard = Heard(goes_on=False)
    with deferred():
        run_tasks(slow_square, [3, *range(10, 40)], processes, heard.hear, heard.ended)
    assert isinstance(heard.outcomes[0], ParamsError)
    assert len(heard.outcomes) < 31


def which_gpu(task: int, tell: Any) -> str | None:
    time.sleep(0.3)  # so that each worker has one
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.slow
def test_every_process_sees_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    heard = Heard()
    with deferred():
        run_tasks(which_gpu, [1, 2], 2, heard.hear, heard.ended)
    assert sorted(heard.outcomes.values()) == ["5", "GPU-7"]


def kill_itself(task: str, tell: Any) -> str:
    tell(os.getpid())
    if task == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def test_a_killed_process_is_named_and_takes_no_other_task_with_it() -> None:
    heard = Heard()
    with deferred():
        run_tasks(kill_itself, ["a", "killed", "b", "c"], 2, heard.hear, heard.ended)
    error = heard.outcomes.pop(1)
    assert heard.outcomes == {0: "a", 2: "b", 3: "c"}
    assert isinstance(error, KilledError)
    assert error.where == f"process {heard.told[1][0]}"
    assert "SIGKILL" in error.actual
    assert "LORA_COMPARE_PROCESSES=1" in error.next


def wait_for_the_end(task: int, tell: Any) -> None:
    tell(os.getpid())
    while pending() is None:
        time.sleep(0.01)
    tell("asked to end")
    raise Interrupted(pending() or 0)


@pytest.mark.slow
def test_a_signal_reaches_every_process_once_and_nothing_is_begun_after_it() -> None:
    heard = Heard()

    def hear(number: int, message: Any) -> None:
        heard.hear(number, message)
        if len(heard.told) == 2 and message != "asked to end":
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()

    with interruptible(), pytest.raises(Interrupted) as end, deferred():
        run_tasks(wait_for_the_end, [1, 2, 3], 2, hear, heard.ended)
    assert end.value.signum == signal.SIGTERM
    assert {number: told[1:] for number, told in heard.told.items()} == {
        0: ["asked to end"],
        1: ["asked to end"],
    }
    assert heard.outcomes == {}
    assert not [pid for pid, *_ in heard.told.values() if psutil.pid_exists(pid)]


def test_as_many_at_once_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORA_COMPARE_PROCESSES", raising=False)
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    assert choose_processes(5, CPU) == 5
    assert choose_processes(50, CPU) == 8
    assert choose_processes(5, Machine(CPU.device, CPU.dtype, 3)) == 2
    assert choose_processes(5, Machine(CPU.device, CPU.dtype, 16)) == 1
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)  # on a machine that has some, too
    assert choose_processes(5, GPU) == 1
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert choose_processes(50, GPU) == 4
    assert choose_processes(1, GPU) == 1
    assert choose_processes(1, CPU) == 1
    monkeypatch.setenv("LORA_COMPARE_PROCESSES", "3")
    assert choose_processes(50, CPU) == choose_processes(50, GPU) == 3
    assert choose_processes(2, CPU) == 2


@pytest.mark.parametrize("value", ["0", "two", "-1", "1.5"])
def test_a_number_of_processes_that_is_none_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_COMPARE_PROCESSES", value)
    with pytest.raises(UserError, match="LORA_COMPARE_PROCESSES") as error:
        choose_processes(5, CPU)
    assert error.value.actual == value
