"""Records every comparison with another implementation, for docs/parity.md."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

Parity = Callable[[str, str, float, float], None]

REPORTED = ("torch", "transformers", "peft", "bitsandbytes", "onnxruntime")


@dataclass(frozen=True)
class Row:
    """One comparison: what, with whom, how far apart it may be, and how far it was."""

    section: str
    setting: str
    reference: str
    tolerance: float
    measured: float


ROWS = pytest.StashKey[list[Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-report", type=Path, help="write the measured differences here")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Parity:
    """Return a check that two implementations differ by no more than a tolerance."""

    def check(setting: str, reference: str, tolerance: float, measured: float) -> None:
        section = request.module.__doc__.splitlines()[0].rstrip(".")
        row = Row(section, setting, reference, tolerance, float(measured))
        request.config.stash[ROWS].append(row)
        assert measured <= tolerance, f"{setting}: {measured:.3g} > {tolerance:g}"

    return check


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small matrices: threads would wait longer than they work, and change the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path = session.config.getoption("--parity-report", None)
    if path is not None and exitstatus == 0:
        path.write_text(report(session.config.stash[ROWS]), encoding="utf-8")


def _shown(row: Row) -> str:
    return f"{row.measured:.1e}" if row.measured else "0"


def report(rows: list[Row]) -> str:
    """Return the page that lists every comparison."""
    versions = ", ".join(f"{name} {version(name)}" for name in REPORTED)
    lines = [
        "# Parity",
        "",
        "How far this project's GPT-2, LoRA and files are from other implementations: the largest",
        "difference of what the setting names (of GPT-2's states, logits and gradients relative",
        "to the largest value), measured by `make parity`, which writes this page. The comparisons",
        "are tests too (tests/parity), which fail above the tolerance.",
        "",
        f"Measured with {versions} on {platform.machine()}, one thread.",
    ]
    for section in dict.fromkeys(row.section for row in rows):
        lines += ["", f"## {section}", "", "| setting | reference | tolerance | measured |"]
        lines += ["|---|---|---:|---:|"]
        lines += [
            f"| {row.setting} | {row.reference} | {row.tolerance:.0e} | {_shown(row)} |"
            for row in rows
            if row.section == section
        ]
    return "\n".join(lines) + "\n"
