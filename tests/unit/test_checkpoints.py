"""Fetching checkpoints from a hub on loopback that answers as the real one does."""

import hashlib
import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from rich.console import Console

from lora_compare import checkpoints
from lora_compare.checkpoints import CHECKPOINTS, Checkpoint, fetch_checkpoint
from lora_compare.errors import DownloadError
from lora_compare.gpt import CONFIGS
from lora_compare.progress import Progress

NAME = "gpt2-small"
REPOSITORY = "openai-community/gpt2"
REVISION = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
ADDRESS = f"/{REPOSITORY}/resolve/{REVISION}/model.safetensors"
CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LOOPBACK = "127.0.0.1,localhost"
WRONG = CONTENT[:-1] + b"!"


class Hub(ThreadingHTTPServer):
    """A hub with one file: a redirect to a content address, as for every large file.

    Attributes:
        content: What it sends.
        etag: The checksum that it claims.
        break_after: Bytes after which the first transfer is cut off.
        status: Answer to everything, if set.
        page: Answer as a web page without the hub's headers, as a sign-in portal does.
        requests: What was asked about the file: method, path, range.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content = CONTENT
        self.etag = SHA256
        self.break_after: int | None = None
        self.status: int | None = None
        self.page = False
        self.requests: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def storage(self) -> str:
        """Where the bytes lie: another host, as the library follows redirects on its own."""
        return f"http://localhost:{self.server_port}/cdn"

    def count(self, method: str) -> int:
        return sum(request[0] == method for request in self.requests)


class Answer(BaseHTTPRequestHandler):
    """One answer of the hub."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Keep the tests' output clean."""

    def do_HEAD(self) -> None:
        if self._refused():
            return
        self.send_response(302)
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("X-Linked-Etag", f'"{self.server.etag}"')
        self.send_header("X-Linked-Size", str(len(self.server.content)))
        self.send_header("Location", f"{self.server.storage}/{self.server.etag}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        if self._refused():
            return
        content, asked = self.server.content, self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.server.break_after is not None:
            self.wfile.write(content[start : start + self.server.break_after])
            self.server.break_after = None
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def _refused(self) -> bool:
        if self.path != ADDRESS and not self.path.startswith("/cdn/"):
            self.send_error(404)  # the library also asks for what has nothing to do with the file
            return True
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))
        if self.server.status:
            self.send_error(self.server.status)
        elif self.server.page:
            self.send_response(200)
            self.send_header("Content-Length", "13")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"<html></html>")
        else:
            return False
        return True


@contextmanager
def serving() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub to which the library speaks, with an empty cache in `tmp_path`."""
    monkeypatch.setenv("NO_PROXY", LOOPBACK)
    monkeypatch.setenv("no_proxy", LOOPBACK)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setitem(CHECKPOINTS, NAME, Checkpoint(REPOSITORY, REVISION, len(CONTENT), SHA256))
    huggingface_hub.close_session()
    with serving() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server
    huggingface_hub.close_session()


@pytest.fixture
def unrecorded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The same hub for a checkpoint whose checksum this project does not know."""
    monkeypatch.setitem(CHECKPOINTS, NAME, Checkpoint(REPOSITORY, REVISION, None, None))
    return hub


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()


def place_by_hand(tmp_path: Path, content: bytes) -> Path:
    folder = tmp_path / "hub" / "models--openai-community--gpt2" / "snapshots" / REVISION
    folder.mkdir(parents=True)
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return path


def test_every_size_but_the_nano_has_a_pinned_checkpoint() -> None:
    assert CHECKPOINTS.keys() == CONFIGS.keys() - {"gpt2-nano"}
    for checkpoint in CHECKPOINTS.values():
        assert re.fullmatch("[0-9a-f]{40}", checkpoint.revision)
        assert checkpoint.sha256 is None or re.fullmatch("[0-9a-f]{64}", checkpoint.sha256)


def test_first_use_downloads_and_later_ones_need_no_network(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = fetch_checkpoint(NAME)
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.provenance == {
        "repository": REPOSITORY,
        "revision": REVISION,
        "file": "model.safetensors",
        "bytes": len(CONTENT),
        "sha256": SHA256,
    }
    asked = len(hub.requests)
    assert fetch_checkpoint(NAME) == fetched
    go_offline(monkeypatch)
    assert fetch_checkpoint(NAME) == fetched
    assert len(hub.requests) == asked
    assert hub.count("GET") == 1


def test_offline_without_a_cached_file_the_message_says_what_to_do(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_offline(monkeypatch)
    with pytest.raises(DownloadError) as caught:
        fetch_checkpoint(NAME)
    message = str(caught.value)
    assert caught.value.where == hub.url + ADDRESS
    assert f"hf download {REPOSITORY} model.safetensors --revision {REVISION}" in message
    assert "HF_HUB_OFFLINE" in message
    assert hub.requests == []
    # The file that the message asks for is the one that is then used.
    wanted = caught.value.expected.split(",")[0]
    assert wanted == str(place_by_hand(tmp_path, CONTENT))
    assert str(fetch_checkpoint(NAME).path) == wanted


@pytest.mark.parametrize("status", [401, 404, 503])
def test_refusing_hub_is_reported(hub: Hub, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.status = status
    with pytest.raises(DownloadError, match="could not be fetched"):
        fetch_checkpoint(NAME)


def test_unreachable_hub_is_reported(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(DownloadError, match="Connection refused"):
        fetch_checkpoint(NAME)


def test_sign_in_page_is_not_taken_for_the_hub(hub: Hub) -> None:
    hub.page = True
    with pytest.raises(DownloadError, match="could not be fetched"):
        fetch_checkpoint(NAME)


def test_broken_transfer_goes_on_where_it_stopped(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.break_after = 50_500
    assert fetch_checkpoint(NAME).path.read_bytes() == CONTENT
    ranges = [asked for method, _, asked in hub.requests if method == "GET"]
    assert len(ranges) == 2
    assert ranges[0] is None
    assert re.fullmatch(r"bytes=50[05]00-.*", str(ranges[1]))


def test_wrong_bytes_are_refused_and_the_right_ones_taken_later(hub: Hub) -> None:
    hub.content = WRONG
    with pytest.raises(DownloadError, match="not the published one") as caught:
        fetch_checkpoint(NAME)
    assert SHA256 in caught.value.expected
    assert hashlib.sha256(WRONG).hexdigest() in caught.value.actual
    assert caught.value.where.endswith("model.safetensors")
    assert "run this again" in caught.value.next
    assert hub.count("GET") == 1
    hub.content = CONTENT
    assert fetch_checkpoint(NAME).path.read_bytes() == CONTENT


@pytest.mark.parametrize("recorded", [True, False])
def test_damaged_cache_is_fetched_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    if not recorded:
        monkeypatch.setitem(CHECKPOINTS, NAME, Checkpoint(REPOSITORY, REVISION, None, None))
    path = fetch_checkpoint(NAME).path
    path.resolve().write_bytes(WRONG)
    said = io.StringIO()
    fetched = fetch_checkpoint(NAME, Progress(console=Console(file=said)))
    assert fetched.path.read_bytes() == CONTENT
    assert "damaged" in said.getvalue()


@pytest.mark.parametrize("recorded", [True, False])
def test_damaged_cache_is_refused_offline_and_left_alone(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    if not recorded:
        monkeypatch.setitem(CHECKPOINTS, NAME, Checkpoint(REPOSITORY, REVISION, None, None))
    path = fetch_checkpoint(NAME).path
    path.resolve().write_bytes(WRONG)
    go_offline(monkeypatch)
    with pytest.raises(DownloadError, match="not the published one") as caught:
        fetch_checkpoint(NAME)
    assert caught.value.where == str(path)
    assert SHA256 in caught.value.expected
    assert hashlib.sha256(WRONG).hexdigest() in caught.value.actual
    assert "cannot be fetched again" in caught.value.actual
    assert path.read_bytes() == WRONG


def test_damaged_file_that_is_no_link_is_replaced(hub: Hub, tmp_path: Path) -> None:
    path = place_by_hand(tmp_path, WRONG)
    fetched = fetch_checkpoint(NAME)
    assert fetched.path == path
    assert path.read_bytes() == CONTENT


def test_checksum_of_the_hub_counts_where_none_is_recorded(unrecorded: Hub) -> None:
    assert fetch_checkpoint(NAME).provenance["sha256"] == SHA256
    assert unrecorded.count("HEAD") == 1


def test_bytes_that_differ_from_the_hub_s_checksum_are_refused(unrecorded: Hub) -> None:
    unrecorded.content = WRONG
    with pytest.raises(DownloadError, match="not the published one"):
        fetch_checkpoint(NAME)


def test_plain_file_without_recorded_checksum_is_compared_with_the_hub(
    unrecorded: Hub, tmp_path: Path
) -> None:
    path = place_by_hand(tmp_path, CONTENT)
    assert fetch_checkpoint(NAME).provenance["sha256"] == SHA256
    assert (unrecorded.count("HEAD"), unrecorded.count("GET")) == (1, 0)
    path.write_bytes(WRONG)
    assert fetch_checkpoint(NAME).path.read_bytes() == CONTENT


def test_plain_file_that_nothing_can_verify_is_refused(
    unrecorded: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_by_hand(tmp_path, CONTENT)
    go_offline(monkeypatch)
    with pytest.raises(DownloadError, match="cannot be verified"):
        fetch_checkpoint(NAME)


@pytest.mark.parametrize("quiet", [True, False])
def test_download_is_reported_by_our_progress_alone(
    hub: Hub, capfd: pytest.CaptureFixture[str], quiet: bool
) -> None:
    hub.content = bytes(3_400_000)
    hub.etag = hashlib.sha256(hub.content).hexdigest()
    CHECKPOINTS[NAME] = Checkpoint(REPOSITORY, REVISION, None, hub.etag)
    said = io.StringIO()
    fetch_checkpoint(NAME, Progress(quiet=quiet, console=Console(file=said)))
    assert ("Downloading gpt2-small (MB): 3/3" in said.getvalue()) is not quiet
    assert capfd.readouterr() == ("", "")


def test_progress_fits_the_library_s_other_transport() -> None:
    from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

    said = io.StringIO()
    bar = checkpoints._bar_class("Downloading", Progress(console=Console(file=said)))
    report = SimpleNamespace(
        total_bytes=5_000_000,
        total_bytes_completed=5_000_000,
        total_bytes_completion_rate=1.0,
        total_transfer_bytes_completed=2_000_000,
        total_transfer_bytes_completion_rate=None,
    )
    reporter = XetDownloadProgressReporter(
        reconstruction_desc="", total=5_000_000, log_level=30, tqdm_class=bar
    )
    with reporter:
        reporter.update_progress(report)
    assert said.getvalue().startswith("Downloading: 5/5 in")


def test_environment_variables_of_the_hub_are_honoured(tmp_path: Path) -> None:
    code = (
        "from lora_compare import checkpoints as c;"
        f"c.CHECKPOINTS[{NAME!r}] = c.Checkpoint({REPOSITORY!r}, {REVISION!r}, None, {SHA256!r});"
        f"print(c.fetch_checkpoint({NAME!r}).path)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    environment = {**os.environ, "HF_HOME": str(tmp_path), "NO_PROXY": LOOPBACK}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"):
        environment.pop(name, None)
    with serving() as hub:
        environment["HF_ENDPOINT"] = hub.url
        output = subprocess.check_output(command, env=environment, text=True)
    path = Path(output.strip())
    assert path.is_relative_to(tmp_path)
    assert path.read_bytes() == CONTENT
    environment["HF_HUB_OFFLINE"] = "1"
    assert subprocess.check_output(command, env=environment, text=True) == output
