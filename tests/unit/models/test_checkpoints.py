"""Fetching checkpoints from a hub on loopback that answers as the real one does."""

import hashlib
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from rich.console import Console

from hub import ADDRESS, LOOPBACK, REPOSITORY, REVISION, Hub, go_offline, serving, speaking_to_hub
from lora_compare.errors import DownloadError
from lora_compare.models import hub_cache
from lora_compare.models.gpt.checkpoints import CHECKPOINTS, Checkpoint, fetch_checkpoint
from lora_compare.models.gpt.network import CONFIGS
from lora_compare.project.progress import Progress

NAME = "gpt2-small"
CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WRONG = CONTENT[:-1] + b"!"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub to which the library speaks, with an empty cache in `tmp_path`."""
    monkeypatch.setitem(CHECKPOINTS, NAME, Checkpoint(REPOSITORY, REVISION, len(CONTENT), SHA256))
    with speaking_to_hub(monkeypatch, tmp_path / "hub", CONTENT) as server:
        yield server


@pytest.fixture
def unrecorded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The same hub for a checkpoint whose checksum this project does not know."""
    monkeypatch.setitem(CHECKPOINTS, NAME, Checkpoint(REPOSITORY, REVISION, None, None))
    return hub


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
    bar = hub_cache._bar_class("Downloading", Progress(console=Console(file=said)))
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
        "from lora_compare.models.gpt import checkpoints as c;"
        f"c.CHECKPOINTS[{NAME!r}] = c.Checkpoint({REPOSITORY!r}, {REVISION!r}, None, {SHA256!r});"
        f"print(c.fetch_checkpoint({NAME!r}).path)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    environment = {**os.environ, "HF_HOME": str(tmp_path), "NO_PROXY": LOOPBACK}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"):
        environment.pop(name, None)
    with serving(CONTENT) as hub:
        environment["HF_ENDPOINT"] = hub.url
        output = subprocess.check_output(command, env=environment, text=True)
    path = Path(output.strip())
    assert path.is_relative_to(tmp_path)
    assert path.read_bytes() == CONTENT
    environment["HF_HUB_OFFLINE"] = "1"
    assert subprocess.check_output(command, env=environment, text=True) == output
