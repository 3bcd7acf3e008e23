"""Whether there is room for what the configured pipeline writes, and leave to write it."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lora_compare.cli.doctor import sizes
from lora_compare.cli.doctor.caches import NANO
from lora_compare.cli.doctor.findings import Finding, Project, ok, trouble
from lora_compare.comparison import formats
from lora_compare.errors import StorageError, UserError
from lora_compare.project.files import require_writable

BESIDE = 50_000_000
"""Bytes for what does not depend on the model: messages, splits, reports, MLflow's store."""

STATES = 3
"""Numbers in a training's checkpoint for each trained one: itself and AdamW's two moments."""


def space(project: Project) -> Finding:
    """Compare the free bytes of every disk with what a whole run adds there at the most."""
    places: dict[int, tuple[Path, int]] = {}
    for path, n_bytes in _needs(project):
        folder = next(place for place in (path, *path.parents) if place.exists())
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
    params, root = project.params, project.paths.root
    config = sizes.shape(params.model)
    base = sizes.parameters(config)
    methods = [sizes.trained(config, method) for method in params.methods.values()]
    outputs = sizes.FLOAT32 * (base + sum(methods))
    checkpoint = sizes.FLOAT32 * STATES * max(methods)
    yield root, outputs + checkpoint + BESIDE
    with suppress(UserError):  # without DVC there is no cache
        # As if links were copies, which they are on most file systems.
        yield project.cache, outputs
    if params.model.name != NANO and params.model.weights == "pretrained":
        from lora_compare.models.checkpoints import CHECKPOINTS, cached_path

        wanted = CHECKPOINTS[params.model.name]
        if not cached_path(wanted).is_file():
            yield cached_path(wanted), wanted.size or sizes.FLOAT32 * base


def folders(project: Project) -> Finding:
    """Look whether every folder that a stage writes to may be written to."""
    paths = project.paths
    stages = ("download", "split", "base_model", "baseline", "compare")
    folders = [folder for stage in stages for folder in paths.output_folders(stage)]
    for method in project.params.methods:
        folders += [
            *paths.output_folders("finetune", method),
            *paths.output_folders("evaluate", method),
        ]
    folders += [paths.root, paths.checkpoint("any").parent]
    try:
        require_writable(dict.fromkeys(folders))
    except StorageError as error:
        return trouble(f"{error.what} {error.where}: {error.actual}", error.next)
    return ok("every folder of the pipeline may be written to")
