"""Is everything that the pipeline writes the same in two fresh clones? `make reproducible` asks.

`dvc repro` runs in both, shown in MLflow as usual. Then dvc.lock and every output are compared,
byte by byte. Times and memory, the files *_cost.json, never repeat. What is made from them is
compared after `compare` has run again in the second clone with the first one's cost files.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from lora_compare.params import read_yaml
from small_project import ROOT, environment

FOLDERS = ("a", "a folder with a much longer name, and blanks")
"""Names of the clones: what is written must not depend on where."""

MEASURED = (
    "metrics/*_cost.json",
    "reports/training/*/cost.json",
    "reports/training/*/SHA256SUMS",
)

Stages = Mapping[str, Mapping[str, Any]]


def read_lock(folder: Path) -> Stages:
    """Return the stages of the dvc.lock in `folder`."""
    stages: Stages = read_yaml(folder / "dvc.lock")["stages"]
    return stages


def measured(folder: Path) -> list[str]:
    """Return the files of the project in `folder` that hold times and memory, or their sums."""
    found = [file for pattern in MEASURED for file in folder.glob(pattern)]
    return sorted(file.relative_to(folder).as_posix() for file in found)


def derived(stages: Stages) -> set[str]:
    """Return the outputs of the stages that read what is measured."""
    reading = [stage for stage in stages.values() if any(map(_is_cost, _paths(stage, "deps")))]
    return _outs(reading)


def repeatable(stages: Stages) -> dict[str, dict[str, Any]]:
    """Return all that dvc.lock says of `stages` but the sums of what is measured or derived."""
    left_out = derived(stages)
    return {
        name: {
            key: [e for e in value if not (_is_cost(e["path"]) or e["path"] in left_out)]
            if key in ("deps", "outs")
            else value
            for key, value in stage.items()
        }
        for name, stage in stages.items()
    }


def _is_cost(path: str) -> bool:
    return path.startswith("reports/training") or "_cost.json" in path


def _paths(stage: Mapping[str, Any], kind: str) -> list[str]:
    return [entry["path"] for entry in stage.get(kind, ())]


def _outs(stages: Iterable[Mapping[str, Any]]) -> set[str]:
    return {path for stage in stages for path in _paths(stage, "outs")}


def contents(folder: Path, outs: Iterable[str]) -> dict[str, bytes]:
    """Return the files of the outputs `outs` in the project in `folder`, by their paths there."""
    files = [p for out in outs for p in [folder / out, *(folder / out).rglob("*")] if p.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the keys that only one of two mappings has, or that have another value there."""
    return sorted(
        key
        for key in one.keys() | other.keys()
        if key not in one or key not in other or one[key] != other[key]
    )


def run(folder: Path, *command: str, **variables: str) -> None:
    """Run Python in the clone in `folder`, with the packages of this interpreter."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    own = environment(PATH=path, PYTHONPATH=str(folder / "src"), **variables)
    subprocess.run([sys.executable, *command], cwd=folder, env=own, check=True)


def clone(folder: Path) -> Stages:
    """Clone this repository into `folder`, run the pipeline there, return its dvc.lock."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    run(folder, "-m", "dvc", "repro", "--force")
    return read_lock(folder)


def differences(first: Path, second: Path) -> list[str]:
    """Return the stages of dvc.lock and the files in which two finished clones differ.

    The cost files of `second` and what is made from them are those of `first` afterwards.
    """
    stages, others = read_lock(first), read_lock(second)
    found = [f"dvc.lock: {n}" for n in different(repeatable(stages), repeatable(others))]
    for path in measured(first):
        shutil.copyfile(first / path, second / path)
    run(second, "stages/compare.py", LORA_COMPARE_TRACKING="off")
    outs = _outs(stages.values())
    return found + different(contents(first, outs), contents(second, outs))


def main() -> None:
    """Compare two clones of the last commit; the exit code is 1 where they differ."""
    with tempfile.TemporaryDirectory() as temporary:
        first, second = (Path(temporary, name) for name in FOLDERS)
        stages, _ = clone(first), clone(second)
        found = differences(first, second)
        files = contents(first, _outs(stages.values()))
        left_out, replayed = measured(first), sorted(derived(stages))
    click.echo(f"measured, never the same, not compared: {', '.join(left_out)}")
    click.echo(f"made from these, compared when made from the same: {', '.join(replayed)}")
    if found:
        click.echo("different in two clones:\n" + "\n".join(f"  {name}" for name in found))
        sys.exit(1)
    click.echo(
        f"the same in two clones: dvc.lock, {len(stages)} stages; "
        f"{len(files) - len(left_out)} files, {sum(map(len, files.values())):,} bytes"
    )


if __name__ == "__main__":
    main()
