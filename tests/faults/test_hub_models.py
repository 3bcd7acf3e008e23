"""Folders of models from anyone: refused with a reason, and nothing in them is ever executed."""

import json
import os
import pickle
import re
import resource
import shlex
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from pytest_httpserver import HTTPServer
from safetensors.torch import load_file, save_file

from faults import commands
from hub import COMMIT, MODEL, ModelHub, go_offline, speaking_of_model
from lora_compare.errors import CheckpointError, ParamsError, UserError
from lora_compare.models import hub_cache
from lora_compare.models.base import make_base
from lora_compare.models.hub.folder import check_folder, find_folder
from lora_compare.models.hub.loading import load_network, load_tokenizer
from lora_compare.params import ModelParams
from small_project import make_project
from tiny_models import make_model

Edit = Callable[[Path], object]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that is as it should be."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    make_model(folder, "bert")
    return folder


@pytest.fixture
def model(pristine: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return shutil.copytree(pristine, tmp_path / "model")


def load(folder: Path) -> Any:
    """Return a network and a tokenizer as the stage base_model makes them."""
    check_folder(folder)
    network = load_network(folder, 2)
    load_tokenizer(folder, network.get_input_embeddings().num_embeddings)
    return network


def refusal(folder: Path) -> str:
    with pytest.raises((CheckpointError, ParamsError)) as caught:
        load(folder)
    error = caught.value
    assert all((error.what, error.where, error.actual, error.next))
    return str(error)


def configure(folder: Path, file: str = "config.json", **settings: object) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


# Code


def leave_code(folder: Path, mark: Path) -> None:
    """Put Python files beside the model that write `mark` when anything imports them."""
    code = (
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import BertConfig\nclass Evil(BertConfig): pass\n"
    )
    for name in ("evil.py", "__init__.py", "modeling_bert.py", "setup.py", "conftest.py"):
        (folder / name).write_text(code)


REFERENCES: dict[str, tuple[str, dict[str, object]]] = {
    "the config": ("config.json", {"auto_map": {"AutoConfig": "evil.Evil"}}),
    "the model": (
        "config.json",
        {"auto_map": {"AutoModelForSequenceClassification": "evil.Evil"}, "model_type": "evil"},
    ),
    "another repository": ("config.json", {"auto_map": {"AutoModel": "evil/code--evil.Evil"}}),
    "a part of the config": ("config.json", {"sub_config": {"auto_map": {"A": "evil.Evil"}}}),
    "a list in it": ("config.json", {"parts": [1, {"auto_map": {"A": "evil.Evil"}}]}),
    "the tokenizer": (
        "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}},
    ),
    "a kernel": ("config.json", {"attn_implementation": "evil/kernel"}),
    "a kernel inside": ("config.json", {"_attn_implementation_internal": "evil/kernel@main:f"}),
    "experts": ("config.json", {"experts_implementation": {"": "evil/experts"}}),
}


@pytest.mark.parametrize("reference", REFERENCES)
def test_row_37_code_of_a_model_is_refused_and_not_executed(
    model: Path, tmp_path: Path, reference: str
) -> None:
    file, settings = REFERENCES[reference]
    leave_code(model, tmp_path / "executed")
    configure(model, file, **settings)
    assert "code of its own, which is never executed" in refusal(model)
    assert not (tmp_path / "executed").exists()


def test_row_37_code_that_nothing_refers_to_is_not_executed(model: Path, tmp_path: Path) -> None:
    leave_code(model, tmp_path / "executed")
    load(model)
    assert not (tmp_path / "executed").exists()


def test_row_37_the_code_would_leave_its_mark(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above rely on: transformers does execute it where it may."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "m"))
    leave_code(model, tmp_path / "executed")
    configure(model, auto_map={"AutoConfig": "evil.Evil"})
    transformers.AutoConfig.from_pretrained(model, trust_remote_code=True)
    assert (tmp_path / "executed").exists()


def test_row_37_a_chat_template_is_harmless(model: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    template = "{{ cycler.__init__.__globals__.os.system('touch " + str(mark) + "') }}"
    configure(model, "tokenizer_config.json", chat_template=template)
    (model / "chat_template.jinja").write_text(template)
    load(model)
    assert not mark.exists()


# Pickles


class Mark:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.ckpt", "weights.pkl", "model.safetensors"]
)
@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(value)])
def test_row_37_a_pickle_is_never_opened(
    model: Path, tmp_path: Path, name: str, write: Callable[..., object]
) -> None:
    mark = tmp_path / "executed"
    (model / "model.safetensors").unlink()
    write(Mark(mark) if write is torch.save else pickle.dumps(Mark(mark)), model / name)
    assert "pickle" in refusal(model)
    assert not mark.exists()


def test_row_37_the_command_that_a_pickle_s_refusal_prints_converts_it(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    torch.save(weights, model / "pytorch_model.bin")
    with pytest.raises(CheckpointError) as caught:
        load(model)
    command = next(line for line in caught.value.next.splitlines() if "python -c" in line)
    program, flag, code = shlex.split(command)
    assert (program, flag) == ("python", "-c")
    exec(code)
    base = load(model).bert.state_dict()
    assert all(torch.equal(base[name], tensor) for name, tensor in weights.items())


# Links


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "notes"])
def test_row_37_a_link_out_of_the_folder_is_refused(model: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    if (model / name).exists():
        (model / name).rename(outside)
    (model / name).symlink_to(outside)
    message = refusal(model)
    assert f"a link to {outside}" in message
    assert str(model / name) in message


def test_row_37_a_link_to_a_folder_elsewhere_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "more").symlink_to(tmp_path)
    assert "leads out" in refusal(model)
    (model / "more").unlink()
    (model / "part").mkdir()
    (model / "part" / "up").symlink_to("../..")
    assert "leads out" in refusal(model)


def test_row_37_links_within_the_folder_are_followed(model: Path) -> None:
    (model / "model.safetensors").rename(model / "weights")
    (model / "model.safetensors").symlink_to("weights")
    load(model)


def test_row_37_a_folder_behind_a_link_is_refused_as_dvc_does_not_see_it(
    model: Path, tmp_path: Path
) -> None:
    models = tmp_path / "inputs" / "models"
    models.mkdir(parents=True)
    shutil.copytree(model, models / "bert")
    assert find_folder("inputs/models/bert", tmp_path) == models / "bert"
    (models / "link").symlink_to(model)
    for name in ("inputs/models/link", "inputs/models/none"):
        with pytest.raises(ParamsError) as caught:
            find_folder(name, tmp_path)
        assert name in str(caught.value)
        assert ("would not see" in str(caught.value)) is name.endswith("link")


# Weights

TENSOR = "encoder.layer.1.attention.self.query.weight"

TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing": (lambda t: t.pop(TENSOR), f"bert.{TENSOR}: missing"),
    "another shape": (
        lambda t: t.update({TENSOR: torch.ones(32, 16)}),
        f"bert.{TENSOR}: shape (32, 16), the config's is (32, 32)",
    ),
    "a layer more": (
        lambda t: t.update({TENSOR.replace("1", "2"): torch.ones(32, 32)}),
        f"{TENSOR.replace('1', '2')}: not part of the model",
    ),
    "another part": (
        lambda t: t.update({TENSOR.replace("query", "norm"): torch.ones(32)}),
        "norm.weight: not part of the model",
    ),
    "NaN": (lambda t: t[TENSOR][3, 3:5].fill_(torch.nan), f"{TENSOR}: 2 of 1,024 numbers NaN"),
    "infinite": (lambda t: t[TENSOR][0, 0].fill_(-torch.inf), f"{TENSOR}: 1 of 1,024 numbers NaN"),
    "quantised": (
        lambda t: t.update({TENSOR: t[TENSOR].to(torch.float8_e4m3fn)}),
        f"{TENSOR}: type F8_E4M3, allowed",
    ),
    "nothing": (lambda t: t.clear(), "0 in the files"),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_row_37_weights_that_are_not_the_model_s_are_named(model: Path, kind: str) -> None:
    edit, reason = TENSORS[kind]
    change(model, edit)
    assert reason in refusal(model)


def test_row_37_a_file_cut_off_anywhere_is_refused(model: Path, record_property: Any) -> None:
    path = model / "model.safetensors"
    content = path.read_bytes()
    lengths = [*range(12), 100, *range(1000, len(content), len(content) // 20), len(content) - 1]
    for length in lengths:
        path.write_bytes(content[:length])
        assert "not a whole safetensors file" in refusal(model)
    record_property("trials", len(lengths))


@pytest.mark.parametrize("start", [b"<!doctype html>", b"version https://git-lfs", b"\xff" * 16])
def test_row_37_a_file_that_is_no_safetensors_says_what_it_is(model: Path, start: bytes) -> None:
    (model / "model.safetensors").write_bytes(start + b" and more")
    assert "not a whole safetensors file" in refusal(model)


def shard(folder: Path, **weight_map: object) -> None:
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    index = {"metadata": {}, "weight_map": {"a": "part.safetensors", **weight_map}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


INDICES: dict[str, tuple[Edit, str]] = {
    "a path upwards": (lambda m: shard(m, b="../part.safetensors"), "none of this folder"),
    "a whole path": (lambda m: shard(m, b="/etc/passwd"), "none of this folder"),
    "a pickle": (lambda m: shard(m, b="part.bin"), "none of this folder"),
    "a number": (lambda m: shard(m, b=7), "does not fit its files"),
    "a shard missing": (lambda m: shard(m, b="more.safetensors"), "more.safetensors is missing"),
    "a tensor twice": (
        lambda m: (
            shard(m, b="more.safetensors"),
            shutil.copy(m / "part.safetensors", m / "more.safetensors"),
        ),
        f"{TENSOR.replace('1', '0')}: stored twice",
    ),
}


@pytest.mark.parametrize("kind", INDICES)
def test_row_37_an_index_that_does_not_fit_its_shards_is_refused(model: Path, kind: str) -> None:
    edit, reason = INDICES[kind]
    edit(model)
    message = refusal(model)
    assert reason in message or ("stored twice" in reason and "stored twice" in message)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', "[" * 9999]
)
def test_row_37_an_index_that_is_none_is_refused(model: Path, text: str) -> None:
    shard(model)
    (model / "model.safetensors.index.json").write_text(text)
    assert "does not fit its files" in refusal(model)


def test_row_37_shards_are_loaded(model: Path) -> None:
    shard(model)
    load(model)


def test_row_37_a_config_without_weights_says_what_would_do(model: Path) -> None:
    (model / "model.safetensors").unlink()
    message = refusal(model)
    assert "has no weights" in message
    assert "set model.weights to random" in message
    check_folder(model, with_weights=False)
    assert load_network(model, 3, with_weights=False).num_labels == 3


# Settings

SETTINGS: dict[str, tuple[dict[str, object], str]] = {
    "no architecture": ({"model_type": None}, "none that classifies texts"),
    "an unknown one": ({"model_type": "bert-9000"}, "bert-9000"),
    "one for images": ({"model_type": "vit"}, "none that classifies texts"),
    "a number for one": ({"model_type": 3}, "none that classifies texts"),
    "several labels": ({"problem_type": "multi_label_classification"}, "one label a text"),
    "a regression": ({"problem_type": "regression"}, "one label a text"),
    "gptq": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised"),
    "awq": ({"quantization_config": {"quant_method": "awq"}}, "actual:   awq"),
    "compressed": ({"compression_config": {"format": "int"}}, "quantised"),
    "a million layers": ({"num_hidden_layers": 10**6}, "a size that no model has"),
    "a huge number": ({"hidden_size": 10**30}, "a size that no model has"),
    "more than memory": (
        {"vocab_size": 2**31 - 1, "hidden_size": 2**20, "num_attention_heads": 1},
        "this machine's memory",
    ),
    "no heads": ({"num_attention_heads": 0}, "cannot make the network"),
    "uneven heads": ({"num_attention_heads": 5}, "not a multiple"),
    "a negative size": ({"vocab_size": -3}, "cannot make the network"),
    "a text for a size": ({"hidden_size": "wide"}, "cannot make the network"),
    "an activation unknown": ({"hidden_act": "evil"}, "cannot make the network"),
    "other layers": ({"num_hidden_layers": 3}, "encoder.layer.2.attention"),
    "fewer layers": ({"num_hidden_layers": 1}, "encoder.layer.1.attention"),
    "another width": ({"intermediate_size": 64}, "the config's is (64,"),
    "a far larger width": ({"hidden_size": 16_000}, "parameters in the network of the config"),
    "another file": ({"transformers_weights": "../other.safetensors"}, "a name of their own"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_row_37_settings_of_no_classifier_are_refused(model: Path, kind: str) -> None:
    settings, reason = SETTINGS[kind]
    configure(model, **settings)
    assert reason in refusal(model)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "null", '"bert"', "{", "\xff", "[" * 9999, "{}", " " * 17_000_000]
)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_row_37_a_file_that_is_no_settings_is_refused(model: Path, file: str, text: str) -> None:
    (model / file).write_text(text, encoding="latin-1")
    if (file, text) == ("tokenizer_config.json", "{}"):
        load(model)  # nothing in it is needed
    else:
        refusal(model)


def test_row_37_a_folder_without_config_or_with_an_adapter_is_refused(model: Path) -> None:
    (model / "config.json").unlink()
    assert "config.json cannot be read" in refusal(model)
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}')
    assert "an adapter of PEFT" in refusal(model)


RUNNING: dict[str, tuple[str, dict[str, object]]] = {
    "parts of 7 tokens": ("bert", {"chunk_size_feed_forward": 7}),
    "another end": ("t5", {"eos_token_id": 7}),
    "no end": ("t5", {"eos_token_id": None}),
    "a start beyond the embedding": ("t5", {"decoder_start_token_id": 1000}),
}


@pytest.mark.parametrize("kind", RUNNING)
def test_row_37_a_model_that_does_not_run_is_refused_before_anything_is_trained(
    tmp_path: Path, kind: str
) -> None:
    architecture, settings = RUNNING[kind]
    with pytest.raises(CheckpointError, match="transformers cannot run the network"):
        base_of(tmp_path, architecture, **settings)


def test_row_37_what_else_a_model_was_saved_to_return_does_not_matter(tmp_path: Path) -> None:
    asked = {"return_dict": False, "output_hidden_states": True, "output_attentions": True}
    assert base_of(tmp_path, "llama", **asked).kind == "hub"


def base_of(root: Path, architecture: str, **settings: object) -> Any:
    """Return the base that the stage makes of a tiny model with these settings."""
    name = "inputs/models/tiny"
    make_model(root / name, architecture)
    configure(root / name, **settings)
    params = ModelParams.model_validate({"name": name, "weights": "pretrained"})
    return make_base(params, [], torch.device("cpu"), root=root)


# Tokenizers


def widen(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["beyond"] = 300
    path.write_text(json.dumps(tokenizer))


TOKENIZERS: dict[str, tuple[Edit, str]] = {
    "more tokens than rows": (widen, "'beyond' has the id 300"),
    "none": (lambda m: (m / "tokenizer.json").unlink(), "has no tokenizer"),
    "no vocabulary": (
        lambda m: ((m / "tokenizer.json").unlink(), (m / "vocab.txt").write_text("")),
        "",
    ),
    "no JSON": (lambda m: (m / "tokenizer.json").write_text("{"), "cannot make the tokenizer"),
    "another format": (lambda m: (m / "tokenizer.json").write_text("{}"), "tokenizer"),
    "a class unknown": (
        lambda m: configure(m, "tokenizer_config.json", tokenizer_class="EvilTokenizer"),
        "",
    ),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_row_37_a_tokenizer_that_does_not_fit_is_refused(model: Path, kind: str) -> None:
    edit, reason = TOKENIZERS[kind]
    edit(model)
    if kind == "a class unknown":
        load(model)
    else:
        assert reason in refusal(model)


# What transformers does

WATCHED = (
    "socket.",
    "subprocess",
    "os.exec",
    "os.system",
    "os.posix_spawn",
    "pickle",
    "ctypes.dlo",
)
"""Beginnings of the names of events in Python's audit."""


@pytest.mark.parametrize("architecture", ["bert", "mistral", "t5"])
def test_row_37_loading_reaches_for_no_network_process_or_pickle(
    tmp_path: Path, architecture: str
) -> None:
    make_model(tmp_path, architecture)
    load(tmp_path)  # once before: transformers imports its modules
    seen: list[str] | None = []

    def watch(event: str, _: object) -> None:
        if seen is not None and event.startswith(WATCHED):
            seen.append(event)

    sys.addaudithook(watch)
    socket.socket().close()
    assert seen == ["socket.__new__"]
    load(tmp_path)
    assert seen == ["socket.__new__"]
    seen = None  # a hook stays for as long as the process


def test_row_37_nothing_of_transformers_reaches_the_user(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    load(model)
    configure(model, num_hidden_layers=3)
    refusal(model)
    assert capfd.readouterr() == ("", "")


HOSTILE = [None, True, -1, 0, 7, 10**4, 10**6, 1e300, float("nan"), "", "evil", [], [1], {}]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama", "t5"])
def test_row_37_every_setting_with_every_hostile_value_loads_or_is_refused_in_bounded_memory(
    tmp_path: Path, architecture: str, record_property: Any
) -> None:
    make_model(tmp_path, architecture)
    load(tmp_path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    original = json.loads((tmp_path / "config.json").read_text())
    trials = [(key, value) for key in original for value in HOSTILE]
    for key, value in trials:
        (tmp_path / "config.json").write_text(json.dumps({**original, key: value}))
        with suppress(UserError):
            load(tmp_path)
    record_property("trials", len(trials))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 500_000  # kilobytes


# The stage


@pytest.fixture(scope="module")
def split_project(tmp_path_factory: pytest.TempPathFactory, pristine: Path) -> Path:
    """A small project before the stage base_model, with a model's folder."""
    folder = make_project(
        tmp_path_factory.mktemp("project"), "download", "split", name="inputs/models/bert"
    )
    shutil.copytree(pristine, folder / "inputs" / "models" / "bert")
    return folder


@pytest.fixture
def project(split_project: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(split_project, tmp_path / "project")


def name_the_hub(project: Path, revision: str = COMMIT) -> None:
    """Let params.yaml name the model of the hub on loopback."""
    path = project / "params.yaml"
    text = path.read_text().replace("inputs/models/bert", MODEL)
    path.write_text(re.sub("(?m)^  revision: \\S+", f"  revision: {revision}", text))


STAGE: dict[str, tuple[Edit, str]] = {
    "code": (lambda m: configure(m, auto_map={"AutoConfig": "evil.Evil"}), "code of its own"),
    "a pickle": (
        lambda m: (m / "model.safetensors").rename(m / "pytorch_model.bin"),
        "in a pickle alone",
    ),
    "a cut": (lambda m: os.truncate(m / "model.safetensors", 5000), "not a whole safetensors"),
    "no folder": (shutil.rmtree, "There is no folder of that model"),
}


@pytest.mark.parametrize("kind", STAGE)
def test_row_37_the_stage_refuses_it_and_writes_nothing(project: Path, kind: str) -> None:
    edit, reason = STAGE[kind]
    edit(project / "inputs" / "models" / "bert")
    assert reason in commands.refusal(project, "base_model")


@pytest.fixture
def hub(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    """A hub that has the model."""
    files = {path.name: path.read_bytes() for path in pristine.iterdir()}
    with (
        HTTPServer(host="127.0.0.1", threaded=True) as server,
        speaking_of_model(server, monkeypatch, tmp_path / "hub", files) as model_hub,
    ):
        yield model_hub


def test_row_07_the_stage_says_what_to_do_about_a_hub_that_is_down(
    project: Path, hub: ModelHub
) -> None:
    name_the_hub(project)
    hub.status = 503
    message = commands.refusal(project, "base_model")
    assert f"hf download {MODEL} --revision {COMMIT}" in message
    hub.status, hub.code = 403, "GatedRepo"
    assert "accept the model's conditions" in commands.refusal(project, "base_model")


def test_row_11_a_damaged_model_in_the_hub_s_cache_is_fetched_again_or_refused(
    project: Path, hub: ModelHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_the_hub(project, "main")
    assert f"set model.revision: {COMMIT}" in commands.succeed(project, "base_model")
    name_the_hub(project)
    first = commands.files_of(project / "models")
    source = json.loads(first["base/config.json"])["source"]
    assert (source["repository"], source["revision"]) == (MODEL, COMMIT)
    cached = hub_cache.snapshot(MODEL, COMMIT) / "model.safetensors"
    cached.resolve().write_bytes(b"other bytes")
    commands.succeed(project, "base_model")
    assert commands.files_of(project / "models") == first
    cached.resolve().write_bytes(b"other bytes")
    go_offline(monkeypatch)
    assert "not the published one" in commands.refusal(project, "base_model")
