"""How time, memory and disk of the whole pipeline grow with messages, methods, seeds, workers."""

import csv
import heapq
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import ROOT, describe_machine, describe_versions
from benchmarks.messages import generate
from lora_compare.params.reading import read_yaml
from lora_compare.project.files import read_json, write_json
from lora_compare.project.progress import SILENT, Progress

LARGEST = 3
"""Points, the largest ones, to which a law is fitted: below them Python's start counts most."""

PRETRAINING_STEPS = 50
"""Of gpt2-nano, instead of 700: their time is the same whatever grows."""

SIMULATED = (1, 2, 4, 8, 16, 32)
"""Workers for which the time of a run is worked out from the times of its trainings."""


@dataclass(frozen=True)
class Point:
    """One run of the pipeline.

    Attributes:
        messages: Rows of its source.
        methods: Methods that it compares: full fine-tuning and LoRA of different ranks.
        seeds: Trainings of each.
        workers: Trainings at a time.
    """

    messages: int = 2_000
    methods: int = 2
    seeds: int = 1
    workers: int = 1


Sweeps = Mapping[str, Sequence[Point]]
Run = Callable[[Point], dict[str, Any]]

SWEEPS: Sweeps = {
    "messages": [Point(n) for n in (1_000, 5_000, 20_000, 50_000, 100_000, 200_000)],
    "methods": [Point(methods=n) for n in (1, 2, 4, 8)],
    "seeds": [Point(seeds=n) for n in (1, 2, 4, 8)],
    "workers": [Point(seeds=8, workers=n) for n in (1, 2)],
}
"""The points by what changes along them."""

QUICK_SWEEPS: Sweeps = {
    "messages": [Point(n, methods=1) for n in (300, 600)],
    "workers": [Point(300, 1, 2)],
}


def sweep(
    sweeps: Sweeps,
    progress: Progress = SILENT,
    run: Callable[[Point], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the content of the results file; points that are alike are run once.

    Args:
        sweeps: What is measured.
        progress: Where to report.
        run: How a point is; by default `run_pipeline`.
    """
    versions = describe_versions()  # the commit may change while this runs
    known: dict[Point, dict[str, Any]] = {}
    points = []
    for along, some in sweeps.items():
        for point in some:
            if point not in known:
                progress.say(f"{along}: {point}")
                known[point] = (run or run_pipeline)(point)
            points.append({"along": along, **asdict(point), **known[point]})
    return {
        "machine": describe_machine("cpu"),
        "versions": versions,
        "settings": {"threads": 1, "device": "cpu"},
        "points": points,
        "simulated": simulated([p for p in points if p["along"] == "workers"]),
    }


def run_pipeline(point: Point) -> dict[str, Any]:
    """Return what every stage of a run took, the disk that it fills, and its trainings' times."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = write_project(folder, point)
        methods = list(settings["methods"])
        stages = {name: run_stage(folder, point, name) for name in stage_names(methods)}
        costs = [read_json(folder / "metrics" / f"{name}_cost.json") for name in methods]
        written = [path for path in folder.rglob("*") if path.is_file()]
        source = folder / "inputs"
        return {
            "stages": stages,
            "disk_bytes": sum(p.stat().st_size for p in written if source not in p.parents),
            "training_seconds": {
                name: [cost["train_seconds"]] * point.seeds
                for name, cost in zip(methods, costs, strict=True)
            },
        }


def stage_names(methods: Sequence[str]) -> list[str]:
    """Return the stages in an order in which they can run."""
    each = [f"{stage}@{name}" for name in methods for stage in ("tune", "finetune", "evaluate")]
    return ["download", "split", "base_model", "baseline", *each, "compare"]


def write_project(folder: Path, point: Point) -> dict[str, Any]:
    """Write params.yaml and its messages to `folder`: recipes/quick.yaml, but for the point."""
    settings = read_yaml(ROOT / "recipes" / "quick.yaml")
    source = folder / "inputs" / "text" / "messages.csv"
    settings["data"]["source"] = source.relative_to(folder).as_posix()
    settings["training"] |= {"seeds": list(range(1, point.seeds + 1)), "epochs": 1}
    settings["model"]["pretraining"]["steps"] = PRETRAINING_STEPS
    full, lora = settings["methods"]["full"], settings["methods"]["lora"]
    others = {
        f"lora_{r}": {**lora, "lora": {**lora["lora"], "r": r, "lora_alpha": r}}
        for r in range(1, point.methods)
    }
    settings["methods"] = {"full": full, **others}
    for method in settings["methods"].values():
        method.pop("search", None)
    write_json(folder / "params.yaml", settings)  # JSON is YAML
    source.parent.mkdir(parents=True)
    with source.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([settings["data"]["label_column"], settings["data"]["text_column"]])
        writer.writerows(generate(point.messages))
    return settings


def run_stage(folder: Path, point: Point, name: str) -> dict[str, float]:
    """Return seconds by the clock and of the CPU, and the most memory of one of its processes."""
    stage, _, method = name.partition("@")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LORA_COMPARE_")}
    changes = {
        "PYTHONPATH": str(ROOT / "src"),
        "LORA_COMPARE_TRACKING": "off",
        "LORA_COMPARE_QUIET": "1",
        "LORA_COMPARE_PROCESSES": str(point.workers),
    }
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "stages" / f"{stage}.py"), *([method] if method else [])]
    with subprocess.Popen(command, cwd=folder, env=kept | changes) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name} with {point} ended with {process.returncode}")
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def totals(point: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a whole run: times added up, the memory of its hungriest stage."""
    stages = point["stages"].values()
    return {
        "seconds": sum(stage["seconds"] for stage in stages),
        "cpu_seconds": sum(stage["cpu_seconds"] for stage in stages),
        "peak_memory_bytes": max(stage["peak_memory_bytes"] for stage in stages),
        "disk_bytes": point["disk_bytes"],
    }


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return k of the law value ~ size^k by least squares on logarithms of the LARGEST points."""
    x, y = (np.log(np.asarray(side[-LARGEST:], dtype=float)) for side in (sizes, values))
    return float(np.polyfit(x, y, 1)[0])


def simulated(points: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return the seconds of a run by number of workers, from the times of the one with one.

    All but the steps of trainings stays as it is, and those of each method are shared out: they
    would take so long if workers did not slow each other down.

    Args:
        points: Runs with different numbers of workers.
    """
    alone = next((point for point in points if point["workers"] == 1), None)
    if alone is None:
        return []
    trainings = alone["training_seconds"].values()
    rest = totals(alone)["seconds"] - sum(map(sum, trainings))
    return [
        {"workers": n, "seconds": rest + sum(makespan(seconds, n) for seconds in trainings)}
        for n in SIMULATED
    ]


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Return when the last of some tasks ends if each goes to the worker that is free first."""
    free = [0.0] * workers
    for task in seconds:
        heapq.heappush(free, heapq.heappop(free) + task)
    return max(free)


def laws(points: Sequence[Mapping[str, Any]], along: str) -> Iterator[tuple[str, str, float]]:
    """Yield stage (or `all`), figure and exponent of what grows along a sweep."""
    own = [point for point in points if point["along"] == along]
    if len(own) < LARGEST or along == "workers":
        return
    sizes = [point[along] for point in own]
    for figure in ("cpu_seconds", "peak_memory_bytes", "disk_bytes"):
        yield "all", figure, exponent(sizes, [totals(point)[figure] for point in own])
    for stage in own[0]["stages"]:
        if all(stage in point["stages"] for point in own):
            for figure in ("cpu_seconds", "peak_memory_bytes"):
                values = [point["stages"][stage][figure] for point in own]
                yield stage, figure, exponent(sizes, values)
