"""Files of weights, adapters and tokenizers that are not what they should be."""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiktoken.load
import tiktoken.registry
import torch
from pytest_httpserver import HTTPServer
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from faults.commands import files_of, refusal, run, succeed, write_project
from hub import REPOSITORY, REVISION, Hub, go_offline, speaking_to_hub
from lora_compare.compute.seeding import seeded
from lora_compare.models.gpt import base as base_module
from lora_compare.models.gpt import tokenizer
from lora_compare.models.gpt.checkpoints import CHECKPOINTS, Checkpoint
from lora_compare.models.gpt.network import CONFIGS, GPT, GPTConfig, initialise
from lora_compare.models.gpt.weights import gpt2_state_dict
from web import serve, whole

ROWS = "".join(f"{label}\t{label} message {i}\n" for label in ("ham", "spam") for i in range(30))
ENCODING = tokenizer.train_encoding([ROWS], 270)
CONFIG = GPTConfig(ENCODING.n_vocab, 64, 2, 2, 16)
NAME = "gpt2-small"

Spoil = Callable[[dict[str, Tensor]], object]


def stored(config: GPTConfig = CONFIG) -> dict[str, Tensor]:
    with seeded(3):
        return gpt2_state_dict(initialise(GPT(config)).state_dict())


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project for gpt2-small after its messages were split."""
    folder = tmp_path_factory.mktemp("splits")
    write_project(folder, "m.tsv", ROWS.encode(), name=NAME)
    for stage in ("download", "split"):
        succeed(folder, stage)
    return folder


@pytest.fixture
def project(splits: Path, tmp_path: Path) -> Path:
    return shutil.copytree(splits, tmp_path / "project")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub whose gpt2-small has a few thousand weights."""
    content = save(stored())
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(CHECKPOINTS, NAME, Checkpoint(REPOSITORY, REVISION, None, sha256))
    monkeypatch.setitem(CONFIGS, NAME, CONFIG)
    monkeypatch.setattr(base_module, "gpt2_encoding", lambda: ENCODING)
    with speaking_to_hub(monkeypatch, tmp_path / "hub", content) as server:
        yield server


def publish(hub: Hub, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub publish other bytes as a checkpoint whose checksum is not recorded here."""
    hub.content, hub.etag = content, hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(CHECKPOINTS, NAME, Checkpoint(REPOSITORY, REVISION, None, None))


def cached(folder: Path) -> Path:
    (path,) = (folder / "hub").rglob("blobs/*")
    return path


@pytest.mark.parametrize("poison", [b"poison", b"<html>", b"", None])
@pytest.mark.parametrize("recorded", [True, False])
def test_row_11_a_poisoned_checkpoint_is_noticed_and_fetched_again(
    project: Path,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    poison: bytes | None,
    recorded: bool,
) -> None:
    if not recorded:
        publish(hub, hub.content, monkeypatch)
    succeed(project, "base_model")
    outputs = files_of(project)
    path = cached(tmp_path)
    # The same length and one other byte; the file is as valid as before.
    path.write_bytes(hub.content[:-1] + b"\x01" if poison is None else poison)
    said = succeed(project, "base_model")
    assert "is damaged and is fetched again" in said
    assert path.read_bytes() == hub.content
    assert files_of(project) == outputs


@pytest.mark.parametrize("recorded", [True, False])
def test_row_11_a_poisoned_checkpoint_is_refused_offline_with_the_remedy(
    project: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    if not recorded:
        publish(hub, hub.content, monkeypatch)
    succeed(project, "base_model")
    path = cached(tmp_path)
    wrong = hub.content[:-1] + b"\x01"
    path.write_bytes(wrong)
    go_offline(monkeypatch)
    message = refusal(project, "base_model")
    assert "not the published one" in message
    assert str(tmp_path / "hub") in message
    assert hashlib.sha256(hub.content).hexdigest() in message
    assert hashlib.sha256(wrong).hexdigest() in message
    assert "cannot be fetched again" in message
    assert path.read_bytes() == wrong


@pytest.fixture
def poisoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tiktoken's cache with other bytes in the place of both files; nothing is in memory."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for url in tokenizer.GPT2_FILES:
        (cache / tokenizer.cached_name(url)).write_bytes(b"#version: 0.2\na b\n")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    monkeypatch.delitem(tiktoken.registry.ENCODINGS, "gpt2", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return cache


def test_row_11_a_poisoned_tokenizer_is_refused_offline_with_the_remedy(
    project: Path, poisoned: Path
) -> None:
    message = refusal(project, "base_model")
    assert "GPT-2's tokenizer are not cached and could not be fetched" in message
    for url, digest in tokenizer.GPT2_FILES.items():
        assert str(poisoned / tokenizer.cached_name(url)) in message
        assert url in message
        assert digest in message
    assert "TIKTOKEN_CACHE_DIR" in message


@pytest.mark.real_data
def test_row_11_a_poisoned_tokenizer_is_fetched_again(
    poisoned: Path, assets: Path, server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in tokenizer.GPT2_FILES:
        content = (assets / "tiktoken_cache" / tokenizer.cached_name(url)).read_bytes()
        serve(server, "/" + url.split("/")[-1], whole(content))
    read = tiktoken.load.read_file
    # The library's own transport, to another host.
    monkeypatch.setattr(
        tiktoken.load, "read_file", lambda url: read(server.url_for(url.split("/")[-1]))
    )
    assert tokenizer.gpt2_encoding().n_vocab == 50_257
    for url, digest in tokenizer.GPT2_FILES.items():
        content = (poisoned / tokenizer.cached_name(url)).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest


class Bomb:
    """Unpickling this would leave a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("packing", ["pickle", "torch"])
def test_row_24_a_pickle_in_place_of_a_checkpoint_is_never_opened(
    project: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str
) -> None:
    bomb, buffer = Bomb(tmp_path / "exploded"), io.BytesIO()
    if packing == "pickle":
        pickle.dump(bomb, buffer)
    else:
        torch.save({"wte.weight": bomb}, buffer)
    publish(hub, buffer.getvalue(), monkeypatch)
    message = refusal(project, "base_model")
    assert "a pickle, which is never opened here" in message
    assert not (tmp_path / "exploded").exists()


def without(*names: str) -> Spoil:
    return lambda t: [t.pop(name) for name in names]


def with_nan(tensors: dict[str, Tensor]) -> None:
    tensors["h.0.attn.c_attn.weight"][0, :2] = torch.tensor([float("nan"), float("inf")])


def with_everything(tensors: dict[str, Tensor]) -> None:
    del tensors["h.1.mlp.c_fc.bias"]
    tensors["h.2.ln_1.weight"] = torch.ones(16)
    tensors["h.0.mlp.c_fc.weight"] = torch.ones(64, 16)
    tensors["wpe.weight"] = tensors["wpe.weight"].double()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (without("h.1.mlp.c_fc.bias"), ["1 difference.", "h.1.mlp.c_fc.bias: missing"]),
        (
            lambda t: t.update({"h.2.ln_1.weight": torch.ones(16)}),
            ["1 difference.", "h.2.ln_1.weight: not part of the model"],
        ),
        (
            lambda t: t.update({"h.0.mlp.c_fc.weight": torch.ones(64, 16)}),
            ["1 difference.", "h.0.mlp.c_fc.weight: shape (64, 16), the model's is (16, 64)"],
        ),
        (
            lambda t: t.update({"wpe.weight": t["wpe.weight"].double()}),
            ["1 difference.", "wpe.weight: type F64, allowed are F32, F16 and BF16"],
        ),
        (
            lambda t: t.update({"ln_f.bias": torch.ones(16, dtype=torch.int64)}),
            ["1 difference.", "ln_f.bias: type I64"],
        ),
        (with_nan, ["1 difference.", "h.0.attn.c_attn.weight: 2 of 768 numbers NaN or infinite"]),
        (
            lambda t: t.update({"transformer.wte.weight": t["wte.weight"].clone()}),
            ["1 difference.", "wte.weight: stored twice"],
        ),
        (
            lambda t: t.update({"lm_head.weight": t["wte.weight"] + 1}),
            ["lm_head.weight: differs from wte.weight"],
        ),
        (
            with_everything,
            ["4 differences", "c_fc.bias: missing", "ln_1.weight: not part", "F64", "(64, 16)"],
        ),
        (without(*stored()), ["28 differences", "... and 18 more"]),
    ],
)
def test_row_25_a_checkpoint_that_does_not_fit_is_refused_key_by_key(
    project: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, expected: list[str]
) -> None:
    tensors = stored()
    spoil(tensors)
    publish(hub, save(tensors), monkeypatch)
    message = refusal(project, "base_model")
    assert not [part for part in expected if part not in message], message
    assert "model.safetensors" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        (b"", "an empty file"),
        (save(stored())[:-1], "not a whole safetensors file"),
        (save(stored()) + b"x", "not a whole safetensors file"),
        ((1 << 60).to_bytes(8, "little") + b"{}", "header"),
        ((4).to_bytes(8, "little") + b"{a}}", "JSON"),
    ],
)
def test_row_25_a_file_that_is_no_checkpoint_is_told_what_it_is(
    project: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str
) -> None:
    publish(hub, content, monkeypatch)
    assert expected in refusal(project, "base_model")


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after LoRA on gpt2-nano, exported for PEFT into exports/lora-peft."""
    folder = tmp_path_factory.mktemp("finetuned")
    # PEFT's model has a head without a bias.
    write_project(folder, "m.tsv", ROWS.encode(), weights="random")
    params = (folder / "params.yaml").read_text().replace("bias: true", "bias: false")
    (folder / "params.yaml").write_text(params)
    for stage in ("download", "split", "base_model"):
        succeed(folder, stage)
    succeed(folder, "finetune", "lora")
    succeed(folder, "export", "--format", "peft")
    return folder


@pytest.fixture
def trained(finetuned: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finetuned, tmp_path / "trained")


def changed(trained: Path, change: Callable[[Any, Any], object]) -> None:
    """Apply `change(config, tensors)` to the adapter in exports/lora-peft."""
    folder = trained / "exports/lora-peft"
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    change(config, tensors)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")


IMPORT = ("import", "exports/lora-peft", "--name", "theirs")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda c, t: c.update(r=7, base_model_name_or_path=None),
            "shape (4, 128), rank and model ask for (7, 128)",
        ),
        (
            lambda c, t: c.update(rank_pattern={"h.0.attn.c_attn": 5}),
            "h.0.attn.c_attn.lora_A.weight: shape (12, 128), rank and model ask for (5, 128)",
        ),
        (
            lambda c, t: c.update(base_model_name_or_path="openai-community/gpt2-medium"),
            "openai-community/gpt2-medium, the base model here is random gpt2-nano",
        ),
        (
            lambda c, t: c.update(base_model_name_or_path="/somewhere/else"),
            "/somewhere/else, which is not here to be compared with random gpt2-nano",
        ),
        (
            lambda c, t: c.update(base_model_name_or_path="x" * 5000),
            "which is not here to be compared with random gpt2-nano",
        ),
        (
            lambda c, t: c.update(base_model_name_or_path="a\0b"),
            "which is not here to be compared with random gpt2-nano",
        ),
        (
            lambda c, t: t.update({"base_model.model.score.weight": torch.tensor(1.0)}),
            "score.weight: shape (), the model's is (2, 128)",
        ),
    ],
)
def test_row_28_an_adapter_that_contradicts_its_config_or_base_is_not_imported(
    trained: Path, change: Callable[[Any, Any], object], expected: str
) -> None:
    changed(trained, change)
    shutil.rmtree(trained / "exports/lora-peft/base")
    assert expected in refusal(trained, *IMPORT)


def test_row_28_an_adapter_whose_base_has_other_weights_is_not_imported(trained: Path) -> None:
    """The base that the adapter names lies beside it, as exports put it there."""
    path = trained / "exports/lora-peft/base/model.safetensors"
    tensors = load_file(path)
    tensors["transformer.h.0.ln_1.bias"] += 1
    save_file(tensors, path, {"format": "pt"})
    message = refusal(trained, *IMPORT)
    assert "exports/lora-peft/base, whose weights are not those of models/base" in message
    assert "random gpt2-nano" in message


def test_row_28_an_adapter_of_an_earlier_base_is_not_evaluated(trained: Path) -> None:
    succeed(trained, *IMPORT)
    succeed(trained, "finetune", "theirs")
    old = json.loads((trained / "models/base/config.json").read_text())["sha256"]
    params = (trained / "params.yaml").read_text()
    seeded_anew = re.sub(r"(name: gpt2-nano(.|\n)*?\n  seed:) \d+", r"\1 5", params, count=1)
    (trained / "params.yaml").write_text(seeded_anew)
    succeed(trained, "base_model")
    new = json.loads((trained / "models/base/config.json").read_text())["sha256"]
    assert new != old
    for command in (("evaluate", "lora"), ("classify", "win", "--method", "lora")):
        message = refusal(trained, *command)
        assert "trained from another base model" in message
        assert f"gpt2-nano with sha256 {old}" in message
        assert f"gpt2-nano with sha256 {new}" in message
    message = refusal(trained, "finetune", "theirs")
    assert old in message
    assert new in message
    assert "lora-compare import" in message


def test_row_28_an_imported_adapter_that_has_changed_is_refused(trained: Path) -> None:
    succeed(trained, *IMPORT)
    file = trained / "inputs/adapters/theirs/config.json"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_text(file.read_text().replace('"r": ', '"r": 1'))
    message = refusal(trained, "finetune", "theirs")
    assert before in message
    assert hashlib.sha256(file.read_bytes()).hexdigest() in message
    shutil.rmtree(file.parent)
    assert "lora-compare import" in refusal(trained, "finetune", "theirs")
    assert run(trained, "finetune", "lora").exit_code == 0
