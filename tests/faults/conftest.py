"""What the tests of faults share, and the page that lists their outcome (docs/reliability.md).

A test belongs to the row of `rows.ROWS` whose number its name starts with: `test_row_05_...`.
One that repeats its fault says how often with `record_property("trials", n)`.
"""

import platform
import re
from collections import defaultdict
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest

from faults.rows import ROWS

REPORTED = ("torch", "dvc", "mlflow", "requests")


@dataclass
class Outcome:
    """What the tests of one row gave."""

    tests: set[str] = field(default_factory=set)
    trials: int = 0
    failed: int = 0
    skipped: int = 0


OUTCOMES = pytest.StashKey[dict[int, Outcome]]()
CONFIG: list[pytest.Config] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-report", type=Path, help="write every fault's outcome here")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[OUTCOMES] = defaultdict(Outcome)
    CONFIG.append(config)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    match = re.search(r"([^/]+\.py)::(?:\w+::)?(test_row_(\d\d)\w*)", report.nodeid)
    finished = report.when == "call" or (report.when == "setup" and not report.passed)
    if not match or not finished:
        return
    outcome = CONFIG[-1].stash[OUTCOMES][int(match[3])]
    outcome.tests.add(f"{match[1]}::{match[2]}")
    if report.skipped:
        outcome.skipped += 1
        return
    outcome.trials += int(dict(report.user_properties).get("trials", 1))
    outcome.failed += report.failed


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--faults-report", None)
    if path is not None and not hasattr(session.config, "workerinput"):
        path.write_text(report(session.config.stash[OUTCOMES]), encoding="utf-8")


def report(outcomes: dict[int, Outcome]) -> str:
    """Return the page that lists every fault."""
    versions = ", ".join(f"{name} {version(name)}" for name in REPORTED)
    lines = [
        "# Reliability",
        "",
        "Each fault that this project is built against, what a user sees of it, and how often it",
        "was caused for real: a process killed, a server that misbehaves, a full disk, a flipped",
        "byte. `make faults` causes them all and writes this page; the tests are in tests/faults,",
        "and `make test-slow` runs those that take longest.",
        "",
        f"Measured with {versions}, Python {platform.python_version()} on {platform.system()} "
        f"{platform.machine()}.",
        "",
        "| # | fault | what a user sees | tests | trials | outcome |",
        "|---:|---|---|---|---:|---|",
    ]
    for number, row in ROWS.items():
        outcome = outcomes.get(number, Outcome())
        tests = "<br>".join(f"`{test}`" for test in sorted(outcome.tests)) or "none"
        lines.append(
            f"| {number} | {_cell(row.fault)} | {_cell(row.outcome)} | {tests} | {outcome.trials} "
            f"| {_verdict(outcome)} |"
        )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _verdict(outcome: Outcome) -> str:
    if outcome.failed:
        return f"**{outcome.failed} failed**"
    if outcome.skipped:
        return f"{outcome.skipped} not run here"
    return "holds" if outcome.trials else "**no test**"
