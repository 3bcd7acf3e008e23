"""Outputs and objects of DVC's cache whose bytes have changed, moved out of DVC's way.

DVC computes the MD5 of a file anew only where its time, size or inode has changed, and trusts a
write-protected object of its cache: it takes changed bytes for the recorded ones, and restores
them. Where they are missing, it restores or makes the right ones.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from lora_compare.errors import BusyError, MissingArtifactError, UserError
from lora_compare.params import read_yaml
from lora_compare.project.lineage import dvc_md5
from lora_compare.project.lock import only_writer
from lora_compare.project.paths import Paths

QUARANTINE = ".quarantine"
"""The folder of what was moved away, a numbered folder in it for each repair."""


@dataclass(frozen=True)
class Repair:
    """What a repair looked at and did.

    Attributes:
        outputs: Number of outputs that dvc.lock records and that are there.
        objects: Number of objects in DVC's cache.
        moved: The new place of everything that was moved, by its old one; inside the project
            as relative paths.
    """

    outputs: int
    objects: int
    moved: dict[Path, Path]


def repair(paths: Paths) -> Repair:
    """Move every changed output, a folder as a whole, and every changed object to `QUARANTINE`.

    Nothing is deleted. An output that was made without DVC is not the recorded one either.

    Args:
        paths: The project.

    Raises:
        BusyError: A stage writes its outputs.
        MissingArtifactError: There is no dvc.lock.
        UserError: DVC does not know this project.
    """
    with _no_writer(paths):
        return _repair(paths)


@contextmanager
def _no_writer(paths: Paths) -> Iterator[None]:
    """Hold the lock of every stage that has ever run here, so that none runs in the block."""
    with ExitStack() as held:
        for lock in sorted(paths.writer("").parent.glob("*.lock")):
            try:
                held.enter_context(only_writer(lock, lock.stem))
            except BusyError as error:
                error.next = "wait until it has ended, then lora-compare repair"
                raise
        yield


def _repair(paths: Paths) -> Repair:
    outputs = {path: md5 for path, md5 in _recorded(paths).items() if path.exists()}
    cache = dvc_cache(paths.root) / "files" / "md5"
    objects = dict(_objects(cache))
    changed = [path for path, md5 in outputs.items() if dvc_md5(path) != md5]
    broken = [path for path, md5 in objects.items() if _md5(path) != md5]
    folder = _next_folder(paths.root)
    places = {path: folder / path.relative_to(paths.root) for path in changed}
    places |= {path: folder / "cache" / path.relative_to(cache) for path in broken}
    for old, new in places.items():
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(old, new)
    root = paths.root
    moved = {_relative(old, root): _relative(new, root) for old, new in places.items()}
    return Repair(len(outputs), len(objects), moved)


def _recorded(paths: Paths) -> dict[Path, str]:
    """Return the MD5 of every output that dvc.lock records."""
    if not paths.lock.is_file():
        raise MissingArtifactError(
            "There is no record of what the outputs should be.",
            where=str(paths.lock),
            expected="dvc.lock, which DVC writes",
            next="git checkout dvc.lock, or make everything anew: dvc repro --force",
        )
    stages = read_yaml(paths.lock).get("stages", {}).values()
    outs = [out for stage in stages for out in stage.get("outs", ())]
    return {paths.root / out["path"]: out["md5"] for out in outs if "md5" in out}


def dvc_cache(root: Path) -> Path:
    """Return the folder of DVC's cache, wherever its settings put it.

    Raises:
        UserError: DVC does not know this project.
    """
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            "DVC does not say where its cache is.",
            where=str(root),
            actual=(done.stderr.strip().splitlines() or ["no word"])[-1],
            next="run the command in the project's folder; in a new one: dvc init",
        )
    return Path(done.stdout.strip())


def _objects(cache: Path) -> Iterator[tuple[Path, str]]:
    """Yield every object with the MD5 that its place says; a folder's listing ends in .dir."""
    for path in sorted(cache.glob("[0-9a-f][0-9a-f]/*")):
        if re.fullmatch(r"[0-9a-f]{30}(\.dir)?", path.name):
            yield path, path.parent.name + path.name.removesuffix(".dir")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _next_folder(root: Path) -> Path:
    folders = (root / QUARANTINE / str(number) for number in count(1))
    return next(folder for folder in folders if not folder.exists())


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path
