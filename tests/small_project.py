"""A copy of this project with little data and short training, for tests that run stages."""

import csv
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

EDITS = {
    "source: bundled ": "source: inputs/messages.csv ",
    "text_column: text": "text_column: message",
    "label_column: label": "label_column: kind",
    "vocabulary_size: 2048": "vocabulary_size: 300",
    "steps: 700": "steps: 8",
    "batch_tokens: 512": "batch_tokens: 64",
    "sequence_length: 128": "sequence_length: 16",
    "epochs: 5": "epochs: 1",
    "eval_every: 50": "eval_every: 5",
    "eval_examples: 200": "eval_examples: 20",
    "device: auto": "device: cpu",
    "threads: null": "threads: 1",
}


def small_params() -> str:
    """Return the default parameters with every number that costs time made small."""
    text = (ROOT / "recipes" / "default.yaml").read_text()
    for old, new in EDITS.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
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


def copy_project(folder: Path) -> Path:
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
    (folder / "params.yaml").write_text(small_params())
    write_messages(folder / "inputs" / "messages.csv")
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
