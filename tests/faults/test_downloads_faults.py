"""Servers that misbehave: files are resumed, retried, checked, and published only when right."""

import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from lora_compare.data.downloads import Patience, Remote, fetch
from lora_compare.data.sources import UCI
from lora_compare.errors import DownloadError
from lora_compare.project.checksums import seal
from small_project import ROOT, environment, run, small_params
from web import (
    CONTENT,
    SHA256,
    Answer,
    Handler,
    Server,
    certify,
    closing_early,
    content_range,
    page,
    ranged,
    remote,
    serving,
    start_of,
    status,
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
        text = small_params().replace("source: inputs/messages.csv", f"source: {source}")
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


def test_row_05_a_transfer_that_keeps_breaking_is_resumed_where_it_stopped(
    server: Server, tmp_path: Path
) -> None:
    step = len(CONTENT) // 7
    server.answers["/a"] = closing_early(step)
    fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.asked[0][1] is None
    assert server.asked[1][1] == f"bytes={step}-"
    assert len(server.asked) == 8


@pytest.mark.parametrize("trials", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_row_05_breaks_at_random_places_cost_no_byte(
    server: Server, tmp_path: Path, trials: int, record_property: Callable[[str, int], None]
) -> None:
    dice = random.Random(5)
    record_property("trials", trials)

    def breaking(handler: Handler) -> None:
        left = len(CONTENT) - start_of(handler)
        closing_early(dice.randint(1, left))(handler)

    server.answers["/a"] = breaking
    for trial in range(trials):
        path = tmp_path / f"{trial}.zip"
        fetch(remote(server, "/a"), path, patience=QUICK)
        assert path.read_bytes() == CONTENT
        path.unlink()
    assert list(tmp_path.iterdir()) == []


def test_row_05_a_transfer_is_resumed_by_the_next_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:1000])
    server.answers["/a"] = ranged
    fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.asked == [("/a", "bytes=1000-")]


def test_row_05_a_server_that_ignores_range_sends_the_whole_file(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    server.answers["/a"] = whole
    fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_row_05_a_file_that_changes_between_two_attempts_is_never_a_mixture(
    server: Server, tmp_path: Path
) -> None:
    """Without a checksum, only the server's own mark tells: it then sends the new file whole."""
    asked_if: list[str | None] = []

    def changing(handler: Handler) -> None:
        asked_if.append(handler.headers.get("If-Range"))
        if len(asked_if) == 1:
            old = b"old" * 1000
            handler.reply(old[:1000], Content_Length=str(len(old)), ETag='"1"')
            handler.close_connection = True
        else:
            handler.reply(CONTENT, ETag='"2"')

    server.answers["/a"] = changing
    fetch(remote(server, "/a", sha256=None), tmp_path / "a.tsv", patience=QUICK)
    assert asked_if == [None, '"1"']
    assert (tmp_path / "a.tsv").read_bytes() == CONTENT


def stall(handler: Handler) -> None:
    """Send 5,000 bytes, and then nothing more, whatever is asked for."""
    if handler.headers.get("Range"):
        handler.reply(b"", 206, Content_Range=content_range(5000, 9999), Content_Length="4999")
    else:
        handler.reply(CONTENT[:5000], Content_Length="9999")
    time.sleep(0.6)


def test_row_05_a_stalled_transfer_ends_and_keeps_what_arrived(
    server: Server, tmp_path: Path
) -> None:
    server.answers["/a"] = stall
    started = time.monotonic()
    with pytest.raises(DownloadError) as error:
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert time.monotonic() - started < BOUND
    assert "timed out" in str(error.value)
    assert "5000 bytes in" in error.value.kept
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip.part"]
    assert (tmp_path / "a.zip.part").read_bytes() == CONTENT[:5000]


def test_row_05_a_silent_server_ends(server: Server, tmp_path: Path) -> None:
    server.answers["/a"] = lambda handler: time.sleep(0.6)
    with pytest.raises(DownloadError, match="timed out"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert len(server.asked) == QUICK.attempts
    assert list(tmp_path.iterdir()) == []


def test_row_05_a_dripping_server_ends_at_the_deadline(server: Server, tmp_path: Path) -> None:
    def drip(handler: Handler) -> None:
        handler.reply(b"", Content_Length=str(len(CONTENT)))
        for _ in range(40):
            handler.wfile.write(b"x")
            time.sleep(0.02)

    server.answers["/a"] = drip
    patience = Patience(read_timeout=1, attempts=2, first_wait=0, deadline=0.3)
    with pytest.raises(DownloadError, match="too slow"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=patience)
    assert not (tmp_path / "a.zip").exists()


def test_row_05_a_break_in_a_chunked_transfer_is_noticed(server: Server, tmp_path: Path) -> None:
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


def test_row_05_the_stage_resumes_too(server: Server, project: Callable[[str], Path]) -> None:
    def once(handler: Handler) -> None:
        rest = TABLE[start_of(handler) :]
        first = not handler.headers.get("Range")
        handler.reply(
            rest[:50_000] if first else rest,
            200 if first else 206,
            Content_Length=str(len(rest)),
            Content_Range=content_range(start_of(handler), len(TABLE)),
        )
        handler.close_connection = True

    server.answers["/sms.tsv"] = once
    folder = project(server.url("/sms.tsv"))
    result = run("download")
    assert result.exit_code == 0, result.output
    assert "2,000 ham, 2,000 spam" in result.output
    assert server.asked == [("/sms.tsv", None), ("/sms.tsv", "bytes=50000-")]
    assert not list(folder.rglob("*.part"))


def test_row_05_the_stage_killed_while_it_downloads_publishes_nothing_and_goes_on(
    server: Server, project: Callable[[str], Path]
) -> None:
    """With a checksum in params.yaml, what had arrived is of use to the next run."""

    def hold(handler: Handler) -> None:
        handler.reply(TABLE[:50_000], Content_Length=str(len(TABLE)))
        time.sleep(30)

    server.answers["/sms.tsv"] = hold
    folder = project(server.url("/sms.tsv"))
    params = folder / "params.yaml"
    sha256 = hashlib.sha256(TABLE).hexdigest()
    assert "sha256: null" in params.read_text()
    params.write_text(params.read_text().replace("sha256: null", f"sha256: {sha256}"))
    command = [sys.executable, str(ROOT / "stages" / "download.py")]
    settings = environment(LORA_COMPARE_TRACKING="off")
    with subprocess.Popen(command, env=settings, stderr=subprocess.DEVNULL) as stage:
        deadline = time.monotonic() + 60
        while not _has_arrived(folder, 50_000) and time.monotonic() < deadline:
            time.sleep(0.02)
        stage.kill()
    assert _has_arrived(folder, 50_000)
    assert not (folder / "data").exists()

    def rest(handler: Handler) -> None:
        start = start_of(handler)
        handler.reply(TABLE[start:], 206, Content_Range=content_range(start, len(TABLE)))

    server.answers["/sms.tsv"] = rest
    result = run("download")
    assert result.exit_code == 0, result.output
    assert server.asked[1][1] == "bytes=50000-"


def _has_arrived(folder: Path, size: int) -> bool:
    return any(path.stat().st_size == size for path in folder.rglob("*.part"))


@pytest.mark.parametrize("leftover", [b"wrong", b"x" * (len(CONTENT) + 1)])
def test_row_06_wrong_bytes_of_an_earlier_run_are_replaced(
    leftover: bytes, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "a.zip.part").write_bytes(leftover)
    server.answers["/a"] = ranged
    fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


WRONG = {
    "a web page": b"<html>please sign in</html>",
    "half the file under a wrong length": CONTENT[: len(CONTENT) // 2],
    "one wrong bit": CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]),
    "nothing": b"",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_row_06_wrong_bytes_name_both_checksums_and_leave_nothing(
    server: Server, tmp_path: Path, wrong: str
) -> None:
    server.answers["/a"] = lambda handler: handler.reply(WRONG[wrong])
    with pytest.raises(DownloadError) as error:
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    message = str(error.value)
    assert f"sha256 {SHA256}" in error.value.expected
    assert (
        f"sha256 {hashlib.sha256(WRONG[wrong]).hexdigest()}; it was removed" in error.value.actual
    )
    assert server.url("/a") in message
    assert "fetch it by hand" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", WRONG)
def test_row_06_wrong_bytes_lead_to_the_mirror(server: Server, tmp_path: Path, wrong: str) -> None:
    server.answers["/a"] = lambda handler: handler.reply(WRONG[wrong])
    server.answers["/b"] = whole
    assert fetch(remote(server, "/a", "/b"), tmp_path / "a.zip", patience=QUICK) == server.url("/b")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/a", "/b"]


def test_row_06_a_web_page_is_refused_even_without_checksum(server: Server, tmp_path: Path) -> None:
    server.answers["/a"] = page
    with pytest.raises(DownloadError, match="web page"):
        fetch(remote(server, "/a", sha256=None), tmp_path / "a.tsv", patience=QUICK)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A proxy for HTTP and HTTPS that the environment names, and whose certificates it trusts."""
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    hosts = ["archive.ics.uci.edu", "f001.backblazeb2.com", "data.example"]
    with serving() as proxy:
        proxy.tls, certificate = certify(tmp_path, *hosts)
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
        yield proxy


UCI_PATHS = [url.partition("://")[2].partition("/")[2] for url in UCI.urls]


def test_row_06_the_stage_refuses_other_bytes_from_the_archive_and_from_its_mirror(
    proxy: Server, project: Callable[[str], Path]
) -> None:
    for path in UCI_PATHS:
        proxy.answers[f"/{path}"] = page
    folder = project("uci")
    output = refused("download", folder)
    actual = hashlib.sha256(b"<html>maintenance</html>").hexdigest()
    assert f"expected: sha256 {UCI.sha256}" in output
    assert output.count(f"served another file: sha256 {actual}; it was removed") == 4
    assert all(url in output for url in UCI.urls)
    assert "set data.source: inputs/sms+spam+collection.zip" in output
    hosts = [path for path, _ in proxy.asked if path.endswith(":443")]
    assert hosts == ["archive.ics.uci.edu:443", "f001.backblazeb2.com:443"]


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_row_07_a_busy_server_is_asked_a_few_times_then_the_mirror(
    code: int, server: Server, tmp_path: Path
) -> None:
    server.answers["/a"] = status(code, Retry_After="3600")
    server.answers["/b"] = whole
    started = time.monotonic()
    assert fetch(remote(server, "/a", "/b"), tmp_path / "a.zip", patience=QUICK) == server.url("/b")
    assert time.monotonic() - started < BOUND
    assert [path for path, _ in server.asked] == ["/a"] * QUICK.attempts + ["/b"]


def test_row_07_a_server_that_recovers_is_used(server: Server, tmp_path: Path) -> None:
    def recovering(handler: Handler) -> None:
        answer = whole if len(server.asked) > 1 else status(429, Retry_After="1")
        answer(handler)

    server.answers["/a"] = recovering
    patience = Patience(attempts=4, first_wait=0, longest_wait=1)
    assert fetch(remote(server, "/a"), tmp_path / "a.zip", patience=patience) == server.url("/a")
    assert len(server.asked) == 2


def test_row_07_a_redirect_loop_ends(server: Server, tmp_path: Path) -> None:
    server.answers["/a"] = lambda handler: handler.reply(b"", 302, Location="/a")
    server.answers["/b"] = whole
    with pytest.raises(DownloadError, match="redirects more than 5 times"):
        fetch(remote(server, "/a"), tmp_path / "a.zip", patience=QUICK)
    assert len(server.asked) == QUICK.redirects + 1
    assert fetch(remote(server, "/a", "/b"), tmp_path / "a.zip", patience=QUICK) == server.url("/b")


def test_row_07_a_refused_connection_names_every_address(tmp_path: Path) -> None:
    urls = ["http://user:secret@127.0.0.1:9/a", "http://127.0.0.1:9/b"]
    with pytest.raises(DownloadError) as error:
        fetch(Remote(urls, SHA256), tmp_path / "a.zip", patience=QUICK)
    message = str(error.value)
    assert "http://127.0.0.1:9/a" in message
    assert "http://127.0.0.1:9/b" in message
    assert "secret" not in message
    assert list(tmp_path.iterdir()) == []


DOWN: dict[str, Answer] = {
    "HTTP status 429": status(429, Retry_After="0"),
    "redirects more than": lambda handler: handler.reply(b"", 302, Location=handler.path),
}


@pytest.mark.parametrize("reason", DOWN)
def test_row_07_the_stage_says_where_to_put_the_file_by_hand(
    server: Server, project: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    server.answers["/sms.tsv"] = DOWN[reason]
    folder = project(server.url("/sms.tsv"))
    started = time.monotonic()
    output = refused("download", folder)
    assert time.monotonic() - started < BOUND
    assert f"{server.url('/sms.tsv')}\n" in output
    assert reason in output
    assert "save it as inputs/sms.tsv and set data.source: inputs/sms.tsv" in output

    # What the message says to do works.
    (folder / "inputs").mkdir()
    (folder / "inputs" / "sms.tsv").write_bytes(TABLE)
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace(server.url("/sms.tsv"), "inputs/sms.tsv"))
    assert run("download").exit_code == 0


def test_row_07_behind_a_firewall_the_proxy_of_the_environment_is_asked(
    proxy: Server, project: Callable[[str], Path]
) -> None:
    proxy.answers["/sms.tsv"] = lambda handler: handler.reply(TABLE)
    proxy.answers["http://data.example/sms.tsv"] = proxy.answers["/sms.tsv"]
    folder = project("https://data.example/sms.tsv")
    assert run("download").exit_code == 0
    assert proxy.asked == [("data.example:443", None), ("/sms.tsv", None)]
    messages = (folder / "data" / "raw" / "messages.tsv").read_bytes()

    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("https://data", "http://data"))
    assert run("download").exit_code == 0
    assert proxy.asked[2:] == [("http://data.example/sms.tsv", None)]
    assert (folder / "data" / "raw" / "messages.tsv").read_bytes() == messages


@pytest.fixture
def base_model(
    server: Server,
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
    monkeypatch.setattr(constants, "ENDPOINT", server.url(""))
    template = server.url("/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    huggingface_hub.close_session()
    yield folder
    huggingface_hub.close_session()


ADDRESS = (
    "/openai-community/gpt2/resolve/607a30d783dfa663caf39e06633721c8d4cfcd7e/model.safetensors"
)


@pytest.mark.real_data
def test_row_06_base_model_refuses_a_checkpoint_with_other_bytes(
    server: Server, base_model: Path
) -> None:
    revision = ADDRESS.split("/")[4]
    server.answers[ADDRESS] = lambda handler: handler.reply(
        CONTENT, X_Repo_Commit=revision, ETag=f'"{SHA256}"'
    )
    output = refused("base_model", base_model)
    assert "The file of the checkpoint gpt2-small is not the published one." in output
    assert "sha256 248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707" in output
    assert f"sha256 {SHA256} (512,000 bytes)" in output


@pytest.mark.real_data
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(page, id="a web page"),
        pytest.param(status(500), marks=pytest.mark.slow, id="500"),
    ],
)
def test_row_07_base_model_says_where_to_put_the_checkpoint_by_hand(
    server: Server, base_model: Path, answer: Answer
) -> None:
    server.answers[ADDRESS] = answer
    started = time.monotonic()
    output = refused("base_model", base_model)
    assert time.monotonic() - started < 3 * BOUND
    assert "The checkpoint gpt2-small could not be fetched." in output
    assert server.url(ADDRESS) in output
    assert "hf download openai-community/gpt2 model.safetensors" in output
