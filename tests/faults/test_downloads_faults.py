"""Servers that misbehave: files are retried, checked, and published only when right."""

import hashlib
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from lora_compare.data.downloads import Patience, Remote, fetch
from lora_compare.data.sources import UCI
from lora_compare.errors import DownloadError
from lora_compare.project.checksums import seal
from small_project import ROOT, environment, run, small_params
from web import (
    CONTENT,
    PAGE,
    SHA256,
    asked,
    certify,
    loop,
    page,
    promised,
    remote,
    serve,
    status,
    tunnel,
    whole,
)

QUICK = Patience(
    connect_timeout=2, read_timeout=0.3, attempts=3, first_wait=0, longest_wait=0, deadline=5
)
BOUND = 20.0
"""Seconds within which what must end has ended, on a busy machine too."""

TABLE = "".join(
    f"{label}\tmessage {n} of {label}\n" for n in range(2000) for label in ("ham", "spam")
).encode()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Make the current folder a project with that source."""
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    monkeypatch.setenv("COLUMNS", "200")

    def make(source: str) -> Path:
        folder = tmp_path / "project"
        folder.mkdir()
        text = small_params().replace("source: inputs/text/messages.csv", f"source: {source}")
        (folder / "params.yaml").write_text(text)
        monkeypatch.chdir(folder)
        return folder

    return make


def files(folder: Path) -> set[Path]:
    """Return all files in `folder` but the stages' locks."""
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def refused(stage: str, folder: Path) -> str:
    """Run a stage that fails for the user to see; check that it leaves nothing."""
    before = files(folder)
    result = run(stage)
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    assert files(folder) == before
    return result.output


@pytest.mark.parametrize("trials", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_row_05_a_transfer_that_breaks_off_anywhere_starts_again(
    server: HTTPServer, tmp_path: Path, trials: int, record_property: Callable[[str, int], None]
) -> None:
    """Nothing of a broken one is used: without a checksum, only so no mixture is possible."""
    dice = random.Random(5)
    record_property("trials", trials)

    def breaking(request: Request) -> Response:
        first = len(server.log) % 2 == 0
        return promised([b"x" * dice.randrange(len(CONTENT))]) if first else whole()

    serve(server, "/a", breaking)
    for trial in range(trials):
        path = tmp_path / f"{trial}.tsv"
        fetch(remote(server, "/a", sha256=None), path, patience=QUICK)
        assert path.read_bytes() == CONTENT
        path.unlink()
    assert list(tmp_path.iterdir()) == []
    assert len(server.log) == 2 * trials


def test_row_05_a_transfer_that_keeps_breaking_leads_to_the_mirror(
    server: HTTPServer, tmp_path: Path
) -> None:
    serve(server, "/a", promised([CONTENT[:1000]]))
    with pytest.raises(DownloadError, match=r"the transfer broke off: .*1000 bytes read"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert asked(server) == ["/a"] * QUICK.attempts
    assert list(tmp_path.iterdir()) == []
    serve(server, "/b", whole())
    assert fetch(remote(server, "/a", "/b"), tmp_path / "a.zip", patience=QUICK).endswith("/b")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_row_05_a_stalled_transfer_ends(server: HTTPServer, tmp_path: Path) -> None:
    def stall() -> Iterator[bytes]:
        yield CONTENT[:5000]
        time.sleep(0.6)

    serve(server, "/a", lambda request: promised(stall()))
    started = time.monotonic()
    with pytest.raises(DownloadError, match="timed out"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert time.monotonic() - started < BOUND
    assert list(tmp_path.iterdir()) == []


def test_row_05_a_silent_server_ends(server: HTTPServer, tmp_path: Path) -> None:
    came: list[Request] = []

    def wait(request: Request) -> Response:
        came.append(request)
        time.sleep(0.6)
        return status(500)

    serve(server, "/a", wait)
    with pytest.raises(DownloadError, match="timed out"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert len(came) == QUICK.attempts
    assert list(tmp_path.iterdir()) == []


def test_row_05_a_dripping_server_ends_at_the_deadline(server: HTTPServer, tmp_path: Path) -> None:
    def drip() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x"
            time.sleep(0.02)

    serve(server, "/a", lambda request: promised(drip()))
    patience = Patience(read_timeout=1, attempts=2, first_wait=0, deadline=0.3)
    with pytest.raises(DownloadError, match="too slow"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=patience)
    assert list(tmp_path.iterdir()) == []


def test_row_05_a_break_in_a_chunked_transfer_is_noticed(
    server: HTTPServer, tmp_path: Path
) -> None:
    body = [b"400\r\n" + b"x" * 500]  # of the 1,024 bytes that the chunk is said to have
    serve(server, "/a", Response(body, headers={"Transfer-Encoding": "chunked"}))
    with pytest.raises(DownloadError, match="broke off"):
        fetch(remote(server, "/a", sha256=None), tmp_path / "a.tsv", patience=QUICK)
    assert list(tmp_path.iterdir()) == []


def test_row_05_the_stage_starts_again_too(
    server: HTTPServer, project: Callable[[str], Path]
) -> None:
    def once(request: Request) -> Response:
        return whole(TABLE) if server.log else promised([TABLE[:50_000]], len(TABLE))

    serve(server, "/sms.tsv", once)
    folder = project(server.url_for("/sms.tsv"))
    result = run("download")
    assert result.exit_code == 0, result.output
    assert "2,000 ham, 2,000 spam" in result.output
    assert asked(server) == ["/sms.tsv"] * 2
    assert [path.name for path in folder.joinpath(".downloads").rglob("*.*")] == ["file.tsv"]


def test_row_05_the_stage_killed_while_it_downloads_publishes_nothing(
    server: HTTPServer, project: Callable[[str], Path]
) -> None:
    def hold() -> Iterator[bytes]:
        yield TABLE[:50_000]
        time.sleep(30)

    def first(request: Request) -> Response:
        return whole(TABLE) if server.log else promised(hold(), len(TABLE))

    serve(server, "/sms.tsv", first)
    folder = project(server.url_for("/sms.tsv"))
    command = [sys.executable, str(ROOT / "stages" / "download.py")]
    settings = environment(LORA_COMPARE_TRACKING="off")
    with subprocess.Popen(command, env=settings, stderr=subprocess.DEVNULL) as stage:
        deadline = time.monotonic() + 60
        while not _has_arrived(folder, 40_000) and time.monotonic() < deadline:
            time.sleep(0.02)
        stage.kill()
    assert _has_arrived(folder, 40_000)
    assert not (folder / "data").exists()
    assert not list(folder.rglob("file.tsv"))
    assert run("download").exit_code == 0


def _has_arrived(folder: Path, size: int) -> bool:
    return any(path.stat().st_size >= size for path in folder.rglob("*.tmp"))


WRONG = {
    "a web page": b"<html>please sign in</html>",
    "half the file under a wrong length": CONTENT[: len(CONTENT) // 2],
    "one wrong bit": CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]),
    "nothing": b"",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_row_06_wrong_bytes_name_both_checksums_and_leave_nothing(
    server: HTTPServer, tmp_path: Path, wrong: str
) -> None:
    serve(server, "/a", whole(WRONG[wrong]))
    with pytest.raises(DownloadError) as error:
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    message = str(error.value)
    assert f"sha256 {SHA256}" in error.value.expected
    assert (
        f"sha256 {hashlib.sha256(WRONG[wrong]).hexdigest()}; it was removed" in error.value.actual
    )
    assert server.url_for("/a") in message
    assert "fetch it by hand" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", WRONG)
def test_row_06_wrong_bytes_lead_to_the_mirror(
    server: HTTPServer, tmp_path: Path, wrong: str
) -> None:
    serve(server, "/a", whole(WRONG[wrong]))
    serve(server, "/b", whole())
    assert fetch(remote(server, "/a", "/b"), tmp_path / "a.zip", patience=QUICK) == server.url_for(
        "/b"
    )
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert asked(server) == ["/a", "/b"]


def test_row_06_a_web_page_is_refused_even_without_checksum(
    server: HTTPServer, tmp_path: Path
) -> None:
    serve(server, "/a", page())
    with pytest.raises(DownloadError, match="web page"):
        fetch(remote(server, "/a", sha256=None), tmp_path / "a.tsv", patience=QUICK)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def behind_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[HTTPServer, list[str]]]:
    """The server to which a proxy for HTTPS leads in the place of every host, and those hosts."""
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    hosts = ["archive.ics.uci.edu", "f001.backblazeb2.com", "data.example"]
    tls, certificate = certify(tmp_path, *hosts)
    with HTTPServer(host="127.0.0.1", ssl_context=tls) as server, tunnel(server) as (proxy, asked):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
        yield server, asked


def test_row_06_the_stage_refuses_other_bytes_from_the_archive_and_from_its_mirror(
    behind_proxy: tuple[HTTPServer, list[str]], project: Callable[[str], Path]
) -> None:
    server, hosts = behind_proxy
    server.expect_request(re.compile(".*")).respond_with_response(page())
    folder = project("uci")
    output = refused("download", folder)
    actual = hashlib.sha256(PAGE).hexdigest()
    assert f"expected: sha256 {UCI.sha256}" in output
    assert output.count(f"served another file: sha256 {actual}; it was removed") == 4
    assert all(url in output for url in UCI.urls)
    assert "set data.source: inputs/text/sms+spam+collection.zip" in output
    assert hosts == ["archive.ics.uci.edu:443", "f001.backblazeb2.com:443"]


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_row_07_a_busy_server_is_asked_a_few_times_then_the_mirror(
    code: int, server: HTTPServer, tmp_path: Path
) -> None:
    serve(server, "/a", status(code, Retry_After="3600"))
    serve(server, "/b", whole())
    started = time.monotonic()
    assert fetch(remote(server, "/a", "/b"), tmp_path / "a.zip", patience=QUICK) == server.url_for(
        "/b"
    )
    assert time.monotonic() - started < BOUND
    assert asked(server) == ["/a"] * QUICK.attempts + ["/b"]


def test_row_07_a_server_that_recovers_is_used(server: HTTPServer, tmp_path: Path) -> None:
    def recovering(request: Request) -> Response:
        return whole() if server.log else status(429, Retry_After="1")

    serve(server, "/a", recovering)
    patience = Patience(attempts=4, first_wait=0, longest_wait=1)
    assert fetch(remote(server, "/a"), tmp_path / "a.zip", patience=patience) == server.url_for(
        "/a"
    )
    assert len(server.log) == 2


def test_row_07_a_redirect_loop_ends(server: HTTPServer, tmp_path: Path) -> None:
    serve(server, "/a", loop("/a"))
    serve(server, "/b", whole())
    with pytest.raises(DownloadError, match="redirects more than 5 times"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert len(server.log) == QUICK.redirects + 1
    assert fetch(remote(server, "/a", "/b"), tmp_path / "a.zip", patience=QUICK) == server.url_for(
        "/b"
    )


def test_row_07_a_refused_connection_names_every_address(tmp_path: Path) -> None:
    urls = ["http://user:secret@127.0.0.1:9/a", "http://127.0.0.1:9/b"]
    with pytest.raises(DownloadError) as error:
        fetch(Remote(urls, SHA256), tmp_path / "a.zip", patience=QUICK)
    message = str(error.value)
    assert "http://127.0.0.1:9/a" in message
    assert "http://127.0.0.1:9/b" in message
    assert "secret" not in message
    assert list(tmp_path.iterdir()) == []


DOWN = {
    "HTTP status 429": status(429, Retry_After="0"),
    "redirects more than": loop("/sms.tsv"),
}


@pytest.mark.slow
@pytest.mark.parametrize("reason", DOWN)
def test_row_07_the_stage_says_where_to_put_the_file_by_hand(
    server: HTTPServer, project: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    serve(server, "/sms.tsv", DOWN[reason])
    folder = project(server.url_for("/sms.tsv"))
    started = time.monotonic()
    output = refused("download", folder)
    assert time.monotonic() - started < BOUND
    assert f"{server.url_for('/sms.tsv')}\n" in output
    assert reason in output
    assert "save it as inputs/text/sms.tsv and set data.source: inputs/text/sms.tsv" in output

    # What the message says to do works.
    (folder / "inputs" / "text").mkdir(parents=True)
    (folder / "inputs" / "text" / "sms.tsv").write_bytes(TABLE)
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(
        text.replace(server.url_for("/sms.tsv"), "inputs/text/sms.tsv")
    )
    assert run("download").exit_code == 0


def test_row_07_behind_a_firewall_the_proxy_of_the_environment_is_asked(
    behind_proxy: tuple[HTTPServer, list[str]],
    project: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, hosts = behind_proxy
    serve(server, "/sms.tsv", whole(TABLE))
    folder = project("https://data.example/sms.tsv")
    assert run("download").exit_code == 0
    assert hosts == ["data.example:443"]
    assert asked(server) == ["/sms.tsv"]
    messages = (folder / "data" / "raw" / "messages.tsv").read_bytes()

    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("https://data", "http://data"))
    with HTTPServer(host="127.0.0.1") as proxy:
        serve(proxy, "/sms.tsv", whole(TABLE))
        monkeypatch.setenv("HTTP_PROXY", proxy.url_for("/"))
        assert run("download").exit_code == 0
        assert [request.host for request, _ in proxy.log] == ["data.example"]
    assert (folder / "data" / "raw" / "messages.tsv").read_bytes() == messages


@pytest.fixture
def base_model(
    server: HTTPServer,
    project: Callable[[str], Path],
    assets: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Path]:
    """A project whose base model is GPT-2 from the hub, which `server` takes the place of."""
    folder = project("bundled")
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("name: gpt2-nano", "name: gpt2-small"))
    for split in ("train", "validation", "test", "unused"):
        path = folder / "data" / "splits" / f"{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("Label,Text\n0,hello\n1,win\n")
        seal(path.parent)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(assets / "tiktoken_cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url_for("").rstrip("/"))
    template = server.url_for("/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    huggingface_hub.close_session()
    yield folder
    huggingface_hub.close_session()


ADDRESS = (
    "/openai-community/gpt2/resolve/607a30d783dfa663caf39e06633721c8d4cfcd7e/model.safetensors"
)


@pytest.mark.real_data
def test_row_06_base_model_refuses_a_checkpoint_with_other_bytes(
    server: HTTPServer, base_model: Path
) -> None:
    revision = ADDRESS.split("/")[4]
    answer = whole()
    answer.headers.update({"X-Repo-Commit": revision, "ETag": f'"{SHA256}"'})
    serve(server, ADDRESS, answer)
    output = refused("base_model", base_model)
    assert "The file of gpt2-small is not the published one." in output
    assert "sha256 248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707" in output
    assert f"sha256 {SHA256} (512,000 bytes)" in output


@pytest.mark.real_data
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(page(), id="a web page"),
        pytest.param(status(500), marks=pytest.mark.slow, id="500"),
    ],
)
def test_row_07_base_model_says_where_to_put_the_checkpoint_by_hand(
    server: HTTPServer, base_model: Path, answer: Response
) -> None:
    serve(server, ADDRESS, answer)
    started = time.monotonic()
    output = refused("base_model", base_model)
    assert time.monotonic() - started < 3 * BOUND
    assert "The file of gpt2-small could not be fetched." in output
    assert server.url_for(ADDRESS) in output
    assert "hf download openai-community/gpt2 model.safetensors" in output
