"""Downloads survive every bad server, and publish only what is right."""

import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lora_compare.downloads import Patience, Remote, fetch
from lora_compare.errors import DownloadError

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(
    connect_timeout=2, read_timeout=0.3, attempts=3, first_wait=0, longest_wait=0, deadline=5
)

Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path's entry in the server's table, and keeps what was asked."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        self.server.answers[self.path](self)

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str | None]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gives up is what these tests are about."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def whole(handler: Handler) -> None:
    handler.reply(CONTENT)


def ranged(handler: Handler) -> None:
    """Serve what the Range asks for."""
    start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
    if start >= len(CONTENT):
        handler.reply(b"", 416)
        return
    rest = CONTENT[start:]
    content_range = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    handler.reply(rest, 206 if start else 200, Content_Range=content_range)


def closing_early(step: int) -> Answer:
    """Serve at most `step` bytes of what is asked for, while promising all of it."""

    def answer(handler: Handler) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        rest = CONTENT[start:]
        content_range = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        handler.reply(
            rest[:step],
            206 if start else 200,
            Content_Length=str(len(rest)),
            Content_Range=content_range,
        )
        handler.close_connection = True

    return answer


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.reply(b"no", code, **headers)


def remote(server: Server, *paths: str, sha256: str | None = SHA256) -> Remote:
    return Remote([server.url(path) for path in paths], sha256, by_hand="fetch it by hand")


def test_file_is_published_with_its_bytes_and_no_remains(server: Server, tmp_path: Path) -> None:
    server.answers["/a"] = whole
    assert fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK) == server.url("/a")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_transfer_that_keeps_breaking_is_resumed_where_it_stopped(
    server: Server, tmp_path: Path
) -> None:
    step = len(CONTENT) // 7
    server.answers["/a"] = closing_early(step)
    fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.asked[0][1] is None
    assert server.asked[1][1] == f"bytes={step}-"
    assert len(server.asked) == 8


def test_transfer_is_resumed_by_the_next_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:1000])
    server.answers["/a"] = ranged
    fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.asked == [("/a", "bytes=1000-")]


def test_complete_part_is_published_without_a_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("leftover", [b"wrong", b"x" * (len(CONTENT) + 1)])
def test_wrong_bytes_of_an_earlier_run_are_replaced(
    leftover: bytes, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "a.zip.part").write_bytes(leftover)
    server.answers["/a"] = ranged
    fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_server_that_ignores_range_sends_the_whole_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    server.answers["/a"] = whole
    fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_without_checksum_nothing_of_an_earlier_run_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"wrong")
    server.answers["/a"] = ranged
    fetch(remote(server, "/a", sha256=None), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.asked == [("/a", None)]


@pytest.mark.parametrize("code", [429, 500, 503])
def test_busy_server_is_asked_a_few_times_then_the_mirror(
    code: int, server: Server, tmp_path: Path
) -> None:
    server.answers["/a"] = status(code, Retry_After="3600")
    server.answers["/b"] = whole
    started = time.monotonic()
    assert fetch(remote(server, "/a", "/b"), tmp_path / "a.zip", patience=QUICK) == server.url("/b")
    assert time.monotonic() - started < 3
    assert [path for path, _ in server.asked] == ["/a"] * QUICK.attempts + ["/b"]


def test_missing_file_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    server.answers["/a"] = status(404)
    with pytest.raises(DownloadError, match="404 Not Found"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert len(server.asked) == 1


def test_wrong_bytes_name_both_checksums_and_leave_nothing(server: Server, tmp_path: Path) -> None:
    page = b"<html>maintenance</html>"
    server.answers["/a"] = lambda handler: handler.reply(page, Content_Type="text/html")
    with pytest.raises(DownloadError) as error:
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    message = str(error.value)
    assert SHA256 in message
    assert hashlib.sha256(page).hexdigest() in message
    assert server.url("/a") in message
    assert "fetch it by hand" in message
    assert list(tmp_path.iterdir()) == []


def test_wrong_bytes_lead_to_the_mirror(server: Server, tmp_path: Path) -> None:
    server.answers["/a"] = lambda handler: handler.reply(b"<html>", Content_Type="text/html")
    server.answers["/b"] = whole
    assert fetch(remote(server, "/a", "/b"), tmp_path / "a.zip", patience=QUICK) == server.url("/b")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_web_page_is_refused_even_without_checksum(server: Server, tmp_path: Path) -> None:
    server.answers["/a"] = lambda handler: handler.reply(b"<html>", Content_Type="text/html")
    with pytest.raises(DownloadError, match="web page"):
        fetch(remote(server, "/a", sha256=None), tmp_path / "a.tsv", patience=QUICK)
    assert list(tmp_path.iterdir()) == []


def test_redirect_loop_ends(server: Server, tmp_path: Path) -> None:
    server.answers["/a"] = lambda handler: handler.reply(b"", 302, Location="/a")
    with pytest.raises(DownloadError, match="redirects more than 5 times"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert len(server.asked) == QUICK.redirects + 1


def test_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    server.answers["/a"] = lambda handler: handler.reply(b"", 302, Location="/b")
    server.answers["/b"] = whole
    fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_stalled_transfer_ends_and_keeps_what_arrived(server: Server, tmp_path: Path) -> None:
    def stall(handler: Handler) -> None:
        if handler.headers.get("Range"):
            handler.reply(b"", 206, Content_Range="bytes 5000-9998/9999", Content_Length="4999")
        else:
            handler.reply(CONTENT[:5000], Content_Length="9999")
        time.sleep(0.6)

    server.answers["/a"] = stall
    started = time.monotonic()
    with pytest.raises(DownloadError) as error:
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert time.monotonic() - started < 5
    assert "timed out" in str(error.value)
    assert "5000 bytes in" in error.value.kept
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip.part"]
    assert (tmp_path / "a.zip.part").read_bytes() == CONTENT[:5000]


def test_silent_server_ends(server: Server, tmp_path: Path) -> None:
    server.answers["/a"] = lambda handler: time.sleep(0.6)
    with pytest.raises(DownloadError, match="timed out"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)


def test_dripping_server_ends_at_the_deadline(server: Server, tmp_path: Path) -> None:
    def drip(handler: Handler) -> None:
        handler.reply(b"", Content_Length=str(len(CONTENT)))
        for _ in range(40):
            handler.wfile.write(b"x")
            time.sleep(0.02)

    server.answers["/a"] = drip
    patience = Patience(read_timeout=1, attempts=2, first_wait=0, deadline=0.3)
    with pytest.raises(DownloadError, match="too slow"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=patience)


def test_break_in_a_chunked_transfer_is_noticed(server: Server, tmp_path: Path) -> None:
    def chunked(handler: Handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"400\r\n" + b"x" * 500)
        handler.close_connection = True

    server.answers["/a"] = chunked
    with pytest.raises(DownloadError, match="broke off"):
        fetch(remote(server, "/a", sha256=None), tmp_path / "a.tsv", patience=QUICK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("declared", [True, False])
def test_file_over_the_cap_is_refused(declared: bool, server: Server, tmp_path: Path) -> None:
    def large(handler: Handler) -> None:
        handler.send_response(200)
        if declared:
            handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT)

    server.answers["/a"] = large
    wanted = Remote([server.url("/a")], max_bytes=1000)
    with pytest.raises(DownloadError, match="1000"):
        fetch(wanted, tmp_path / "a.tsv", patience=QUICK)
    assert list(tmp_path.iterdir()) == []


def test_refused_connection_names_every_address(tmp_path: Path) -> None:
    urls = ["http://user:secret@127.0.0.1:9/a", "http://127.0.0.1:9/b"]
    with pytest.raises(DownloadError) as error:
        fetch(Remote(urls, SHA256), tmp_path / "a.zip", patience=QUICK)
    message = str(error.value)
    assert "http://127.0.0.1:9/a" in message
    assert "http://127.0.0.1:9/b" in message
    assert "secret" not in message


def test_existing_file_stays_when_a_download_fails(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"old")
    server.answers["/a"] = status(500)
    with pytest.raises(DownloadError):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == b"old"
