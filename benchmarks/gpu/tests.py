"""The tests that matter on a GPU, run by pytest; what failed, and with what."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.machine import ROOT

FOLDER = ROOT / "tests" / "gpu"

LONGEST = 600
"""Characters of what a failed test says."""


def run(device: str, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield how many tests passed, and what the others said.

    Args:
        device: Where they compute.
        settings: `chosen`: as pytest's -k; empty takes all.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", str(FOLDER), "-m", "cuda", "--numprocesses=0"]
        # Other versions than the locked ones warn of other things.
        command += ["-W", "default", "-q", f"--junit-xml={report}", "-k", settings["chosen"]]
        environment = os.environ | {"LORA_COMPARE_TEST_DEVICE": device}
        subprocess.run(command, cwd=ROOT, env=environment, check=False)
        yield read_report(report)


def read_report(path: Path) -> dict[str, Any]:
    """Return what pytest's report in JUnit's format says.

    Args:
        path: The file that pytest wrote.

    Returns:
        `passed` and `skipped`, numbers, and `failed`, the last words of each test by its name.
    """
    cases = list(ElementTree.parse(path).iter("testcase"))
    failed = {}
    for case in cases:
        fault = next((x for x in case if x.tag in ("failure", "error")), None)
        if fault is not None:
            failed[case.get("name", "")] = fault.get("message", "")[:LONGEST]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {"passed": len(cases) - skipped - len(failed), "skipped": skipped, "failed": failed}
