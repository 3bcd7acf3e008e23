"""Files from the web: resumed, bounded in time and size, checked before they are published."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lora_compare.errors import DownloadError
from lora_compare.project import files
from lora_compare.project.progress import SILENT, Advance, Progress

if TYPE_CHECKING:
    import requests

BUSY = (429, 500, 502, 503, 504)
"""HTTP statuses that are worth another attempt."""

_CHUNK = 2**16


@dataclass(frozen=True)
class Patience:
    """How long a download goes on; times are in seconds.

    Attributes:
        connect_timeout: For the connection to stand.
        read_timeout: Of silence, before an attempt counts as stalled.
        attempts: In a row that brought no new byte, for each address.
        first_wait: Before the second attempt; it doubles with every further one.
        longest_wait: Between two attempts, also where the server asks for more.
        redirects: Followed for each request.
        deadline: For one address altogether.
    """

    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    attempts: int = 4
    first_wait: float = 0.5
    longest_wait: float = 8.0
    redirects: int = 5
    deadline: float = 1800.0


@dataclass(frozen=True)
class Remote:
    """A file on the web.

    Attributes:
        urls: Where it is, the mirrors after the primary address.
        sha256: Of its bytes; None accepts any.
        max_bytes: Largest size that is accepted.
        by_hand: What to do when no address serves it.
    """

    urls: Sequence[str]
    sha256: str | None = None
    max_bytes: int = 2**29
    by_hand: str = "download the file by hand and point to it"


class _AttemptError(Exception):
    """An attempt ended early; the next may go on from where it stopped."""


class _AddressError(Exception):
    """This address does not serve the file; another attempt is of no use."""


def fetch(
    remote: Remote,
    destination: Path,
    progress: Progress = SILENT,
    patience: Patience | None = None,
) -> str:
    """Download a file to `destination` and return the address that served it.

    What has arrived is kept beside the destination as `NAME.part` across attempts, and, where
    the checksum is known, across runs. The file takes its name only when it is complete and
    its SHA-256 is right. Proxies are taken from the environment.

    Raises:
        DownloadError: No address served the file; the message says what each answered.
        StorageError: The disk is full, or the folder may not be written to.
    """
    part = destination.with_name(destination.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    if remote.sha256 is None:
        part.unlink(missing_ok=True)  # nothing tells whether it is of the same file
    elif part.exists() and files.sha256(part) == remote.sha256:
        _publish(part, destination)
        return remote.urls[0]
    reasons = []
    for url in remote.urls:
        try:
            _fetch_from(url, remote, part, progress, patience or Patience())
        except (_AttemptError, _AddressError) as reason:
            reasons.append(f"{url}\n  {reason}")
            progress.say(f"{url}: {reason}")
            continue
        _publish(part, destination)
        return url
    raise _all_failed(remote, destination, part, reasons)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _publish(part: Path, destination: Path) -> None:
    with files.replacing(destination) as temporary:
        part.replace(temporary)


def _all_failed(remote: Remote, destination: Path, part: Path, reasons: list[str]) -> DownloadError:
    received = _size(part)
    if remote.sha256 is None or not received:
        part.unlink(missing_ok=True)
        received = 0
    return DownloadError(
        f"{destination.name} could not be downloaded.",
        where="\n".join(remote.urls),
        expected=f"sha256 {remote.sha256}" if remote.sha256 else "",
        actual="\n".join(reasons),
        kept=f"{received} bytes in {part}; the next attempt goes on from there" if received else "",
        next=f"try again when the network is back, or {remote.by_hand}",
    )


def _fetch_from(
    url: str, remote: Remote, part: Path, progress: Progress, patience: Patience
) -> None:
    """Complete `part` from one address, or raise _AttemptError or _AddressError."""
    resumed = part.exists()
    with _session(patience) as session:
        _complete(session, url, remote, part, progress, patience)
        actual = files.sha256(part)
        if resumed and remote.sha256 not in (None, actual):
            # The bytes of an earlier run may be the wrong ones: once more from the start.
            part.unlink()
            _complete(session, url, remote, part, progress, patience)
            actual = files.sha256(part)
    if remote.sha256 not in (None, actual):
        part.unlink()
        raise _AddressError(f"served another file: sha256 {actual}; it was removed")


@contextmanager
def _session(patience: Patience) -> Iterator["requests.Session"]:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    retry = Retry(
        total=patience.attempts - 1,
        status_forcelist=BUSY,
        allowed_methods=("GET",),
        backoff_factor=patience.first_wait,
        backoff_max=patience.longest_wait,
        retry_after_max=int(patience.longest_wait),
        raise_on_status=False,
    )
    with requests.Session() as session:
        session.max_redirects = patience.redirects
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        yield session


def _complete(
    session: "requests.Session",
    url: str,
    remote: Remote,
    part: Path,
    progress: Progress,
    patience: Patience,
) -> None:
    """Repeat attempts until `part` is complete, while they bring new bytes."""
    most = _size(part)
    failures, end = 0, time.monotonic() + patience.deadline
    validator = ""
    while True:
        try:
            response = _ask(session, url, part, validator, patience)
            with response:
                validator = _validator(response)
                _receive(response, remote, part, progress, end)
            return
        except _AttemptError:
            received = _size(part)
            failures = 0 if received > most else failures + 1
            most = max(most, received)
            if failures >= patience.attempts or time.monotonic() >= end:
                raise
            time.sleep(min(patience.first_wait * 2**failures, patience.longest_wait))


def _ask(
    session: "requests.Session", url: str, part: Path, validator: str, patience: Patience
) -> "requests.Response":
    """Return the answer to a request for what `part` lacks, its body not yet read."""
    import requests

    received = _size(part)
    # A compressed transfer could not be resumed at a byte of the file.
    headers = {"Accept-Encoding": "identity"}
    if received:
        headers["Range"] = f"bytes={received}-"
        if validator:
            headers["If-Range"] = validator
    try:
        response = session.get(
            url,
            headers=headers,
            stream=True,
            timeout=(patience.connect_timeout, patience.read_timeout),
        )
    except requests.TooManyRedirects:
        raise _AddressError(f"redirects more than {patience.redirects} times") from None
    except requests.RequestException as error:
        raise _AddressError(f"no answer: {_reason(error)}") from None
    if response.status_code == 416:
        part.unlink(missing_ok=True)
        response.close()
        raise _AttemptError("the server has no bytes after those received")
    if response.status_code not in (200, 206):
        response.close()
        raise _AddressError(f"HTTP status {response.status_code} {response.reason}")
    return response


def _receive(
    response: "requests.Response", remote: Remote, part: Path, progress: Progress, end: float
) -> None:
    """Append the body of an answer to `part`, or write it anew where it is the whole file."""
    if remote.sha256 is None and "text/html" in response.headers.get("Content-Type", ""):
        raise _AddressError("answers with a web page (text/html) instead of a data file")
    offset = _offset(response, part)
    total = _total(response, offset)
    if total is not None and total > remote.max_bytes:
        raise _AddressError(f"{total} bytes are more than the {remote.max_bytes} that are accepted")
    with _bar(progress, part.stem, total) as advance, _room_for(part, total) as file:
        file.truncate(offset)
        advance(offset / 1000)
        for chunk in _chunks(response, end):
            if file.tell() + len(chunk) > remote.max_bytes:
                file.truncate(0)
                raise _AddressError(
                    f"sends more than the {remote.max_bytes} bytes that are accepted"
                )
            file.write(chunk)
            advance(len(chunk) / 1000)
        received = file.tell()
    if total is not None and received < total:
        raise _AttemptError(f"the transfer ended after {received} of {total} bytes")


@contextmanager
def _room_for(part: Path, total: int | None) -> Iterator[BinaryIO]:
    """Yield `part` to append to; on a full disk nothing stays of it."""
    with files.storage_faults(part, total):
        try:
            with part.open("ab") as file:
                yield file
        except OSError:
            part.unlink(missing_ok=True)
            raise


def _validator(response: "requests.Response") -> str:
    """Return what names this version of the file, for If-Range; empty if nothing does."""
    tag = response.headers.get("ETag", "")
    strong = "" if tag.startswith("W/") else tag
    return strong or response.headers.get("Last-Modified", "")


def _offset(response: "requests.Response", part: Path) -> int:
    """Return the byte of the file at which the body of an answer begins."""
    if response.status_code == 200:  # also the answer of a server that ignores Range
        return 0
    received = _size(part)
    if response.headers.get("Content-Range", "").startswith(f"bytes {received}-"):
        return received
    part.unlink(missing_ok=True)
    raise _AttemptError("the server sent another range than was asked for")


def _total(response: "requests.Response", offset: int) -> int | None:
    """Return the size of the whole file in bytes, if the answer tells it."""
    length = response.headers.get("Content-Length", "")
    if response.headers.get("Content-Encoding", "identity") != "identity" or not length.isdigit():
        return None
    return offset + int(length)


def _chunks(response: "requests.Response", end: float) -> Iterator[bytes]:
    """Yield the body as it arrives; a server that drips bytes cannot hold the loop."""
    from urllib3.exceptions import HTTPError

    stream: Callable[[int], bytes] = response.raw.read1
    response.raw.decode_content = True
    while True:
        try:
            chunk = stream(_CHUNK)
        except HTTPError as error:
            raise _AttemptError(f"the transfer broke off: {_reason(error)}") from None
        if not chunk:
            return
        yield chunk
        if time.monotonic() > end:
            raise _AttemptError("too slow: the time for this address is used up")


@contextmanager
def _bar(progress: Progress, name: str, total: int | None) -> Iterator[Advance]:
    if total is None:
        progress.say(f"downloading {name} (size unknown)")
        yield lambda amount=1, note="": None
    else:
        with progress.task(f"downloading {name} (kB)", total / 1000) as advance:
            yield advance


def _reason(error: BaseException) -> str:
    """Return the cause of a failed request in a line, without the layers around it."""
    inner = error.args[0] if error.args else error
    cause = getattr(inner, "reason", None) or inner
    message = str(cause).partition("): ")[2] or str(cause)
    return (message.splitlines() or [type(error).__name__])[0][:300]
