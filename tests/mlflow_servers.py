"""MLflow's server on loopback, and servers that fail in its place."""

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

REFUSING = "http://127.0.0.1:9"
"""Port 9 (discard) of this machine: nothing listens there."""


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers every request with one status and body."""

    status, body = 500, b"{}"

    def answer(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


class Page(Answer):
    """A login page where MLflow should be."""

    status, body = 200, b"<html>please log in</html>"


class Garbage(Answer):
    """Bytes that are nothing, under a status that says that all is well."""

    status, body = 200, bytes(range(256))


class Nonsense(Answer):
    """JSON, but none that MLflow would send."""

    status, body = 200, b'{"experiment": 7, "run": [], "runs": {"a": null}}'


class Another(Answer):
    """Some other service of the same address, for which nothing is wrong."""

    status, body = 200, b"{}"


class Well(Answer):
    """Is well when it is asked for its health; what follows is up to its children."""

    status, body = 200, b"OK"

    def answer(self) -> None:
        if self.path == "/health":
            super().answer()
        else:
            self.work()

    def work(self) -> None:
        raise NotImplementedError


class Deaf(Well):
    """Never answers."""

    def work(self) -> None:
        time.sleep(60)


class Dripping(Well):
    """Sends its answers one byte a second, which no timeout between two bytes notices."""

    def work(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(1000):
            self.wfile.write(b" ")
            time.sleep(1)


class Works(Well):
    """Takes what it is sent, as MLflow does, and forgets it."""

    seconds, dies_after = 0.0, 10**9

    def work(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.server.requests += 1  # type: ignore[attr-defined]
        if self.server.requests > self.dies_after:  # type: ignore[attr-defined]
            self.server.shutdown()
            self.server.server_close()
            return
        time.sleep(self.seconds)
        self.body = json.dumps(self.taken()).encode()
        Answer.answer(self)

    def taken(self) -> dict[str, object]:
        call = self.path.partition("?")[0]
        if call.endswith("/experiments/get-by-name"):
            place = {"artifact_location": "mlflow-artifacts:/1", "lifecycle_stage": "active"}
            return {"experiment": {"experiment_id": "1", "name": "lora-compare", **place}}
        if call.endswith("/runs/create"):
            name = f"{self.server.requests:032x}"  # type: ignore[attr-defined]
            info = {"run_id": name, "run_uuid": name, "experiment_id": "1", "status": "RUNNING"}
            place = {"artifact_uri": f"mlflow-artifacts:/1/{name}", "lifecycle_stage": "active"}
            return {"run": {"info": {**info, **place, "start_time": 0}, "data": {}}}
        return {}


def slow(seconds: float) -> type[Works]:
    """Return what works, but takes its time for every answer."""
    return type("Slow", (Works,), {"seconds": seconds})


def dying(after: int) -> type[Works]:
    """Return what works for some requests; the next one finds the whole server gone."""
    return type("Dying", (Works,), {"dies_after": after})


@contextmanager
def serving(handler: type[Answer]) -> Iterator[str]:
    """Yield the address of a server, with a user and a password in it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        # Requests that sleep must not hold up the end of the test.
        server.block_on_close = False
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients give up
        server.requests = 0  # type: ignore[attr-defined]
        loop = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        loop.start()
        yield f"http://user:secret@127.0.0.1:{server.server_address[1]}"
        if loop.is_alive():
            server.shutdown()


@contextmanager
def refusing() -> Iterator[str]:
    """Yield an address at which nothing listens."""
    yield REFUSING


@contextmanager
def hanging() -> Iterator[str]:
    """Yield the address of what takes connections and never says a word."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        yield f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}"


def of(handler: type[Answer]) -> Callable[[], AbstractContextManager[str]]:
    """Return what serves with `handler`."""
    return lambda: serving(handler)


TAKING_NOTHING: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "refusing": refusing,
    "hanging": hanging,
    "failing": of(Answer),
    "login page": of(Page),
    "garbage": of(Garbage),
    "nonsense": of(Nonsense),
    "another service": of(Another),
    "deaf": of(Deaf),
}
"""Servers that never take a run, by their name."""

TAKING_SOME: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "slow": of(slow(0.1)),
    "dying at once": of(dying(1)),
    "dying": of(dying(6)),
}
"""Servers that take a part."""


@contextmanager
def real_server(
    folder: Path, empty_store: Path, prefix: str = "", store: str = ""
) -> "Iterator[tuple[str, subprocess.Popen[bytes]]]":
    """Yield the address and the process of a real MLflow server.

    Args:
        folder: Where it keeps its files.
        empty_store: A fresh store to copy to `folder`.
        prefix: The path below which it answers.
        store: The database that it shows in place of one in `folder`.
    """
    if not store and not (folder / "mlflow.db").exists():
        shutil.copyfile(empty_store, folder / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", *(["--static-prefix", prefix] if prefix else [])]
    command += ["--artifacts-destination", str(folder / "files"), "--serve-artifacts"]
    settings = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store or f"sqlite:///{folder / 'mlflow.db'}",
        # The server's own job runner is of no use here and takes seconds to start.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=settings, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}{prefix}"
    try:
        wait_for(address, process, folder / "log")
        yield address, process
    finally:
        kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a server and its workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until MLflow's server answers."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(log.read_text())
