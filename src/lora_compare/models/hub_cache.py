"""Files of models on the Hugging Face hub, in its cache: fetched once, verified on every use."""

import hashlib
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lora_compare.errors import DownloadError, StorageError
from lora_compare.project import files
from lora_compare.project.progress import SILENT, Progress


@dataclass(frozen=True)
class HubFile:
    """A file of a model on the hub.

    Attributes:
        repository: The hub's name of the model.
        revision: Commit that the file is taken from, 40 hex digits.
        name: Its name there.
        title: What messages call it.
        size: Bytes, where recorded.
        digest: Its sha256, or the id that git gives to its content; where none is recorded, the
            hub's own for this commit counts.
        otherwise: What to do where it cannot be fetched, beside repairing the connection.
    """

    repository: str
    revision: str
    name: str
    title: str
    size: int | None = None
    digest: str | None = None
    otherwise: str = ""


@dataclass(frozen=True)
class FetchedFile:
    """A verified file on this machine.

    Attributes:
        path: The file in the hub's cache.
        facts: Its bytes and sha256, for the records.
    """

    path: Path
    facts: dict[str, Any]


def fetch_file(file: HubFile, progress: Progress = SILENT) -> FetchedFile:
    """Return the verified file, downloading it where needed.

    It lives in the hub's own cache (`HF_HOME`, `HF_HUB_CACHE`); `HF_ENDPOINT` and
    `HF_HUB_OFFLINE` have their usual effect. A cached file needs no network. Its checksum is
    compared every time; a damaged one is downloaded again. A download whose connection breaks
    goes on where it stopped, but one that is killed starts again.

    Args:
        file: Which file.
        progress: Where a download is reported, in megabytes.

    Raises:
        DownloadError: The file is neither cached intact nor to be fetched, or what arrived
            has another checksum.
        StorageError: The cache is full, or may not be written to.

    Checked by tests/unit/models/test_checkpoints.py.
    """
    was_cached = cached_path(file).is_file()
    path = _download(file, progress)
    expected = file.digest or _hub_digest(file, path)
    actual = _digest(path, expected)
    if was_cached and actual != expected:
        progress.say(f"{path} is damaged and is fetched again.")
        try:
            path = _replace(file, progress)
        except DownloadError as error:
            mismatch = _mismatch(file, path, expected, actual)
            mismatch.actual += f"\nand it cannot be fetched again: {error.actual}"
            raise mismatch from error
        actual = _digest(path, expected)
    if actual != expected:
        raise _mismatch(file, path, expected, actual)
    sha256 = actual if len(actual) == 64 else files.sha256(path)
    return FetchedFile(path, {"bytes": path.stat().st_size, "sha256": sha256})


def snapshot(repository: str, revision: str) -> Path:
    """Return the folder where the hub's cache has, or would have, the files of a commit."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=repository, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder / "snapshots" / revision


def cached_path(file: HubFile) -> Path:
    """Return where the hub's cache has, or would have, `file`."""
    return snapshot(file.repository, file.revision) / file.name


def hub_error(
    what: str, where: str, expected: str, error: Exception, repository: str, otherwise: str
) -> DownloadError:
    """Return the error of an answer, or of none, that the hub gave about a model.

    Args:
        what: What could not be done, a sentence.
        where: The address.
        expected: What would have done.
        error: What huggingface_hub raised.
        repository: The hub's name of the model.
        otherwise: What to do beside what `error` asks for.
    """
    causes = [cause for cause in (error, error.__cause__) if cause is not None]
    return DownloadError(
        what,
        where=where,
        expected=expected,
        actual="\n".join(str(cause) for cause in causes if str(cause)) or type(error).__name__,
        kept="what had been fetched before",
        next=_remedy(causes, repository) + (f",\nor {otherwise}" if otherwise else ""),
    )


def _remedy(causes: list[BaseException], repository: str) -> str:
    """Return what to do about an error of the hub, the narrower of its kinds first."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repository}"
    login = "log in (hf auth login, or a token in HF_TOKEN)"
    remedies = {
        errors.GatedRepoError: f"accept the model's conditions at {page} and {login}",
        errors.RepositoryNotFoundError: f"correct the model's name; if it is private, {login}",
        errors.RevisionNotFoundError: f"take a commit of {page}/commits",
        errors.RemoteEntryNotFoundError: f"look at {page} for what the model has",
    }
    for kind, remedy in remedies.items():
        if any(isinstance(cause, kind) for cause in causes):
            return remedy
    # By its name: the library has had several others below it, with a class of their own each.
    if any("TimeoutException" in (kind.__name__ for kind in type(c).__mro__) for c in causes):
        return "run this again, or wait longer: HF_HUB_DOWNLOAD_TIMEOUT, HF_HUB_ETAG_TIMEOUT"
    answers = {c.response.status_code for c in causes if isinstance(c, errors.HfHubHTTPError)}
    if 429 in answers:
        return f"wait some minutes and run this again; who is known may ask more often: {login}"
    if answers & {401, 403}:
        return f"look who you are there (hf auth whoami), and {login}"
    return "connect to the network (and unset HF_HUB_OFFLINE) and run this again"


def _mismatch(file: HubFile, path: Path, expected: str, actual: str) -> DownloadError:
    kind = _kind(expected)
    return DownloadError(
        f"The file of {file.title} is not the published one.",
        where=str(path),
        expected=f"{kind} {expected}" + (f" ({file.size:,} bytes)" if file.size else ""),
        actual=f"{kind} {actual} ({path.stat().st_size:,} bytes)",
        next="run this again with a connection to the hub: a damaged file is then replaced;\n"
        "if it happens again, unset HF_ENDPOINT and look for a proxy that changes files",
    )


def _kind(digest: str) -> str:
    return "sha256" if len(digest) == 64 else "git's blob id"


def _digest(path: Path, like: str) -> str:
    """Return a file's checksum, of the kind that `like` is."""
    if len(like) == 64:
        return files.sha256(path)
    content = path.read_bytes()
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _download(file: HubFile, progress: Progress, force: bool = False) -> Path:
    """Return the hub library's path of the file: cached, or else (or by force) downloaded."""
    from huggingface_hub import hf_hub_download, hf_hub_url

    repository, revision = file.repository, file.revision
    try:
        with files.storage_faults(cached_path(file), file.size):
            path = hf_hub_download(
                repository,
                file.name,
                revision=revision,
                force_download=force,
                tqdm_class=_bar_class(f"Downloading {file.title} (MB)", progress),
            )
    except StorageError:
        raise
    # The hub's transports raise errors of a dozen unrelated types, some of their own.
    except Exception as error:
        by_hand = (
            "where there is a network, run\n"
            f"  hf download {repository} {file.name} --revision {revision}\n"
            "and copy the file to the path above"
        )
        raise hub_error(
            f"The file of {file.title} could not be fetched.",
            hf_hub_url(repository, file.name, revision=revision),
            f"{cached_path(file)}, or a connection to the hub",
            error,
            repository,
            by_hand + (f",\nor {file.otherwise}" if file.otherwise else ""),
        ) from error
    return Path(path)


def _replace(file: HubFile, progress: Progress) -> Path:
    """Download a file that is cached already; the old one stays until the new one is whole."""
    path = _download(file, progress, force=True)
    if path.is_symlink():
        return path
    # The library leaves a plain file as it is, with the download beside it in the cache.
    path.unlink()
    return _download(file, progress)


def _hub_digest(file: HubFile, path: Path) -> str:
    """Return the checksum that the hub gives for a file without a recorded one.

    The cache names a downloaded file after it, so the network is asked only where the cache
    holds a plain file.

    Raises:
        DownloadError: The network is needed and cannot be reached.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    # One step only: the file behind the link may itself be a link with another hash as name.
    if path.is_symlink() and re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", path.readlink().name):
        return path.readlink().name
    url = hf_hub_url(file.repository, file.name, revision=file.revision)
    try:
        return str(get_hf_file_metadata(url).etag)
    except Exception as error:
        raise hub_error(
            f"The file of {file.title} cannot be verified: no checksum is recorded for it here.",
            str(path),
            f"the checksum that {url} gives",
            error,
            file.repository,
            "copy the model's whole cache folder from a machine that downloaded it:\n"
            "the name of the linked file is its checksum",
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
