"""`dvc repro` in a copy of this project, and what it leaves."""

import subprocess
import sys
from pathlib import Path

import yaml

from small_project import environment

COSTS = ("_cost.json", "reports/costs", "metrics/comparison", "reports/comparison", "reports/plots")
"""What holds measured times, which no two runs share."""


def repro(folder: Path, *targets: str, **variables: str) -> "subprocess.Popen[str]":
    """Start `dvc repro`, without tracking if `variables` do not set where to."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", *targets],
        cwd=folder,
        env=environment(PATH=path, **(variables or {"LORA_COMPARE_TRACKING": "off"})),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> str:
    """Return what a run printed that ended well."""
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return output


def outputs(folder: Path) -> dict[str, str]:
    """Return the MD5 that DVC recorded of every output, but for times."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    entries = [entry for stage in stages.values() for entry in stage["outs"]]
    return {e["path"]: e["md5"] for e in entries if not any(cost in e["path"] for cost in COSTS)}
