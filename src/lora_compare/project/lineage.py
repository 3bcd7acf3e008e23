"""What every stage read and wrote, in DVC's own terms, and the commit it ran from."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lora_compare.params import Params, read_yaml
from lora_compare.project.files import write_text
from lora_compare.project.paths import Paths

CODE = ("src/", "stages/")
"""How the name of a dependency begins that is code and not data."""

IGNORED = "__pycache__"
"""What .dvcignore keeps out of a folder's checksum: Python's own copies of the code."""

GIT_SECONDS = 5
"""How long git may take to describe the working tree."""


@dataclass(frozen=True)
class Lineage:
    """One stage's inputs and outputs.

    Attributes:
        settings: Its parameters, defaults filled in, by dotted key.
        deps: The MD5 of every file and folder it reads, by path; None where one is missing.
        outs: The same of what it writes.
    """

    settings: Mapping[str, Any]
    deps: Mapping[str, str | None]
    outs: Mapping[str, str | None]


class Pipeline:
    """The stages of dvc.yaml beside the files on disk and the record in dvc.lock.

    A file is read once for its checksum, so an instance is for one moment.

    Args:
        paths: The project.
        params: Its parameters.
    """

    def __init__(self, paths: Paths, params: Params) -> None:
        self.paths = paths
        self.params = params
        self._settings = params.model_dump(mode="json")
        self._declared = read_yaml(paths.root / "dvc.yaml").get("stages", {})
        self._checksums: dict[str, str | None] = {}

    @cached_property
    def _locked(self) -> Mapping[str, Any]:
        """The stages of dvc.lock, which is long, and of which a stage at work asks nothing."""
        stages: Mapping[str, Any] = read_yaml(self.paths.lock).get("stages", {})
        return stages

    def lineage(self, stage: str, method: str | None = None) -> Lineage:
        """Return what a stage reads and writes; without dvc.yaml, only all parameters."""
        outs = [n for kind in ("outs", "metrics", "plots") for n in self.names(stage, kind, method)]
        deps = self.names(stage, "deps", method)
        return Lineage(self.settings(stage, method), self._md5s(deps), self._md5s(outs))

    def settings(self, stage: str, method: str | None = None) -> dict[str, Any]:
        """Return the parameters that a stage depends on, as in a `Lineage`."""
        if stage not in self._declared:
            return {k: v for k, v in self._settings.items() if k != "tracking"}
        keys = self.names(stage, "params", method)
        return {key: _look_up(self._settings, key) for key in keys}

    def names(self, stage: str, kind: str, method: str | None = None) -> list[str]:
        """Return the `deps`, `outs`, `metrics`, `plots` or `params` of a stage in dvc.yaml."""
        return _names(self._declaration(stage), kind, method)

    def defaults(self) -> dict[str, Any]:
        """Return the settings that dvc.yaml names and params.yaml leaves out, with their values."""
        written = read_yaml(self.paths.params)
        named = {key for stage in self._declared for key in self.names(stage, "params")}
        plain = sorted(key for key in named if "$" not in key)
        return {k: _look_up(self._settings, k) for k in plain if not _has(written, k)}

    def command(self, stage: str, method: str | None = None) -> str:
        """Return what DVC calls for a stage; empty without dvc.yaml."""
        command = str(self._declaration(stage).get("cmd", ""))
        return command if method is None else _filled(command, method)

    def _declaration(self, stage: str) -> Mapping[str, Any]:
        declared = self._declared.get(stage, {})
        each: Mapping[str, Any] = declared.get("do", declared)
        return each

    def sources(self) -> dict[str, str | None]:
        """Return the MD5 of all code that a stage of dvc.yaml depends on, by file or folder."""
        return dict(sorted(pair for stage in self._declared for pair in self.code(stage).items()))

    def code(self, stage: str, method: str | None = None) -> dict[str, str | None]:
        """Return the MD5 of the code that a stage depends on, by file or folder."""
        return self._md5s(n for n in self.names(stage, "deps", method) if n.startswith(CODE))

    def is_current(
        self, stage: str, method: str | None = None, without_files: bool = False
    ) -> bool:
        """Return whether what lies on disk is what the stage made of what lies on disk.

        dvc.lock says so. A stage that it does not know is believed: it ran without DVC, or DVC
        has not written its entry yet.

        Args:
            stage: A stage of dvc.yaml.
            method: The method, for a stage that runs once per method.
            without_files: Believe a file that is missing, as most are in a fresh clone, to be
                what dvc.lock says.
        """
        entry = self._locked.get(f"{stage}@{method}" if method else stage)
        if entry is None:
            return True
        files = [*entry.get("deps", ()), *entry.get("outs", ())]
        known = [f for f in files if not without_files or self.md5(f["path"]) is not None]
        raw = read_yaml(self.paths.params)
        return all(self.md5(file["path"]) == file.get("md5") for file in known) and all(
            _as_numbers(_look_up(raw, key)) == _as_numbers(value)
            for key, value in entry.get("params", {}).get("params.yaml", {}).items()
        )

    def md5(self, name: str) -> str | None:
        """Return the MD5 that DVC gives a file or folder of the project; None if it is missing."""
        if name not in self._checksums:
            self._checksums[name] = dvc_md5(self.paths.root / name)
        return self._checksums[name]

    def _md5s(self, names: Iterable[str]) -> dict[str, str | None]:
        return {name: self.md5(name) for name in names}


def dvc_md5(path: Path) -> str | None:
    """Return what dvc.lock holds as `md5` for a file or folder; None if it does not exist.

    A folder's is the MD5 of the JSON list of its files and theirs, with `.dir` behind it.

    Checked by tests/unit/project/test_lineage.py::test_checksums_are_those_that_dvc_writes.
    """
    if path.is_dir():
        inside = (p for p in path.rglob("*") if p.is_file() and IGNORED not in p.parts)
        files = sorted((p.relative_to(path).as_posix(), p) for p in inside)
        listing = [{"md5": dvc_md5(file), "relpath": name} for name, file in files]
        text = json.dumps(listing, sort_keys=True)
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def forget_methods(paths: Paths, methods: Iterable[str]) -> list[str]:
    """Take what ran for methods that are gone out of dvc.lock; return the outputs of these runs.

    DVC itself never does: their record would stay for ever, beside outputs that no stage makes.
    It reads the file anew for the entry of the stage that runs.

    Args:
        paths: The project.
        methods: The methods that there are.
    """
    known = {*methods}
    stages = read_yaml(paths.lock).get("stages", {})
    gone = [name for name in stages if "@" in name and name.partition("@")[2] not in known]
    if gone:
        names = "|".join(map(re.escape, gone))
        text = paths.lock.read_text(encoding="utf-8")
        write_text(paths.lock, re.sub(rf"(?m)^  (?:{names}):\n(?:(?:   .*)?\n)*", "", text))
    return [out["path"] for name in gone for out in stages[name].get("outs", ())]


def origin(root: Path) -> dict[str, str]:
    """Return the tags that say from where a run that is computed now comes.

    Args:
        root: The folder that the stages run in.
    """
    variables = {"mlflow.user": "USER", "dvc.experiment": "DVC_EXP_NAME"}
    known = {tag: os.environ.get(name, "") for tag, name in variables.items()}
    return git_tags(root) | {tag: value for tag, value in known.items() if value}


def git_tags(root: Path) -> dict[str, str]:
    """Return commit, branch and whether inputs were edited; empty without git or a commit.

    dvc.lock and metrics/ are left out: the pipeline itself writes them.
    """
    command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    scope = ["--", ".", ":(exclude)dvc.lock", ":(exclude)metrics"]
    # Reading must not take the lock under which the user may be committing.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        result = subprocess.run(
            command + scope,
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = result.stdout.splitlines()
    heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    if heads.get("branch.oid", "(initial)") == "(initial)":
        return {}
    return {
        "mlflow.source.git.commit": heads["branch.oid"],
        "mlflow.source.git.branch": heads["branch.head"],
        "git.dirty": str(any(not line.startswith("#") for line in lines)).lower(),
    }


def _names(declared: Mapping[str, Any], kind: str, method: str | None) -> list[str]:
    """Return the paths or keys under `kind`, options dropped, the method's name put in."""
    names: list[str] = []
    for entry in declared.get(kind, ()):
        if isinstance(entry, str):
            names.append(entry)
        elif kind == "params":
            names.extend(key for keys in entry.values() for key in keys or ())
        else:
            names.extend(entry)
    if method is None:
        return names
    return [_filled(name, method) for name in names]


def _filled(text: str, method: str) -> str:
    return text.replace("${key}", method).replace("${item}", method)


def _has(settings: Mapping[str, Any], key: str) -> bool:
    section, _, name = key.rpartition(".")
    return name in ((_look_up(settings, section) or {}) if section else settings)


def _look_up(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _as_numbers(value: Any) -> Any:
    """Return `value` with text that is a number as that number: DVC writes 5e-05 unquoted."""
    if isinstance(value, Mapping):
        return {key: _as_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_numbers(inner) for inner in value]
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
