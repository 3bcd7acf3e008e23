"""Hubs on loopback that answer as the Hugging Face hub does, for tests."""

import hashlib
import json
import re
import threading
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


MODEL = "someone/tiny-model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class ModelHub:
    """A hub with one model: its weights in large-file storage, its small files in git.

    Attributes:
        url: Its address.
        files: Content by name; what is changed here is sent, but not what checksums say.
        commits: Commit by branch or tag.
        status: Answer to everything, if set.
        code: The hub's own name of that error.
        delay: Seconds that it takes to answer.
        requests: What was asked: method and path.
    """

    def __init__(self, server: HTTPServer, files: dict[str, bytes]) -> None:
        self.url = server.url_for("").rstrip("/")
        self.files: dict[str, bytes] = {}
        self._etags: dict[str, str] = {}
        self.add(files)
        self.commits = {COMMIT: COMMIT, "main": COMMIT}
        self.status: int | None = None
        self.code = ""
        self.delay = 0.0
        self.requests: list[tuple[str, str]] = []
        server.expect_request(re.compile(".*")).respond_with_handler(self._answer)

    def add(self, files: dict[str, bytes]) -> None:
        """Publish these files, with their checksums."""
        self.files |= files
        self._etags |= {name: etag_of(name, content) for name, content in files.items()}

    def fetched(self) -> list[str]:
        """Return the names of the files that were sent, in order."""
        sent = (path for method, path in self.requests if method == "GET" and "/resolve/" in path)
        return [path.rpartition("/")[2] for path in sent]

    def _answer(self, request: Request) -> Response:
        self.requests.append((request.method, request.path))
        threading.Event().wait(self.delay)
        if self.status:
            return status(self.status, **({"X_Error_Code": self.code} if self.code else {}))
        about = re.fullmatch(f"/api/models/{MODEL}/revision/(.+)", request.path)
        if about:
            return self._about(about[1])
        file = re.fullmatch(f"/{MODEL}/resolve/([^/]+)/([^/]+)", request.path)
        if not file:
            return status(404, X_Error_Code="RepoNotFound")
        if file[1] not in self.commits:
            return status(404, X_Error_Code="RevisionNotFound")
        if file[2] not in self.files:
            return status(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        return self._file(request, file[2])

    def _about(self, revision: str) -> Response:
        if revision not in self.commits:
            return status(404, X_Error_Code="RevisionNotFound")
        names = [{"rfilename": name} for name in self.files]
        answer = {"id": MODEL, "sha": self.commits[revision], "siblings": names}
        return Response(json.dumps(answer), content_type="application/json")

    def _file(self, request: Request, name: str) -> Response:
        answer = Response(self.files[name])
        answer.headers["X-Repo-Commit"] = COMMIT
        key = "X-Linked-Etag" if name.endswith(".safetensors") else "ETag"
        answer.headers[key] = f'"{self._etags[name]}"'
        answer.make_conditional(request, accept_ranges=True, complete_length=len(self.files[name]))
        return answer


def etag_of(name: str, content: bytes) -> str:
    """Return the checksum that the hub gives a file: sha256 of a large one, git's id else."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving(content: bytes) -> Iterator[Hub]:
    """Yield a hub that serves one file of this content."""
    with HTTPServer(host="127.0.0.1", threaded=True) as server:
        yield Hub(server, content)


@contextmanager
def speaking_to_hub(monkeypatch: pytest.MonkeyPatch, cache: Path, content: bytes) -> Iterator[Hub]:
    """Yield a hub to which the library speaks in this process, with an empty cache."""
    with serving(content) as server, _listening_to(server.url, monkeypatch, cache):
        yield server


@contextmanager
def speaking_of_model(
    server: HTTPServer, monkeypatch: pytest.MonkeyPatch, cache: Path, files: dict[str, bytes]
) -> Iterator[ModelHub]:
    """Yield a hub with a model of these files, as `speaking_to_hub`, on a running server."""
    server.clear()
    hub = ModelHub(server, files)
    with _listening_to(hub.url, monkeypatch, cache):
        yield hub


@contextmanager
def _listening_to(url: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", LOOPBACK)
    monkeypatch.setenv("no_proxy", LOOPBACK)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield
    huggingface_hub.close_session()


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library ask no hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
