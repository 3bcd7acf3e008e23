"""GPT-2's checkpoints on the Hugging Face hub: fetched once, verified on every use."""

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lora_compare.errors import DownloadError, StorageError
from lora_compare.project import files
from lora_compare.project.progress import SILENT, Progress

FILE = "model.safetensors"
"""Name of the weights in a checkpoint's repository."""


@dataclass(frozen=True)
class Checkpoint:
    """A file of pretrained weights on the Hugging Face hub.

    Attributes:
        repository: The hub's name of the model.
        revision: Commit that the file is taken from.
        size: Bytes, where recorded.
        sha256: Checksum; where none is recorded, the hub's own for this commit counts.
    """

    repository: str
    revision: str
    size: int | None
    sha256: str | None


CHECKPOINTS = {
    "gpt2-small": Checkpoint(
        "openai-community/gpt2",
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
        548_105_171,
        "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    ),
    "gpt2-medium": Checkpoint(
        "openai-community/gpt2-medium",
        "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
        1_519_984_962,
        "fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd",
    ),
    "gpt2-large": Checkpoint(
        "openai-community/gpt2-large", "32b71b12589c2f8d625668d2335a01cac3249519", None, None
    ),
    "gpt2-xl": Checkpoint(
        "openai-community/gpt2-xl",
        "15ea56dee5df4983c59b2538573817e1667135e2",
        None,
        "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
    ),
}
"""OpenAI's weights by the model's name in params.yaml."""


@dataclass(frozen=True)
class FetchedCheckpoint:
    """A verified file of pretrained weights on this machine.

    Attributes:
        path: The file in the hub's cache.
        provenance: What it is, for the records: repository, revision, file, bytes, sha256.
    """

    path: Path
    provenance: dict[str, Any]


def fetch_checkpoint(name: str, progress: Progress = SILENT) -> FetchedCheckpoint:
    """Return the verified file of a checkpoint, downloading it where needed.

    The file lives in the hub's own cache (`HF_HOME`, `HF_HUB_CACHE`); `HF_ENDPOINT` and
    `HF_HUB_OFFLINE` have their usual effect. A cached file needs no network. Its checksum is
    compared every time; a damaged one is downloaded again. A download whose connection breaks
    goes on where it stopped, but one that is killed starts again.

    Args:
        name: A key of `CHECKPOINTS`.
        progress: Where a download is reported, in megabytes.

    Raises:
        DownloadError: The file is neither cached intact nor to be fetched, or what arrived
            has another checksum.
        StorageError: The cache is full, or may not be written to.

    Checked by tests/unit/models/test_checkpoints.py.
    """
    checkpoint = CHECKPOINTS[name]
    was_cached = cached_path(checkpoint).is_file()
    path = _download(name, progress)
    expected = checkpoint.sha256 or _hub_sha256(name, path)
    actual = files.sha256(path)
    if was_cached and actual != expected:
        progress.say(f"{path} is damaged and is fetched again.")
        try:
            path = _replace(name, progress)
        except DownloadError as error:
            mismatch = _mismatch(name, path, expected, actual)
            mismatch.actual += f"\nand it cannot be fetched again: {error.actual}"
            raise mismatch from error
        actual = files.sha256(path)
    if actual != expected:
        raise _mismatch(name, path, expected, actual)
    return FetchedCheckpoint(path, _provenance(checkpoint, path, actual))


def _provenance(checkpoint: Checkpoint, path: Path, sha256: str) -> dict[str, Any]:
    return {
        "repository": checkpoint.repository,
        "revision": checkpoint.revision,
        "file": FILE,
        "bytes": path.stat().st_size,
        "sha256": sha256,
    }


def _mismatch(name: str, path: Path, expected: str, actual: str) -> DownloadError:
    size = CHECKPOINTS[name].size
    return DownloadError(
        f"The file of the checkpoint {name} is not the published one.",
        where=str(path),
        expected=f"sha256 {expected}" + (f" ({size:,} bytes)" if size else ""),
        actual=f"sha256 {actual} ({path.stat().st_size:,} bytes)",
        next="run this again with a connection to the hub: a damaged file is then replaced;\n"
        "if it happens again, unset HF_ENDPOINT and look for a proxy that changes files",
    )


def cached_path(checkpoint: Checkpoint) -> Path:
    """Return where the hub's cache has, or would have, the file of `checkpoint`."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=checkpoint.repository, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder / "snapshots" / checkpoint.revision / FILE


def _download(name: str, progress: Progress, force: bool = False) -> Path:
    """Return the hub library's path of the file: cached, or else (or by force) downloaded."""
    from huggingface_hub import hf_hub_download, hf_hub_url

    repository, revision = CHECKPOINTS[name].repository, CHECKPOINTS[name].revision
    try:
        with files.storage_faults(cached_path(CHECKPOINTS[name]), CHECKPOINTS[name].size):
            path = hf_hub_download(
                repository,
                FILE,
                revision=revision,
                force_download=force,
                tqdm_class=_bar_class(f"Downloading {name} (MB)", progress),
            )
    except StorageError:
        raise
    # The hub's transports raise errors of a dozen unrelated types, some of their own.
    except Exception as error:
        causes = [str(cause) for cause in (error, error.__cause__) if cause and str(cause)]
        raise DownloadError(
            f"The checkpoint {name} could not be fetched.",
            where=hf_hub_url(repository, FILE, revision=revision),
            expected=f"{cached_path(CHECKPOINTS[name])}, or a connection to the hub",
            actual="\n".join(causes) or type(error).__name__,
            next="connect to the network (and unset HF_HUB_OFFLINE) and run this again,\n"
            "or, where there is a network, run\n"
            f"  hf download {repository} {FILE} --revision {revision}\n"
            "and copy the file to the path above,\n"
            "or set model.weights to random or model.name to gpt2-nano in params.yaml",
        ) from error
    return Path(path)


def _replace(name: str, progress: Progress) -> Path:
    """Download a file that is cached already; the old one stays until the new one is whole."""
    path = _download(name, progress, force=True)
    if path.is_symlink():
        return path
    # The library leaves a plain file as it is, with the download beside it in the cache.
    path.unlink()
    return _download(name, progress)


def _hub_sha256(name: str, path: Path) -> str:
    """Return the checksum that the hub gives for a checkpoint without a recorded one.

    The cache names a downloaded file after it, so the network is asked only where the cache
    holds a plain file.

    Raises:
        DownloadError: The network is needed and cannot be reached.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    # One step only: the file behind the link may itself be a link with another hash as name.
    if path.is_symlink() and re.fullmatch("[0-9a-f]{64}", path.readlink().name):
        return path.readlink().name
    url = hf_hub_url(CHECKPOINTS[name].repository, FILE, revision=CHECKPOINTS[name].revision)
    try:
        return str(get_hf_file_metadata(url).etag)
    except Exception as error:
        raise DownloadError(
            f"The checkpoint {name} cannot be verified: no checksum is recorded for it here.",
            where=str(path),
            expected=f"the checksum that {url} gives",
            actual=str(error),
            next="connect to the network once, or copy the model's whole cache folder from a\n"
            "machine that downloaded it: the name of the linked file is its checksum",
        ) from error


def _bar_class(description: str, progress: Progress) -> Any:
    """Return the class that the hub's library uses as progress bar, bound to `progress`."""

    class Bar:
        def __init__(self, total: float | None = None, initial: float = 0, **_: Any) -> None:
            self.total = total
            self._bytes = 0.0
            self._shown = 0
            self._stack = ExitStack()
            task = progress.task(description, max(1, _megabytes(total or 0)))
            self._advance = self._stack.enter_context(task)
            self.update(initial)

        def update(self, amount: float = 1) -> None:
            self._bytes += amount
            self._advance(_megabytes(self._bytes) - self._shown)
            self._shown = _megabytes(self._bytes)

        def update_transfer(self, amount: float) -> None:
            """Ignore bytes on the wire: `update` counts those of the file."""

        def set_postfix_str(self, text: str, refresh: bool = True) -> None:
            """Ignore the library's own note."""

        set_transfer_postfix_str = set_postfix_str

        def close(self) -> None:
            self._stack.close()

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

    return Bar


def _megabytes(amount: float) -> int:
    return round(amount / 1e6)
