"""What lies ready beside the project: GPT-2's tokenizer, its checkpoints, DVC's objects."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lora_compare.cli.doctor.findings import Finding, Project, ok, trouble, warning
from lora_compare.comparison import formats
from lora_compare.errors import UserError

NANO = "gpt2-nano"
"""The one model that needs nothing from elsewhere."""

DVC_LINKS = "reflink,copy"
"""What DVC does where `cache.type` is not set."""

DVC_SECONDS = 60
"""How long DVC may take to tell a setting."""


def tokenizer(project: Project) -> Finding:
    """Look for the files of GPT-2's tokenizer, where the model needs them."""
    from lora_compare.models.tokenizer import GPT2_FILES, cache_folder, cached_name
    from lora_compare.project.files import sha256

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
    if not _may_write(folder):
        return trouble(f"{what}, which cannot be written", remedy, needed=True, **known)
    return warning(f"{what}, to be fetched from the network", remedy, needed=True, **known)


def checkpoint(project: Project) -> Finding:
    """Look for the model's pretrained weights in the hub's cache, where it needs them."""
    from huggingface_hub import constants

    from lora_compare.models.checkpoints import CHECKPOINTS, cached_path

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
    """Look where DVC keeps its objects, how much they are, and how outputs are linked to them."""
    try:
        folder = project.cache
    except UserError as error:
        return trouble(f"{error.what} {error.actual}", error.next)
    kinds = _link_types(project.paths.root)
    n_bytes = sum(_sizes(folder))
    known = {"folder": str(folder), "bytes": n_bytes, "link_types": kinds}
    what = f"{folder} holds {formats.size(n_bytes)}; outputs are linked as {' or '.join(kinds)}"
    if not _may_write(folder):
        return trouble(
            f"{what}; it cannot be written",
            f"change its owner or mode (ls -ld {folder}), or: dvc cache dir --local FOLDER",
            **known,
        )
    return ok(what, **known)


def _link_types(root: Path) -> list[str]:
    """Return how DVC links an output to its object, the first way that the file system has."""
    command = [sys.executable, "-m", "dvc", "config", "cache.type"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=DVC_SECONDS)
    return (done.stdout.strip() or DVC_LINKS).split(",")


def _sizes(folder: Path) -> Iterator[int]:
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                yield (Path(path) / name).stat().st_size
            except OSError:  # gone meanwhile
                continue


def _may_write(folder: Path) -> bool:
    """Whether files may be written to a folder, made where it is missing."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
