"""A model from a hub on loopback that answers as the real one does."""

import hashlib
import io
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pytest_httpserver import HTTPServer
from rich.console import Console
from safetensors.torch import save

from hub import COMMIT, MODEL, ModelHub, etag_of, go_offline, speaking_of_model
from lora_compare.errors import CheckpointError, DownloadError
from lora_compare.models.hub import fetching
from lora_compare.models.hub.fetching import fetch
from lora_compare.models.hub.folder import check_folder, digests
from lora_compare.project.progress import Progress
from tiny_models import make_model

OTHERS = {
    "README.md": b"# a model",
    "modeling_tiny.py": b"raise SystemExit('executed')",
    "pytorch_model.bin": b"\x80a pickle",
    "onnx/model.onnx": b"a graph",
    "consolidated.safetensors": b"the same weights again",
    "generation_config.json": b"{}",
}
"""What a model on the hub has besides, of which nothing is fetched."""

SMALL = ["config.json", "tokenizer_config.json", "tokenizer.json"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a tiny BERT."""
    folder = tmp_path_factory.mktemp("model") / "bert"
    make_model(folder, "bert")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    """A server for all hubs: each of its own takes half a second to stop."""
    with HTTPServer(host="127.0.0.1", threaded=True) as running:
        yield running


@pytest.fixture
def hub(
    server: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: dict[str, bytes]
) -> Iterator[ModelHub]:
    """The hub to which the library speaks, with an empty cache in `tmp_path`."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between two attempts
    with speaking_of_model(server, monkeypatch, tmp_path / "hub", {**model, **OTHERS}) as model_hub:
        yield model_hub


def refusal(revision: str = COMMIT, name: str = MODEL) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        fetch(name, revision)
    return caught.value


def test_only_what_a_classifier_needs_is_fetched_and_later_uses_need_no_network(
    hub: ModelHub, model: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = fetch(MODEL, COMMIT)
    assert hub.fetched() == [*SMALL, "model.safetensors"]
    assert fetched.commit == COMMIT
    assert fetched.files == digests(fetched.folder, fetched.files)
    assert {name: (fetched.folder / name).read_bytes() for name in fetched.files} == model
    assert set(check_folder(fetched.folder).names) == fetched.files.keys()
    asked = len(hub.requests)
    assert fetch(MODEL, COMMIT) == fetched
    go_offline(monkeypatch)
    assert fetch(MODEL, COMMIT) == fetched
    assert len(hub.requests) == asked


def test_the_config_alone_is_fetched_for_random_weights(hub: ModelHub) -> None:
    fetched = fetch(MODEL, COMMIT, with_weights=False)
    assert hub.fetched() == SMALL
    assert sorted(fetched.files) == sorted(SMALL)
    assert fetch(MODEL, COMMIT).files.keys() == {*SMALL, "model.safetensors"}


def test_a_branch_is_looked_up_each_time_and_pinning_it_is_advised(hub: ModelHub) -> None:
    said = io.StringIO()
    progress = Progress(console=Console(file=said, width=200))
    assert fetch(MODEL, "main", progress).commit == COMMIT
    assert f"set model.revision: {COMMIT}" in said.getvalue()
    # The branch has moved, which the cache does not know.
    hub.commits["main"] = moved = COMMIT[::-1]
    assert f"revision/{moved}" in refusal("main").actual


def test_a_branch_offline_is_pinned_by_hand(
    hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(MODEL, COMMIT)
    refs = tmp_path / "hub" / "models--someone--tiny-model" / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    go_offline(monkeypatch)
    assert f"set model.revision: {COMMIT}" in refusal("main").next


def test_offline_without_the_model_the_message_says_what_to_do(
    hub: ModelHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_offline(monkeypatch)
    error = refusal()
    assert f"hf download {MODEL} --revision {COMMIT}" in error.next
    assert "HF_HUB_OFFLINE" in error.next
    assert hub.requests == []


@pytest.mark.parametrize(
    ("answer", "code", "advice"),
    [
        (403, "GatedRepo", "accept the model's conditions at"),
        (401, "RepoNotFound", "correct the model's name; if it is private, log in"),
        (401, "", "hf auth whoami"),
        (403, "", "hf auth whoami"),
        (404, "RepoNotFound", "correct the model's name"),
        (404, "RevisionNotFound", "take a commit of"),
        (429, "", "wait some minutes"),
        (500, "", "connect to the network"),
        (503, "", "connect to the network"),
    ],
)
def test_a_refusing_hub_is_reported_with_what_to_do(
    hub: ModelHub, answer: int, code: str, advice: str
) -> None:
    hub.status, hub.code = answer, code
    error = refusal()
    assert advice in error.next
    assert error.where == f"{hub.url}/{MODEL}/tree/{COMMIT}"
    assert len(hub.requests) < 10


def test_a_hub_that_fails_half_way_is_asked_for_the_rest_alone(hub: ModelHub) -> None:
    fetch(MODEL, COMMIT, with_weights=False)
    hub.status, hub.code = 403, "GatedRepo"
    assert "accept the model's conditions" in refusal().next
    hub.status = None
    hub.requests.clear()
    fetch(MODEL, COMMIT)
    assert hub.fetched() == ["model.safetensors"]


def test_another_name_is_not_found(hub: ModelHub) -> None:
    assert "correct the model's name" in refusal(name="someone/else").next


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_file_is_fetched_again(hub: ModelHub, name: str) -> None:
    folder = fetch(MODEL, COMMIT).folder
    content = (folder / name).read_bytes()
    (folder / name).resolve().write_bytes(content[:-1] + b"!")
    said = io.StringIO()
    fetch(MODEL, COMMIT, Progress(console=Console(file=said, width=400)))
    assert (folder / name).read_bytes() == content
    assert hub.fetched().count(name) == 2
    assert ("damaged" in said.getvalue()) is (name == "model.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_damaged_file_offline_is_refused(
    hub: ModelHub, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch(MODEL, COMMIT).folder
    (folder / name).resolve().write_bytes(b"other bytes")
    go_offline(monkeypatch)
    error = refusal()
    assert "not the published one" in error.what
    assert error.where == str(folder / name)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_other_bytes_than_the_hub_s_checksum_are_refused(hub: ModelHub, name: str) -> None:
    sent = hub.files[name]
    hub.files[name] = sent[:-1] + b"!"
    error = refusal()
    assert etag_of(name, sent) in error.expected
    assert etag_of(name, hub.files[name]) in error.actual


def test_a_copied_cache_without_links_is_compared_with_the_hub(
    hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch(MODEL, COMMIT).folder
    copied = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(folder.parent.parent)
    shutil.copytree(copied, folder)
    hub.requests.clear()
    assert fetch(MODEL, COMMIT).folder == folder
    assert hub.fetched() == []
    go_offline(monkeypatch)
    assert "cannot be verified" in refusal().what


def test_shards_are_fetched_with_their_index_and_a_missing_one_again(
    hub: ModelHub,
) -> None:
    index = "model.safetensors.index.json"
    shards = {f"model-0000{i}-of-00002.safetensors": save({f"w{i}": torch.ones(i)}) for i in (1, 2)}
    named = {"weight_map": dict(zip(("w1", "w2"), shards, strict=True))}
    del hub.files["model.safetensors"]
    hub.add({index: json.dumps(named).encode(), **shards})
    fetched = fetch(MODEL, COMMIT)
    assert hub.fetched() == [SMALL[0], index, *SMALL[1:], *shards]
    assert check_folder(fetched.folder).weights == tuple(shards)
    missing = fetched.folder / max(shards)
    missing.resolve().unlink()
    missing.unlink()
    hub.requests.clear()
    assert fetch(MODEL, COMMIT) == fetched
    assert hub.fetched() == [missing.name]


def test_a_model_with_a_pickle_alone_says_how_to_convert_it(hub: ModelHub) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(CheckpointError, match="in a pickle alone") as caught:
        fetch(MODEL, COMMIT)
    assert "set model.name: inputs/models/tiny-model" in caught.value.next
    assert MODEL in caught.value.next
    assert hub.fetched() == []


def test_a_model_with_code_is_refused_before_its_weights_are_fetched(hub: ModelHub) -> None:
    config = json.loads(hub.files["config.json"])
    config["auto_map"] = {"AutoModel": "modeling_tiny.TinyModel"}
    hub.add({"config.json": json.dumps(config).encode()})
    with pytest.raises(CheckpointError, match="code of its own"):
        fetch(MODEL, COMMIT)
    assert hub.fetched() == SMALL


def test_weights_alone_are_reported(hub: ModelHub) -> None:
    said = io.StringIO()
    content = bytes(3_400_000)
    hub.add({"model.safetensors": content})
    fetched = fetch(MODEL, COMMIT, Progress(console=Console(file=said, width=200)))
    assert fetched.files["model.safetensors"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert f"Downloading model.safetensors of {MODEL} (MB): 3/3" in said.getvalue()
    assert "config" not in said.getvalue()


def test_a_hub_that_takes_its_time_is_left_with_what_to_do(
    hub: ModelHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.delay = 1.0
    monkeypatch.setattr(fetching, "SECONDS", 0.2)
    assert "or wait longer: HF_HUB_DOWNLOAD_TIMEOUT" in refusal().next


def test_a_hub_that_does_not_answer_ends_with_what_to_do(
    hub: ModelHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "connect to the network" in refusal().next
