"""Whether the base model's files are at hand: tokenizer and weights, fetched or in a folder."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lora_compare.cli.doctor.findings import Finding, Project, ok, trouble, warning
from lora_compare.comparison import formats
from lora_compare.errors import UserError
from lora_compare.params import ModelParams
from lora_compare.project.files import is_writable, sha256

NANO = "gpt2-nano"
"""The one model that needs nothing from elsewhere."""


def tokenizer(project: Project) -> Finding:
    """Look for the files of GPT-2's tokenizer, where the model needs them."""
    from lora_compare.models.gpt.tokenizer import GPT2_FILES, cache_folder, cached_name

    model, folder = project.params.model, cache_folder()
    files = {folder / cached_name(url): digest for url, digest in GPT2_FILES.items()}
    missing = [path.name for path in files if not path.is_file()]
    damaged = [p.name for p, known in files.items() if p.is_file() and sha256(p) != known]
    known = {"folder": str(folder), "missing": missing, "damaged": damaged}
    if model.name == NANO or model.kind != "gpt":
        own = "trains its own" if model.name == NANO else "brings its own"
        return ok(f"not needed for {model.name}, which {own}", needed=False, **known)
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
    """Look for the model's files in the hub's cache or in its folder, where it needs them."""
    model = project.params.model
    if model.kind == "gpt":
        return _gpt2(model)
    if find_spec("transformers") is None:
        return trouble(
            f"{model.name} needs transformers, which is not installed",
            'pip install -e ".[hub]"',
            needed=True,
        )
    return (_folder if model.kind == "folder" else _hub)(model, project.paths.root)


def _gpt2(model: ModelParams) -> Finding:
    from huggingface_hub import constants

    from lora_compare.models.gpt.checkpoints import CHECKPOINTS, cached_path

    if model.name == NANO or model.weights == "random":
        return ok(f"not needed for {model.name} with weights: {model.weights}", needed=False)
    wanted = CHECKPOINTS[model.name]
    path = cached_path(wanted)
    size = path.stat().st_size if path.is_file() else None
    if size is not None and size == (wanted.size or size):
        return _there(model, constants.HF_HUB_CACHE, path, size)
    state = "not in" if size is None else f"damaged ({size:,} bytes) in"
    return _to_fetch(model, state, path, wanted.size)


def _folder(model: ModelParams, root: Path) -> Finding:
    from lora_compare.models.hub.folder import check_folder, find_folder, weight_files

    try:
        folder = find_folder(model.name, root)
        names = check_folder(folder, with_weights=False, several=True).names
        names += weight_files(folder) if model.weights == "pretrained" else ()
    except UserError as error:
        return trouble(f"{error.what} {error.where}: {error.actual}", error.next, needed=True)
    return _there(model, "this project", folder, _bytes(folder, names))


def _hub(model: ModelParams, _: Path) -> Finding:
    from huggingface_hub import constants

    from lora_compare.models.hub.fetching import COMMIT, cached
    from lora_compare.models.hub_cache import snapshot

    revision = str(model.revision)
    if not COMMIT.fullmatch(revision):
        return warning(
            f"{model.name} at {revision}, which may be another commit tomorrow",
            "set model.revision to the commit that base_model prints",
            needed=True,
        )
    folder = snapshot(model.name, revision)
    names = cached(folder, model.weights == "pretrained")
    if names:
        return _there(model, constants.HF_HUB_CACHE, folder, _bytes(folder, names))
    return _to_fetch(model, "not in", folder, None)


def _bytes(folder: Path, names: Sequence[str]) -> int:
    return sum((folder / name).stat().st_size for name in names)


def _there(model: ModelParams, place: str, path: Path, size: int) -> Finding:
    known = {"needed": True, "path": str(path), "bytes": size}
    return ok(f"{model.name} ({formats.size(size)}) is in {place}", **known)


def _to_fetch(model: ModelParams, state: str, path: Path, size: int | None) -> Finding:
    """Return the finding of files that the hub has; `state` says what of them is in the cache."""
    from huggingface_hub import constants

    known = {"needed": True, "path": str(path), "bytes": size}
    what = f"{model.name} is {state} {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        return trouble(
            f"{what}, and HF_HUB_OFFLINE forbids to fetch it",
            "unset HF_HUB_OFFLINE, or set HF_HOME to a folder that has it, or model.weights to "
            "random",
            **known,
        )
    download = f" ({formats.size(size)})" if size else ""
    return warning(
        f"{what}, to be fetched from the hub{download}",
        "let base_model fetch it, or set HF_HOME to a folder that has it",
        **known,
    )
