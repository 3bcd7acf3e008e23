"""Downloads publish a file only when it is whole and right."""

from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from lora_compare.data.downloads import Patience, Remote, fetch
from lora_compare.errors import DownloadError
from web import CONTENT, loop, promised, remote, serve, status, whole

QUICK = Patience(
    connect_timeout=2, read_timeout=0.3, attempts=3, first_wait=0, longest_wait=0, deadline=5
)


def test_missing_file_is_asked_for_once(server: HTTPServer, tmp_path: Path) -> None:
    serve(server, "/a", status(404))
    with pytest.raises(DownloadError, match="HTTP status 404"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert len(server.log) == 1


def test_redirect_is_followed(server: HTTPServer, tmp_path: Path) -> None:
    serve(server, "/a", loop("/b"))
    serve(server, "/b", whole())
    fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("declared", [True, False])
def test_file_over_the_cap_is_refused(declared: bool, server: HTTPServer, tmp_path: Path) -> None:
    serve(server, "/a", promised([CONTENT]) if declared else Response(iter([CONTENT])))
    wanted = Remote([server.url_for("/a")], max_bytes=1000)
    with pytest.raises(DownloadError, match="1000"):
        fetch(wanted, tmp_path / "a.tsv", patience=QUICK)
    assert list(tmp_path.iterdir()) == []


def test_existing_file_stays_when_a_download_fails(server: HTTPServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"old")
    serve(server, "/a", status(500))
    with pytest.raises(DownloadError):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == b"old"
