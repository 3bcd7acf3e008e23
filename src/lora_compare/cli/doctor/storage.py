"""What lies ready beside the project, and whether there is room and leave to write the rest."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lora_compare.cli.doctor import sizes
from lora_compare.cli.doctor.findings import Finding, Project, ok, trouble, warning
from lora_compare.comparison import formats
from lora_compare.errors import StorageError, UserError
from lora_compare.project.files import existing, is_writable, require_writable, sha256

NANO = "gpt2-nano"
"""The one model that needs nothing from elsewhere."""

BESIDE = 50_000_000
"""Bytes for what does not depend on the model: messages, splits, reports, MLflow's store."""

STATES = 3
"""Numbers in a training's checkpoint for each trained one: itself and AdamW's two moments."""


def tokenizer(project: Project) -> Finding:
    """Look for the files of GPT-2's tokenizer, where the model needs them."""
    from lora_compare.models.gpt.tokenizer import GPT2_FILES, cache_folder, cached_name

    folder = cache_folder()
    files = {folder / cached_name(url): digest for url, digest in GPT2_FILES.items()}
    missing = [path.name for path in files if not path.is_file()]
    damaged = [p.name for p, known in files.items() if p.is_file() and sha256(p) != known]
    known = {"folder": str(folder), "missing": missing, "damaged": damaged}
    if project.params.model.name == NANO:
        return ok(f"not needed for {NANO}, which trains its own", needed=False, **known)
    if not missing and not damaged:
        return ok(f"GPT-2's files are in {folder}", needed=True, **known)
    what = f"GPT-2's files are {'missing' if missing else 'damaged'} in {folder}"
    remedy = (
        "let the next stage fetch them (1.5 MB, from openaipublic.blob.core.windows.net), or set "
        "TIKTOKEN_CACHE_DIR to a folder that has them"
    )
    if not is_writable(folder):
        return trouble(f"{what}, which cannot be written", remedy, needed=True, **known)
    return warning(f"{what}, to be fetched from the network", remedy, needed=True, **known)


def checkpoint(project: Project) -> Finding:
    """Look for the model's pretrained weights in the hub's cache, where it needs them."""
    from huggingface_hub import constants

    from lora_compare.models.gpt.checkpoints import CHECKPOINTS, cached_path

    model = project.params.model
    if model.name == NANO or model.weights == "random":
        return ok(f"not needed for {model.name} with weights: {model.weights}", needed=False)
    wanted = CHECKPOINTS[model.name]
    path = cached_path(wanted)
    known = {"needed": True, "path": str(path), "bytes": wanted.size}
    size = path.stat().st_size if path.is_file() else None
    if size is not None and size == (wanted.size or size):
        return ok(f"{model.name} ({formats.size(size)}) is in {constants.HF_HUB_CACHE}", **known)
    state = "not in" if size is None else f"damaged ({size:,} bytes) in"
    what = f"{model.name} is {state} {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        return trouble(
            f"{what}, and HF_HUB_OFFLINE forbids to fetch it",
            "unset HF_HUB_OFFLINE, or set HF_HOME to a folder that has it, or model.weights to "
            "random",
            **known,
        )
    download = f" ({formats.size(wanted.size)})" if wanted.size else ""
    return warning(
        f"{what}, to be fetched from the hub{download}",
        "let base_model fetch it, or set HF_HOME to a folder that has it",
        **known,
    )


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
    params, root = project.params, project.paths.root
    config = sizes.shape(params.model)
    base = sizes.parameters(config)
    methods = [sizes.trained(config, method) for method in params.methods.values()]
    seeds = len(params.training.seeds)
    outputs = sizes.FLOAT32 * (base + seeds * sum(methods))
    # Finished trainings are kept beside the outputs, and any seed may be cut off at a checkpoint.
    checkpoints = sizes.FLOAT32 * seeds * (sum(methods) + STATES * max(methods))
    yield root, outputs + checkpoints + BESIDE
    with suppress(UserError):  # without DVC there is no cache
        # As if links were copies, which they are on most file systems.
        yield project.cache, outputs
    if params.model.name != NANO and params.model.weights == "pretrained":
        from lora_compare.models.gpt.checkpoints import CHECKPOINTS, cached_path

        wanted = CHECKPOINTS[params.model.name]
        if not cached_path(wanted).is_file():
            yield cached_path(wanted), wanted.size or sizes.FLOAT32 * base


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
