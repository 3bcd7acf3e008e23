"""The state of the project: its settings, its pipeline, git, its tracking, and what was cut off."""

import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from lora_compare.cli.doctor.findings import Finding, Project, ok, trouble, warning
from lora_compare.errors import BusyError, ParamsError, UserError
from lora_compare.params import read_yaml
from lora_compare.project.lock import writers
from lora_compare.project.paths import TFIDF

BLOCKED = re.compile(r"^\s*\(PID (\d+)\):", re.MULTILINE)
"""How DVC names the processes that hold what it wants to read; it advises to delete their lock."""

LATER = "what is out of date shows when it has ended"

GIT_AT_WORK = 60.0
"""Seconds after which a lock of git's is not that of a command that still works."""


def params(project: Project) -> Finding:
    """Look whether params.yaml is in order."""
    try:
        known = project.params
    except ParamsError as error:
        said = error.what if "\n" in error.where else f"{error.what} {error.where}"
        mistakes = error.where.splitlines()
        listed = "".join(f"\n{line}" for line in mistakes) if len(mistakes) > 1 else ""
        return trouble(said + listed, error.next, mistakes=mistakes)
    methods = {name: method.trainable for name, method in known.methods.items()}
    seeds = known.training.seeds
    facts = {"model": known.model.name, "source": known.data.described, "methods": methods}
    what = f"{known.model.name} on {known.data.described}; methods: {', '.join(methods)}"
    what += f"; seeds: {', '.join(map(str, seeds))}"
    return ok(f"params.yaml is in order: {what}", **facts, seeds=seeds)


def pipeline(project: Project) -> Finding:
    """Ask DVC which stages would run."""
    root = project.paths.root
    if not (root / "dvc.yaml").is_file():
        return trouble("there is no dvc.yaml here", "run the command in the project's folder")
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    if done.returncode:
        return _unread(done.stderr)
    changed = list(json.loads(done.stdout))
    known = {"would_run": changed, "has_lock": project.paths.lock.is_file()}
    if not known["has_lock"]:
        return warning("the pipeline has not run yet", "dvc repro", **known)
    if changed:
        return warning(f"out of date: {', '.join(changed)}", "dvc repro", **known)
    return ok("every stage is up to date", **known)


def artifacts(project: Project) -> Finding:
    """Compare the names that dvc.yaml gives models with what is made; DVC repeats stages only."""
    named = read_yaml(project.paths.root / "dvc.yaml").get("artifacts") or {}
    models = {str(Path(entry["path"])) for entry in named.values()}
    made = {f"models/{name}" for name in ("base", TFIDF, *project.params.methods)}
    foreign, unnamed = sorted(models - made), sorted(made - models)
    known = {"without_method": foreign, "without_name": unnamed}
    if foreign:
        return warning(
            f"dvc.yaml's artifacts name what no method makes: {', '.join(foreign)}",
            "take them out of artifacts in dvc.yaml, or put the methods into params.yaml",
            **known,
        )
    said = f"; without a name for dvc artifacts get: {', '.join(unnamed)}" if unnamed else ""
    return ok(f"every model that dvc.yaml's artifacts name is made here{said}", **known)


def _unread(said: str) -> Finding:
    """Return the finding that DVC does not read the pipeline, for a lock or for a mistake."""
    if "Unable to acquire lock" in said:  # the system lets go of it when its process ends
        return ok(f"another DVC command is at work here; {LATER}", at_work=[])
    holders = [int(pid) for pid in BLOCKED.findall(said)]
    others = [pid for pid in holders if not _may_be_dvc(pid)]
    if holders and not others:
        named = ", ".join(map(str, holders))
        return ok(f"DVC is at work here (process {named}); {LATER}", at_work=holders)
    if others:
        named = ", ".join(map(str, others))
        return trouble(
            f"a DVC command that was killed has left its lock; process {named} is another by now",
            "rm .dvc/tmp/rwlock, when no dvc command runs",
        )
    last = (said.strip().splitlines() or ["no word"])[-1]
    return trouble(f"DVC cannot read the pipeline: {last}", "dvc status shows all it says")


def _may_be_dvc(pid: int) -> bool:
    """Return whether a process lives that runs DVC, or Python, which may use DVC as a library."""
    with suppress(psutil.Error):
        names = [Path(word).name for word in psutil.Process(pid).cmdline()[:3]]
        return "dvc" in names or any(name.startswith("python") for name in names[:1])
    return False


def git(project: Project) -> Finding:
    """Look at the commit that runs are recorded with, and whether git is free."""
    from lora_compare.project.lineage import git_tags

    root = project.paths.root
    tags = git_tags(root)
    if not tags:
        return warning(
            "no git, no repository or no commit here: runs are recorded without a commit, and "
            "dvc exp does not work",
            "install git; git init && git add . && git commit -m start",
        )
    commit, branch = (tags[f"mlflow.source.git.{part}"] for part in ("commit", "branch"))
    edited = tags["git.dirty"] == "true"
    known = {"commit": commit, "branch": branch, "edited": edited}
    lock = root / ".git" / "index.lock"
    with suppress(OSError):  # it is gone meanwhile, or was never there
        old = time.time() - lock.stat().st_mtime > GIT_AT_WORK
        if old and not _git_works(root):
            return trouble(
                f"{lock} was left by a git command that was killed: no commit can be made",
                f"rm {lock}, when no git command runs",
                **known,
            )
    what = f"{branch} at {commit[:10]}{', with edits that are not committed' if edited else ''}"
    return ok(what, **known)


def _git_works(root: Path) -> bool:
    """Return whether a git command runs in the project."""
    processes = psutil.process_iter(["name", "cwd"])
    places = [Path(p.info["cwd"]) for p in processes if p.info["name"] == "git" and p.info["cwd"]]
    return any(place.is_relative_to(root) for place in places)


def locks(project: Project) -> Finding:
    """Look which stages write here."""
    held = writers(project.paths.checkpoints())
    at_work = ", ".join(f"{name} (process {pid})" for name, pid in held.items())
    return ok(f"at work here: {at_work}" if held else "none is held", stages=held)


def training(project: Project) -> Finding:
    """Look for trainings that were cut off, which the next run goes on with."""
    folder = project.paths.checkpoints()
    running = writers(folder)
    files = [f for f in sorted(folder.glob("*@*/*.safetensors")) if f.parent.name not in running]
    if not files:
        return ok("none is cut off", interrupted={})
    steps = {f"{file.parent.name} {file.stem.rpartition('-')[0]}": _step(file) for file in files}
    said = ", ".join(
        f"{name} after step {step}" if step is not None else f"{name} (damaged, not to be used)"
        for name, step in steps.items()
    )
    return warning(
        f"cut off: {said}",
        "dvc repro goes on from there; to start anew: rm -r .checkpoints/STAGE@METHOD",
        interrupted=steps,
    )


def _step(file: Path) -> int | None:
    """Return the optimizer step of a checkpoint; None where it cannot be read."""
    from safetensors import SafetensorError, safe_open

    from lora_compare.training.resume import HEAD

    try:
        with safe_open(file, framework="numpy") as opened:
            return int(json.loads(opened.metadata()[HEAD])["step"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def mailbox(project: Project) -> Finding:
    """Count the runs that wait to be shown in MLflow."""
    from lora_compare.tracking.mailbox import Mailbox
    from lora_compare.tracking.server import Server

    server = Server.configured(project.paths)
    letters = [] if server is None else Mailbox(server.state).letters()
    waiting = [letter.label for letter in letters if not letter.is_written]
    if not waiting:
        return ok("no run waits to be shown in MLflow", waiting=[])
    named = ", ".join(waiting)
    return warning(f"{named}: not shown in MLflow yet", "lora-compare sync", waiting=waiting)


def server(project: Project) -> Finding:
    """Ask the tracking server whether it is well, and whether it may be written to."""
    from lora_compare.cli.doctor.store import examine, own_version
    from lora_compare.tracking.server import Server

    configured = Server.configured(project.paths)
    if configured is None:
        return warning(
            "tracking is off: no run is shown in MLflow", "unset LORA_COMPARE_TRACKING", server=None
        )
    shown = configured.shown
    try:
        health = examine(configured, project.params.tracking.experiment)
    except BusyError as error:
        return warning(f"{shown}: {error.what} {error.actual}", error.next, server=shown)
    except UserError as error:
        return trouble(f"{shown}: {error.what} {error.actual}", error.next, server=shown)
    known = {"server": shown, "version": health.version, "experiment": health.experiment}
    if not health.exists:
        return ok(f"{shown}, which the first run makes", **known)
    if folders := configured.moved_from():
        return warning(
            f"{shown} was moved or copied from {' and '.join(map(str, folders))}, and still names "
            "the files there",
            "lora-compare sync",
            **known,
        )
    own = own_version()
    what = f"{shown} answers and takes runs"
    if health.version is None:
        return ok(f"{what} (MLflow {own})" if not configured.is_remote else what, **known)
    if health.version.split(".")[0] != own.split(".")[0]:
        return warning(
            f"{what}, but runs MLflow {health.version}, this project {own}",
            f"update the server to MLflow {own.split('.')[0]}",
            **known,
        )
    return ok(f"{what} (MLflow {health.version}; here {own})", **known)
