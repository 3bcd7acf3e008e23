"""Two `dvc repro` in one project at once: one does the work, the other ends."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dvc_runs import ended, outputs, repro
from lora_compare.project.lineage import dvc_md5
from small_project import copy_project, make_project


def check(folder: Path, reference: Path) -> None:
    """Check that the outputs are those of one run, on the disk and in DVC's record."""
    expected = {path: dvc_md5(reference / path) for path in outputs(folder)}
    assert outputs(folder) == expected
    assert {path: dvc_md5(folder / path) for path in expected} == expected


def run_two(folder: Path, delay: float, *targets: str) -> None:
    """Start two runs, the second after `delay` seconds, and check that one does all."""
    first = repro(folder, *targets)
    time.sleep(delay)
    second = repro(folder, *targets)
    printed = [process.communicate(timeout=200)[0] for process in (first, second)]
    codes = [process.returncode for process in (first, second)]
    assert 0 in codes, printed
    for code, output in zip(codes, printed, strict=True):
        assert "Traceback" not in output
        if code:
            assert "is busy, it is being blocked by" in output or "acquire lock" in output
    # The project is as after one run: nothing is left to do, and nothing locked.
    output = ended(repro(folder, *targets))
    assert "Running stage" not in output


@pytest.mark.slow
def test_row_12_two_runs_at_once_leave_what_one_leaves(tmp_path: Path) -> None:
    reference = make_project(tmp_path / "reference", "download", "split")
    folder = copy_project(tmp_path / "project")
    run_two(folder, 0.0, "split")
    assert len(outputs(folder)) == 3
    check(folder, reference)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_row_12_two_runs_of_the_whole_pipeline_at_any_distance(
    tmp_path: Path, record_property: Callable[[str, int], None]
) -> None:
    reference = copy_project(tmp_path / "reference")
    started = time.monotonic()
    ended(repro(reference))
    seconds = time.monotonic() - started
    dice, trials = random.Random(12), 5
    record_property("trials", trials)
    for trial in range(trials):
        folder = copy_project(tmp_path / f"project {trial}")
        run_two(folder, dice.uniform(0, seconds))
        assert outputs(folder).keys() == outputs(reference).keys()
        check(folder, reference)
