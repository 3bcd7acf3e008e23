"""What the pipeline costs beside its work: `dvc repro` in a fresh clone, timed stage by stage.

Work is what a stage is there for, as the stage itself notes it with `Progress.work`: fetching,
splitting, training with its evaluations, predicting, statistics, the report. All else counts as
overhead: starting Python, imports, reading files, showing the run in MLflow, DVC's checksums.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Stage:
    """One stage of a run; all times are in seconds since 1970.

    Attributes:
        name: Its name in DVC.
        start: When DVC started it.
        end: When DVC went on to the next one.
        spans: Start and end of each piece of its work.
    """

    name: str
    start: float
    end: float
    spans: Sequence[tuple[float, float]]

    @property
    def wall(self) -> float:
        """Seconds from its start to the next stage's."""
        return self.end - self.start

    @property
    def work(self) -> float:
        """Seconds of its work."""
        return sum(end - start for start, end in self.spans)

    @property
    def before(self) -> float:
        """Seconds from its start to its first work."""
        return self.spans[0][0] - self.start

    @property
    def after(self) -> float:
        """Seconds from its last work to the next stage."""
        return self.end - self.spans[-1][1]


def reproduce(folder: Path, spans: Path) -> Iterator[tuple[float, str]]:
    """Run the pipeline of the clone in `folder`; yield each line it prints and when.

    Args:
        folder: The clone.
        spans: The file in which the stages note their work.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LORA_COMPARE_"))}
    changes = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "PYTHONUNBUFFERED": "1",
        "LORA_COMPARE_SPANS": str(spans),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=folder,
        env=kept | changes,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield time.time(), line
    if process.returncode:
        raise SystemExit(f"dvc repro ended with {process.returncode}")


def measure(folder: Path) -> tuple[float, list[Stage]]:
    """Return the seconds of the whole run in the clone in `folder`, and its stages."""
    spans = folder / "spans.jsonl"
    start = time.time()
    starts: list[tuple[str, float]] = []
    for now, line in reproduce(folder, spans):
        sys.stderr.write(line)
        if match := re.match(r"Running stage '(.+)'", line):
            starts.append((match[1], now))
    end = time.time()
    notes = [json.loads(line) for line in spans.read_text(encoding="utf-8").splitlines()]
    stages = []
    for (name, begin), (_, until) in zip(starts, [*starts[1:], ("", end)], strict=True):
        own = [(n["start"], n["end"]) for n in notes if begin <= n["start"] < until]
        stages.append(Stage(name, begin, until, own))
    return end - start, stages


def table(seconds: float, stages: Sequence[Stage]) -> Table:
    """Return the times of a run as a table; `seconds` is the time of the whole run."""
    result = Table("stage", *("wall s", "work s", "overhead s", "before s", "after s"))
    for column in result.columns[1:]:
        column.justify = "right"
    for s in stages:
        figures = (s.wall, s.work, s.wall - s.work, s.before, s.after)
        result.add_row(s.name, *(f"{figure:.2f}" for figure in figures))
    own = seconds - sum(stage.wall for stage in stages)
    result.add_row("start of DVC", f"{own:.2f}", "0.00", f"{own:.2f}")
    work = sum(stage.work for stage in stages)
    result.add_section()
    result.add_row("all", *(f"{figure:.2f}" for figure in (seconds, work, seconds - work)))
    return result


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "clone")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        seconds, stages = measure(folder)
    console = Console()
    console.print(table(seconds, stages))
    ratio = seconds / sum(stage.work for stage in stages)
    load = os.getloadavg()[1]
    console.print(f"The whole takes {ratio:.2f} times its work (load average {load:.1f}).")


if __name__ == "__main__":
    main()
