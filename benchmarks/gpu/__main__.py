"""`python -m benchmarks.gpu`: all parts within a time, or one of them, or the page from results."""

import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.gpu.page import tables, write_page
from benchmarks.gpu.parts import Part, parts
from benchmarks.machine import ROOT, describe_machine, describe_versions
from lora_compare.project.files import read_json, write_json

PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "gpu" / "results.json"
LEAST = 15
"""Seconds that must be left for a part to be begun."""


@click.group()
def main() -> None:
    """Run the tests that matter on a GPU, and time trainings and steps there."""


@main.command("run")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--tiny", is_flag=True, help="Small models and few steps: does everything work?")
@click.option("--seconds", default=440, show_default=True, help="Time for all parts together.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The results file; without it benchmarks/gpu/results.json, with --tiny none.",
)
def measure(device: str, tiny: bool, seconds: int, output: Path | None) -> None:
    """Do all parts, each in a process of its own, and keep the results after each."""
    output = output or (None if tiny else RESULTS)
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("there is no CUDA device; --device cpu --tiny tries all this out")
    end = time.monotonic() + seconds
    results: dict[str, Any] = {
        "machine": describe_machine(device),
        "versions": describe_versions(),
        "settings": {"device": device, "tiny": tiny, "threads": torch.get_num_threads()},
        "parts": {},
    }
    for part in parts(tiny):
        left = end - time.monotonic()
        results["parts"][part.name] = _done(part, device, min(part.seconds, int(left)))
        if output:
            write_json(output, results)
        click.echo(f"{part.name}: {json.dumps(results['parts'][part.name])}")
    click.echo(tables(results))
    faults = [name for name, found in results["parts"].items() if _is_faulty(found)]
    if faults:
        click.echo(f"failed: {', '.join(faults)}", err=True)
        sys.exit(1)


def _is_faulty(found: dict[str, Any]) -> bool:
    return bool(found.get("failed")) or any("failed" in row for row in found.get("rows", ()))


def _done(part: Part, device: str, seconds: int) -> dict[str, Any]:
    """Return what a part's process found, or why there is nothing."""
    if seconds < LEAST:
        return {"failed": "there was no time left for it"}
    start = time.monotonic()
    given = json.dumps({"kind": part.kind, "device": device, "settings": dict(part.settings)})
    command = [sys.executable, "-m", "benchmarks.gpu", "part"]
    # Its own words go to the terminal; what it found comes back through a pipe of its own.
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*command, given, str(writer)], cwd=ROOT, pass_fds=(writer,), start_new_session=True
    )
    os.close(writer)
    failed = {}
    try:
        if process.wait(timeout=seconds):
            failed = {"failed": f"exit status {process.returncode}"}
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        failed = {"failed": f"not done within {seconds} s"}
    with os.fdopen(reader) as pipe:
        said = [line for line in pipe if line.endswith("\n")]
    found: dict[str, Any] = json.loads(said[-1]) if said else {}
    return found | failed | {"wall_seconds": round(time.monotonic() - start, 1)}


@main.command("part", hidden=True)
@click.argument("given")
@click.argument("pipe", type=int)
def do_part(given: str, pipe: int) -> None:
    """Do one part, and write what it has found so far to a pipe, a line each time."""
    part = json.loads(given)
    module = import_module(f"benchmarks.gpu.{part['kind']}")
    with os.fdopen(pipe, "w") as writer:
        for found in module.run(part["device"], part["settings"]):
            writer.write(json.dumps(found) + "\n")
            writer.flush()


@main.command("write")
@click.option(
    "--results", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=RESULTS
)
@click.option("--page", "path", type=click.Path(path_type=Path, dir_okay=False), default=PAGE)
def write(results: Path, path: Path) -> None:
    """Write the results' tables into docs/performance.md."""
    write_page(path, read_json(results))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.gpu")
