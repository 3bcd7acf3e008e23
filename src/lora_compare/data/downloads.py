"""Files from the web: retried, bounded in time and size, checked before they are published."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_compare.errors import DownloadError, IntegrityError, MissingArtifactError
from lora_compare.project import files
from lora_compare.project.checksums import seal, verified
from lora_compare.project.progress import SILENT, Progress

if TYPE_CHECKING:  # most sources need no network, and requests takes a tenth of a second
    import requests

BUSY = (429, 500, 502, 503, 504)
"""HTTP statuses that are worth another attempt."""

_CHUNK = 2**16


@dataclass(frozen=True)
class Archive:
    """A published zip whose bytes are known.

    Attributes:
        urls: The primary address, then mirrors.
        sha256: Of the zip.
        member_sha256: Of its data file.
    """

    urls: tuple[str, ...]
    sha256: str
    member_sha256: str


UCI = Archive(
    urls=(
        "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
        "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
    ),
    sha256="1587ea43e58e82b14ff1f5425c88e17f8496bfcdb67a583dbff9eefaf9963ce3",
    member_sha256="7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
)
"""The SMS Spam Collection (Almeida and Hidalgo 2011, doi 10.24432/C5CC84, CC BY 4.0)."""


@dataclass(frozen=True)
class Patience:
    """How long a download goes on; times are in seconds.

    Attributes:
        connect_timeout: For the connection to stand.
        read_timeout: Of silence, before an attempt counts as stalled.
        attempts: For each address to get an answer, and again to get all of it.
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


class _AddressError(Exception):
    """This address does not serve the file; the text says why."""


def fetch(
    remote: Remote,
    destination: Path,
    progress: Progress = SILENT,
    patience: Patience | None = None,
) -> str:
    """Download a file to `destination` and return the address that served it.

    The file takes its name only when it is complete and its SHA-256 is right. A transfer that
    breaks off starts again. Proxies are taken from the environment.

    Raises:
        DownloadError: No address served the file; the message says what each answered.
        StorageError: The disk is full, or the folder may not be written to.
    """
    reasons = []
    for url in remote.urls:
        try:
            _fetch_from(url, remote, destination, progress, patience or Patience())
            return url
        except _AddressError as reason:
            reasons.append(f"{url}\n  {reason}")
            progress.say(f"{url}: {reason}")
    raise DownloadError(
        f"{destination.name} could not be downloaded.",
        where="\n".join(remote.urls),
        expected=f"sha256 {remote.sha256}" if remote.sha256 else "",
        actual="\n".join(reasons),
        kept="earlier messages: dvc checkout data/raw brings back what DVC removed",
        next=f"try again when the network is back, or {remote.by_hand}",
    )


def _fetch_from(
    url: str, remote: Remote, destination: Path, progress: Progress, patience: Patience
) -> None:
    """Write the file of one address to `destination`, or raise _AddressError."""
    from urllib3.exceptions import HTTPError

    end = time.monotonic() + patience.deadline
    with _session(patience) as session:
        for attempt in range(1, patience.attempts + 1):
            try:
                with _ask(session, url, patience) as response:
                    _receive(response, remote, destination, progress, end)
                return
            except HTTPError as error:
                if attempt == patience.attempts or time.monotonic() > end:
                    raise _AddressError(f"the transfer broke off: {_reason(error)}") from None
                time.sleep(min(patience.first_wait * 2**attempt, patience.longest_wait))


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


def _ask(session: "requests.Session", url: str, patience: Patience) -> "requests.Response":
    """Return the answer of an address, its body not yet read."""
    import requests

    timeout = (patience.connect_timeout, patience.read_timeout)
    # Packed for the transfer, a file would have no length to compare.
    headers = {"Accept-Encoding": "identity"}
    try:
        response = session.get(url, headers=headers, stream=True, timeout=timeout)
    except requests.TooManyRedirects:
        raise _AddressError(f"redirects more than {patience.redirects} times") from None
    except requests.RequestException as error:
        raise _AddressError(f"no answer: {_reason(error)}") from None
    if response.status_code != 200:
        response.close()
        raise _AddressError(f"HTTP status {response.status_code} {response.reason}")
    return response


def _receive(
    response: "requests.Response", remote: Remote, destination: Path, progress: Progress, end: float
) -> None:
    """Publish the body of an answer; urllib3 raises its HTTPError where it breaks off."""
    total = _size(response, remote)
    task = (progress if total else SILENT).task("downloading (kB)", (total or 0) / 1000)
    with files.replacing(destination, total) as temporary:
        with task as advance, temporary.open("wb") as file:
            # What has come, however little: a server that drips bytes must not hold the loop.
            while chunk := response.raw.read1(_CHUNK, decode_content=True):
                if file.tell() + len(chunk) > remote.max_bytes:
                    raise _AddressError(f"sends more than the {remote.max_bytes} bytes accepted")
                if time.monotonic() > end:
                    raise _AddressError("too slow: the time for this address is used up")
                file.write(chunk)
                advance(len(chunk) / 1000)
        if remote.sha256 not in (None, actual := files.sha256(temporary)):
            raise _AddressError(f"served another file: sha256 {actual}; it was removed")


def _size(response: "requests.Response", remote: Remote) -> int | None:
    """Return the bytes to come, if the answer tells them; refuse what cannot be the file."""
    if remote.sha256 is None and "text/html" in response.headers.get("Content-Type", ""):
        raise _AddressError("answers with a web page (text/html) instead of a data file")
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    if total is not None and total > remote.max_bytes:
        raise _AddressError(f"{total} bytes are more than the {remote.max_bytes} accepted")
    return total


def _reason(error: BaseException) -> str:
    """Return the cause of a failed request in a line, without the layers around it."""
    inner = error.args[0] if error.args else error
    cause = getattr(inner, "reason", None) or inner
    message = str(cause).partition("): ")[2] or str(cause)
    return (message.splitlines() or [type(error).__name__])[0][:300]


def obtain(
    remote: Remote,
    destination: Path,
    progress: Progress,
    patience: Patience | None,
    anew: bool = False,
) -> bytes:
    """Return the file; the copy on disk if that is the right one and need not be fetched anew.

    Args:
        remote: The file.
        destination: Where its copy is kept.
        progress: Where it is said which one is taken.
        patience: How long a download goes on.
        anew: Whether an address is asked that has been downloaded before and has no checksum; its
            copy is taken where the address does not serve it.

    Raises:
        DownloadError: It could not be fetched, and there is no copy.
    """
    kept = _kept(remote, destination)
    if kept is None or (anew and remote.sha256 is None):
        try:
            url = fetch(remote, destination, progress, patience)
        except DownloadError:
            if kept is None:
                raise
            progress.say(f"warning: so the copy is used that was downloaded before, sha256 {kept}")
        else:
            progress.say(f"downloaded {url}")
            if remote.sha256 is None:
                seal(destination.parent)
    elif remote.sha256 is None:
        progress.say(
            f"{remote.urls[0]}: the copy is used that was downloaded before, sha256 {kept}; "
            "to download it anew: dvc repro --force download"
        )
    return destination.read_bytes()


def _kept(remote: Remote, destination: Path) -> str | None:
    """Return the SHA-256 of the copy on disk; None where there is none, or not the right one."""
    if remote.sha256 is not None:
        right = destination.is_file() and files.sha256(destination) == remote.sha256
        return remote.sha256 if right else None
    try:
        return files.sha256(verified(destination, "download"))
    except (MissingArtifactError, IntegrityError):  # never fetched, or damaged since
        return None
