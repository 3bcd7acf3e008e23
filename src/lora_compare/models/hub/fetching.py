"""A model's files from the Hugging Face hub: what a classifier needs of them, and nothing else."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_compare.errors import CheckpointError, DownloadError
from lora_compare.models.hub.folder import (
    INDEX,
    TOKENIZER,
    VOCABULARY,
    WEIGHTS,
    no_weights,
    weight_files,
)
from lora_compare.models.hub.settings import CONFIG, check_settings, transformers
from lora_compare.models.hub_cache import HubFile, fetch_file, hub_error, snapshot
from lora_compare.params import MODEL_FOLDERS
from lora_compare.project.progress import SILENT, Progress

COMMIT = re.compile("[0-9a-f]{40}")

SECONDS = 10.0
"""How long the hub may take to say what a model is."""

_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


@dataclass(frozen=True)
class Fetched:
    """A model's verified files on this machine.

    Attributes:
        folder: The snapshot in the hub's cache, which may hold other files, too.
        commit: The revision, 40 hex digits.
        files: Bytes and sha256 of each file by its name, for the records.
    """

    folder: Path
    commit: str
    files: dict[str, dict[str, Any]]


def fetch(
    name: str,
    revision: str,
    progress: Progress = SILENT,
    with_weights: bool = True,
    several: bool = False,
) -> Fetched:
    """Return a model's config, tokenizer and weights in safetensors, downloading what is missing.

    What is cached is verified by the checksums of the hub, and needs no network if `revision` is
    a commit. Weights are fetched last, when the settings are known to be those of a classifier.

    Args:
        name: The model, `org/name`.
        revision: A commit, or a branch or tag, which is looked up.
        progress: Where downloads of weights are reported, and a revision that may move.
        with_weights: Whether its weights are wanted, too.
        several: Whether the data has several labels a text.

    Raises:
        DownloadError: There is no such model or revision, or it cannot be fetched.
        CheckpointError: It has no safetensors, or its settings are refused by `check_settings`.
        ParamsError: transformers is not installed.
        StorageError: The cache is full, or may not be written to.

    Checked by tests/unit/models/hub/test_fetching.py.
    """
    transformers()
    commit = revision if COMMIT.fullmatch(revision) else _resolve(name, revision, progress)
    folder = snapshot(name, commit)
    names = cached(folder, with_weights) or _listed(name, commit, with_weights)
    fetched: dict[str, dict[str, Any]] = {}
    for file in sorted(names, key=_turn):
        is_large = file.endswith(".safetensors")
        if is_large and not any(each.endswith(".safetensors") for each in fetched):
            check_settings(folder, several)
        title = f"{file} of {name}"
        otherwise = f"set model.name to another model, or to a folder in {MODEL_FOLDERS}"
        wanted = HubFile(name, commit, file, title, otherwise=otherwise)
        fetched[file] = fetch_file(wanted, progress if is_large else SILENT).facts
    return Fetched(folder, commit, fetched)


def _turn(name: str) -> tuple[bool, bool, str]:
    """Return when a file is fetched: one without which a cache is known to be incomplete, last."""
    return name.endswith(".safetensors"), bool(VOCABULARY.fullmatch(name)), name


def _wanted(names: list[str], with_weights: bool) -> list[str]:
    """Return those of a model's files that a classifier needs."""
    wanted = [name for name in names if name == CONFIG or TOKENIZER.fullmatch(name)]
    if not with_weights:
        return wanted
    if WEIGHTS in names:
        return [*wanted, WEIGHTS]
    return [*wanted, *(name for name in names if name == INDEX or _SHARD.fullmatch(name))]


def cached(folder: Path, with_weights: bool) -> list[str]:
    """Return the wanted files of a snapshot in the cache; none where one may be missing."""
    if not (folder / CONFIG).is_file():
        return []
    names = [path.name for path in folder.iterdir() if path.is_file()]
    if not any(VOCABULARY.fullmatch(name) for name in names):
        return []
    try:
        weights = weight_files(folder) if with_weights else ()
    except CheckpointError:  # none, or not all of the shards: the hub has the rest
        return []
    return sorted({*_wanted(names, with_weights), *weights})


def _listed(name: str, commit: str, with_weights: bool) -> list[str]:
    """Return the wanted files of a model on the hub.

    Raises:
        CheckpointError: There are no weights in safetensors.
        DownloadError: The hub does not tell.
    """
    names = [sibling.rfilename for sibling in _ask(name, commit).siblings or ()]
    wanted = _wanted(names, with_weights)
    if with_weights and not any(file.endswith(".safetensors") for file in wanted):
        converted = str(MODEL_FOLDERS / name.rpartition("/")[2])
        raise no_weights(name, converted, names, f"{_page(name)}/tree/{commit}")
    return wanted


def _resolve(name: str, revision: str, progress: Progress) -> str:
    """Return the commit of a branch or tag, and say that it may move."""
    commit = str(_ask(name, revision).sha)
    progress.say(
        f"warning: model.revision {revision} may be another commit tomorrow; to pin what is used "
        f"now, set model.revision: {commit}"
    )
    return commit


def _page(name: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{name}"


def _ask(name: str, revision: str) -> Any:
    """Return what the hub says of a model's revision: its commit and its files."""
    from huggingface_hub import HfApi, constants

    try:
        hub = HfApi(endpoint=constants.ENDPOINT)
        return hub.model_info(name, revision=revision, timeout=SECONDS)
    # As in hub_cache: transports raise errors of unrelated types.
    except Exception as error:
        raise _unknown(name, revision, error) from error


def _unknown(name: str, revision: str, error: Exception) -> DownloadError:
    folder = snapshot(name, revision)
    known = folder.parent.parent / "refs" / revision
    otherwise = (
        f"where there is a network, run hf download {name} --revision {revision}\n"
        f"and copy {folder.parent.parent.name} of its cache to {folder.parent.parent.parent}"
    )
    if known.is_file():
        otherwise = f"set model.revision: {known.read_text().strip()}, which it was before"
    return hub_error(
        f"The hub does not tell what {name} is at {revision}.",
        f"{_page(name)}/tree/{revision}",
        f"all its files in {folder}, or a connection to the hub",
        error,
        name,
        otherwise,
    )
