"""Whether there is room and leave to write what the pipeline writes."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lora_compare.cli.doctor import sizes
from lora_compare.cli.doctor.findings import Finding, Project, ok, trouble
from lora_compare.comparison import formats
from lora_compare.errors import StorageError, UserError
from lora_compare.params import ModelParams
from lora_compare.project.files import existing, is_writable, require_writable

BESIDE = 50_000_000
"""Bytes for what does not depend on the model: messages, splits, reports, MLflow's store."""

STATES = 3
"""Numbers in a training's checkpoint for each trained one: itself and AdamW's two moments."""


def dvc_cache(project: Project) -> Finding:
    """Look where DVC keeps its objects, and how much they are."""
    try:
        folder = project.cache
    except UserError as error:
        return trouble(f"{error.what} {error.actual}", error.next)
    n_bytes = sum(_sizes(folder))
    known = {"folder": str(folder), "bytes": n_bytes}
    what = f"{folder} holds {formats.size(n_bytes)}"
    if not is_writable(folder):
        return trouble(
            f"{what}; it cannot be written",
            f"change its owner or mode (ls -ld {folder}), or: dvc cache dir --local FOLDER",
            **known,
        )
    return ok(what, **known)


def _sizes(folder: Path) -> Iterator[int]:
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                yield (Path(path) / name).stat().st_size
            except OSError:  # gone meanwhile
                continue


def space(project: Project) -> Finding:
    """Compare the free bytes of every disk with what a whole run adds there at the most."""
    places: dict[int, tuple[Path, int]] = {}
    for path, n_bytes in _needs(project):
        folder = existing(path)
        shown, before = places.get(folder.stat().st_dev, (folder, 0))
        places[folder.stat().st_dev] = (shown, before + n_bytes)
    free = {folder: shutil.disk_usage(folder).free for folder, _ in places.values()}
    facts = [
        {"folder": str(folder), "free_bytes": free[folder], "estimated_bytes": needed}
        for folder, needed in places.values()
    ]
    said = [
        f"{formats.size(free[folder])} free at {folder}, a whole run adds about "
        f"{formats.size(needed)}"
        for folder, needed in places.values()
    ]
    if any(free[folder] < needed for folder, needed in places.values()):
        return trouble(
            "; ".join(said),
            "make room there; dvc gc --workspace drops what older results keep in DVC's cache",
            disks=facts,
        )
    return ok("; ".join(said), disks=facts)


def _needs(project: Project) -> Iterator[tuple[Path, int]]:
    """Yield the places that a whole run writes to, each with an upper estimate in bytes."""
    params, root, known = project.params, project.paths.root, project.sizes
    if known is None:  # a model on the hub of which nothing is here yet
        yield root, BESIDE
        return
    methods, seeds = known.trained.values(), len(params.training.seeds)
    outputs = sizes.FLOAT32 * (known.parameters + seeds * sum(methods))
    # Finished trainings are kept beside the outputs, and any seed may be cut off at a checkpoint.
    checkpoints = sizes.FLOAT32 * seeds * (sum(methods) + STATES * max(methods))
    yield root, outputs + checkpoints + BESIDE
    with suppress(UserError):  # without DVC there is no cache
        # As if links were copies, which they are on most file systems.
        yield project.cache, outputs
    if download := _download(params.model, known.parameters):
        yield download


def _download(model: ModelParams, parameters: int) -> tuple[Path, int] | None:
    """Return where a model's weights will be fetched to, and their bytes; None if they are here."""
    from lora_compare.models.gpt.checkpoints import CHECKPOINTS, cached_path

    if model.name not in CHECKPOINTS or model.weights == "random":
        return None
    wanted = CHECKPOINTS[model.name]
    there = cached_path(wanted)
    return None if there.is_file() else (there, wanted.size or sizes.FLOAT32 * parameters)


def folders(project: Project) -> Finding:
    """Look whether every folder that a stage writes to may be written to."""
    paths = project.paths
    stages = ("download", "split", "base_model", "baseline", "compare")
    folders = [folder for stage in stages for folder in paths.output_folders(stage)]
    for method in project.params.methods:
        for stage in ("tune", "finetune", "evaluate"):
            folders += paths.output_folders(stage, method)
    folders += [paths.root, paths.checkpoints()]
    try:
        require_writable(dict.fromkeys(folders))
    except StorageError as error:
        return trouble(f"{error.what} {error.where}: {error.actual}", error.next)
    return ok("every folder of the pipeline may be written to")
