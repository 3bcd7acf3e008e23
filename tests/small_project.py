"""A small project: this one's files with little data and short training, its stages run or not.

`make_project` writes what a stage needs and runs stages in this process. `copy_project` makes a
git repository of all files, for DVC. `conftest.trained_project` is one after all stages, to copy.
"""

import csv
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

ROOT = Path(__file__).resolve().parents[1]

SMALL = {
    "source": "inputs/text/messages.csv",
    "text_column": "message",
    "label_column": "kind",
    "twins": "apart",
    "balance": "undersample",
    "vocabulary_size": 300,
    "steps": 8,
    "batch_tokens": 64,
    "sequence_length": 16,
    "epochs": 1,
    "seeds": "[123]",
    "eval_every": 5,
    "eval_examples": 20,
    "device": "cpu",
    "threads": 1,
}
"""What is other than by default: one's own text, whose messages are all near-duplicates, and every
number that costs time made small."""

METHODS = ("full", "lora")
STAGES = [
    *("download", "split", "base_model", "baseline"),
    *(f"{stage}@{method}" for method in METHODS for stage in ("tune", "finetune", "evaluate")),
    "compare",
]
"""All stages in an order in which they can run."""


def small_params(**changes: object) -> str:
    """Return the quick parameters made small, and changed where a key stands once in them."""
    text = (ROOT / "recipes" / "quick.yaml").read_text(encoding="utf-8")
    for key, value in {**SMALL, **changes}.items():
        text, times = re.subn(rf"(?m)^( +{key}:) (\[.*?\]|\S+)", rf"\1 {value}", text)
        assert times == 1, key
    return text


def write_messages(path: Path, per_class: int = 60) -> None:
    """Write a CSV with columns `kind` and `message`: distinct, quoted where CSV needs it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", "message"])
        for i in range(per_class):
            writer.writerow(["spam", f"WINNER no {i * 7}, claim £{i} now"])
            writer.writerow(["ham", f'She said "see you at {i}", ok?'])
            writer.writerow(["ham", f"home by {i * 3} then, love"])


def write_settings(folder: Path, **changes: object) -> Path:
    """Write params.yaml and the messages that it names to `folder`, and return that."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(small_params(**changes), encoding="utf-8")
    write_messages(folder / "inputs" / "text" / "messages.csv")
    return folder


def command(stage: str) -> click.Command:
    """Return the command of stages/`stage`.py."""
    spec = importlib.util.spec_from_file_location(f"stage_{stage}", ROOT / "stages" / f"{stage}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: click.Command = module.main
    return main


def run(stage: str, *arguments: str) -> Result:
    """Run a stage in the current folder, in this process."""
    return CliRunner().invoke(command(stage), list(arguments))


def run_stages(folder: Path, *stages: str) -> Path:
    """Run stages, such as `split` and `finetune@lora`, in `folder` without tracking."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LORA_COMPARE_TRACKING", "off")
        for stage in stages:
            result = run(*stage.split("@"))
            assert result.exit_code == 0, result.output + repr(result.exception)
    return folder


def make_project(folder: Path, *stages: str, **changes: object) -> Path:
    """Write a small project to `folder`, other than usual by `changes`, and run stages in it."""
    return run_stages(write_settings(folder, **changes), *stages)


def copy_project(folder: Path, **changes: object) -> Path:
    """Copy the files that git would track into `folder`, as a git repository of their own."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists() and not name.startswith(("metrics/", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    write_settings(folder, **changes)
    commit(folder, "start", init=True)
    return folder


def commit(folder: Path, message: str, init: bool = False) -> None:
    """Commit everything in `folder`."""
    git = ["git", "-c", "user.name=tests", "-c", "user.email=tests@example.com"]
    if init:
        subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
    subprocess.run([*git, "add", "-A"], cwd=folder, check=True)
    subprocess.run([*git, "commit", "-q", "-m", message], cwd=folder, check=True)


def environment(**changes: str) -> dict[str, str]:
    """Return the environment for child processes: this interpreter first, no tracking server."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LORA_COMPARE_"))}
    return {**kept, "COLUMNS": "200", "NO_COLOR": "1", **changes}


def started(project: Path, *command: str, **changes: str) -> "subprocess.Popen[str]":
    """Start a command in a project and a group of its own; what it says is kept to read."""
    return subprocess.Popen(
        command,
        cwd=project,
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
