"""A hub on loopback that answers as the Hugging Face hub does, for tests."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from web import page, promised, status

REPOSITORY = "openai-community/gpt2"
REVISION = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
ADDRESS = f"/{REPOSITORY}/resolve/{REVISION}/model.safetensors"
LOOPBACK = "127.0.0.1,localhost"


class Hub:
    """A hub with one file: a redirect to a content address, as for every large file.

    Attributes:
        url: Its address.
        content: What it sends.
        etag: The checksum that it claims.
        break_after: Bytes after which the first transfer is cut off.
        status: Answer to everything, if set.
        page: Answer as a web page without the hub's headers, as a sign-in portal does.
        requests: What was asked about the file: method, path, range.
    """

    def __init__(self, server: HTTPServer, content: bytes) -> None:
        self.url = server.url_for("").rstrip("/")
        # Another host than the hub's, as the library follows redirects on its own.
        self._storage = f"http://localhost:{server.port}/cdn"
        self.content = content
        self.etag = hashlib.sha256(content).hexdigest()
        self.break_after: int | None = None
        self.status: int | None = None
        self.page = False
        self.requests: list[tuple[str, str, str | None]] = []
        server.expect_request(re.compile(".*")).respond_with_handler(self._answer)

    def count(self, method: str) -> int:
        return sum(request[0] == method for request in self.requests)

    def _answer(self, request: Request) -> Response:
        if request.path != ADDRESS and not request.path.startswith("/cdn/"):
            return status(404)  # the library also asks for what has nothing to do with the file
        self.requests.append((request.method, request.path, request.headers.get("Range")))
        if self.status:
            return status(self.status)
        if self.page:
            return page()
        return self._link() if request.method == "HEAD" else self._file(request)

    def _link(self) -> Response:
        headers = {
            "X-Repo-Commit": REVISION,
            "X-Linked-Etag": f'"{self.etag}"',
            "X-Linked-Size": str(len(self.content)),
            "Location": f"{self._storage}/{self.etag}",
        }
        return Response(status=302, headers=headers)

    def _file(self, request: Request) -> Response:
        if self.break_after is not None:
            part, self.break_after = self.content[: self.break_after], None
            return promised([part], len(self.content))
        answer = Response(self.content)
        answer.make_conditional(request, accept_ranges=True, complete_length=len(self.content))
        return answer


@contextmanager
def serving(content: bytes) -> Iterator[Hub]:
    """Yield a hub that serves one file of this content."""
    with HTTPServer(host="127.0.0.1", threaded=True) as server:
        yield Hub(server, content)


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
