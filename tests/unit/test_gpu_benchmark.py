"""What `make gpu` does: tried out on the CPU, parts that fail, and the tables made of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.gpu import __main__ as commands
from benchmarks.gpu.page import tables, write_page
from benchmarks.gpu.parts import Part, parts
from benchmarks.gpu.tests import read_report
from lora_compare.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


def step(implementation: str, seconds: float, memory: int) -> dict[str, Any]:
    return {
        "method": "lora",
        "implementation": implementation,
        "step_seconds": seconds,
        "lowest": seconds / 2,
        "highest": seconds * 2,
        "memory_bytes": memory,
    }


RESULTS: dict[str, Any] = {
    "machine": {"gpu": "NVIDIA H100", "cpu": "AMD", "cores": 16},
    "versions": {"torch": "2.11", "commit": "abc", "edited": "no"},
    "parts": {
        "tests": {"passed": 30, "skipped": 1, "failed": {"test_x": "assert"}},
        "training gpt2-small lora": {
            "rows": [
                step("lora-compare, recorded", 0.009, 2_000_000_000)
                | {"epochs": 5, "steps": 655, "seconds": 8.04},
                {"method": "lora", "implementation": "lora-compare", "failed": "RuntimeError: y"},
            ]
        },
        "steps gpt2-xl": {
            "rows": [
                step("lora-compare, recorded", 0.02, 10_000_000_000),
                step("transformers", 0.1, 20_000_000_000),
                {"method": "lora", "implementation": "notebook", "failed": "OutOfMemoryError: x"},
            ]
        },
        "llama llama-1b": {"failed": "not done within 60 s"},
    },
}


def test_tables_say_how_many_times_as_fast_and_what_is_missing() -> None:
    shown = tables(RESULTS)
    assert "NVIDIA H100, 16 CPU cores. torch 2.11." in shown
    assert "30 passed, 1 failed, 1 skipped" in shown
    assert "| gpt2-small, lora-compare, recorded | lora | 655 | 5 | 8.0 | 9.0 ms |" in shown
    assert "20.0 ms (10.0 to 40.0)" in shown
    assert "5.0 (transformers, 0.50 of its memory)" in shown
    assert "Not measured: llama llama-1b, not done within 60 s." in shown
    assert "Failed: steps gpt2-xl, lora, notebook: OutOfMemoryError: x." in shown


def test_tables_go_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- gpu -->\nold\n<!-- /gpu -->\nafter\n")
    write_page(page, RESULTS)
    write_page(page, RESULTS)
    text = page.read_text()
    assert text.startswith("before\n<!-- gpu -->\n\nNVIDIA")
    assert text.endswith("\n\n<!-- /gpu -->\nafter\n")
    assert "old" not in text
    page.write_text("nothing")
    with pytest.raises(DataError, match="no place"):
        write_page(page, RESULTS)


def test_the_page_shows_the_results_that_are_stored() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    assert "<!-- gpu -->" in page
    if commands.RESULTS.exists():
        assert tables(json.loads(commands.RESULTS.read_text())) in page


def test_all_parts_have_time_together() -> None:
    named = [part.name for part in parts(tiny=False)]
    assert len(set(named)) == len(named)
    assert named[:2] == ["tests", "training gpt2-small lora"]
    assert all(part.seconds <= 150 for part in parts(tiny=False))


def test_failed_tests_are_named(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure message="no"/>'
        '</testcase><testcase name="c"><skipped/></testcase></testsuite></testsuites>'
    )
    assert read_report(path) == {"passed": 1, "skipped": 1, "failed": {"b": "no"}}


@pytest.mark.slow
def test_parts_that_fail_or_hang_do_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unknown = Part("steps", {"model": "gpt2-none", "steps": 1}, 200)
    slow = Part("steps", {"model": "gpt2-xl", "steps": 1000}, 15)
    monkeypatch.setattr(commands, "parts", lambda tiny: [unknown, slow])
    output = tmp_path / "gpu.json"
    call = ["run", "--device", "cpu", "--tiny", "--output", str(output)]
    outcome = CliRunner().invoke(commands.main, call)
    assert outcome.exit_code == 1
    found = json.loads(output.read_text())["parts"]
    assert {name: part["failed"] for name, part in found.items()} == {
        "steps gpt2-none": "exit status 1",
        "steps gpt2-xl": "not done within 15 s",
    }


def test_a_part_that_is_cut_off_keeps_its_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Stands for Python, and is called with: -m benchmarks.gpu part, what to do, a pipe's number.
    unending = tmp_path / "unending"
    rows = json.dumps({"rows": [{"method": "lora", "implementation": "lora-compare"}]})
    unending.write_text(f"#!/bin/bash\necho '{rows}' >&$5\nprintf '%s' '{{\"rows' >&$5\nsleep 60\n")
    unending.chmod(0o755)
    monkeypatch.setattr(commands.sys, "executable", str(unending))
    monkeypatch.setattr(commands, "LEAST", 1)
    monkeypatch.setattr(commands, "parts", lambda tiny: [Part("steps", {"model": "gpt2-nano"}, 2)])
    monkeypatch.setattr(commands, "tables", lambda results: "")
    output = tmp_path / "gpu.json"
    call = ["run", "--device", "cpu", "--tiny", "--output", str(output)]
    assert CliRunner().invoke(commands.main, call).exit_code == 1
    found = json.loads(output.read_text())["parts"]["steps gpt2-nano"]
    assert found["rows"][0]["implementation"] == "lora-compare"
    assert found["failed"] == "not done within 2 s"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_everything_runs_on_a_cpu(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    call = ["run", "--device", "cpu", "--tiny", "--seconds", "1400", "--output", str(output)]
    outcome = CliRunner().invoke(commands.main, call, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(output.read_text())["parts"]
    assert list(found) == [part.name for part in parts(tiny=True)]
    assert found["tests"]["passed"] > 10
