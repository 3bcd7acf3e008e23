"""Downloads publish a file only when it is whole and right."""

from pathlib import Path

import pytest

from lora_compare.data.downloads import Patience, Remote, fetch
from lora_compare.errors import DownloadError
from web import CONTENT, Handler, Server, ranged, remote, status, whole

QUICK = Patience(
    connect_timeout=2, read_timeout=0.3, attempts=3, first_wait=0, longest_wait=0, deadline=5
)


def test_complete_part_is_published_without_a_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.asked == []


def test_without_checksum_nothing_of_an_earlier_run_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"wrong")
    server.answers["/a"] = ranged
    fetch(remote(server, "/a", sha256=None), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.asked == [("/a", None)]


def test_missing_file_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    server.answers["/a"] = status(404)
    with pytest.raises(DownloadError, match="404 Not Found"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert len(server.asked) == 1


def test_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    server.answers["/a"] = lambda handler: handler.reply(b"", 302, Location="/b")
    server.answers["/b"] = whole
    fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


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


def test_existing_file_stays_when_a_download_fails(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"old")
    server.answers["/a"] = status(500)
    with pytest.raises(DownloadError):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == b"old"
