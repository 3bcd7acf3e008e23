"""A hub on loopback that answers as the Hugging Face hub does, for tests."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from web import running

REPOSITORY = "openai-community/gpt2"
REVISION = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
ADDRESS = f"/{REPOSITORY}/resolve/{REVISION}/model.safetensors"
LOOPBACK = "127.0.0.1,localhost"


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

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content = content
        self.etag = hashlib.sha256(content).hexdigest()
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
def serving(content: bytes) -> Iterator[Hub]:
    """Yield a hub that serves one file of this content."""
    with Hub(content) as server, running(server):
        yield server


@contextmanager
def speaking_to_hub(monkeypatch: pytest.MonkeyPatch, cache: Path, content: bytes) -> Iterator[Hub]:
    """Yield a hub to which the library speaks in this process, with an empty cache."""
    monkeypatch.setenv("NO_PROXY", LOOPBACK)
    monkeypatch.setenv("no_proxy", LOOPBACK)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    with serving(content) as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server
    huggingface_hub.close_session()


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library ask no hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
