"""Models of transformers to and from PEFT: what is asked, refused and written beside."""

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hub_models import CLASSES, make_hub_base, make_hub_source
from lora_compare.errors import CheckpointError, ExportError
from lora_compare.exchange.export import export
from lora_compare.exchange.imported import HEADS, SEED, import_adapter
from lora_compare.exchange.kinds import counterpart_of
from lora_compare.exchange.origins import base_problem
from lora_compare.exchange.peft.config import read_adapter
from lora_compare.exchange.peft.reading import Imported, from_peft
from lora_compare.exchange.usage import EXAMPLE
from lora_compare.models.base import load_base, make_base
from lora_compare.models.classifier import untuned
from lora_compare.params import ModelParams, load_params
from lora_compare.project.files import read_json, sha256
from lora_compare.project.paths import Paths
from lora_settings import lora_settings
from small_project import write_settings
from tiny_models import make_model

pytestmark = pytest.mark.filterwarnings(
    # PEFT reads a property of transformers by its old name.
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)

SETTINGS = lora_settings(target_modules="default", r=3)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_hub_base(folder, "roberta")
    return write_settings(folder)


@pytest.fixture(scope="module")
def exported(project: Path) -> Path:
    """An adapter as PEFT has it, with the base beside it."""
    export(make_hub_source(project, SETTINGS), "peft", project / "exports" / "peft")
    return project / "exports" / "peft"


def take_in(project: Path, folder: Path) -> Imported:
    bare = untuned(load_base(project / "models" / "base"), CLASSES, HEADS["hub"], SEED)
    return from_peft(read_adapter(folder), counterpart_of(bare, {}).layout, CLASSES)


def test_an_exported_adapter_names_modules_as_transformers_does(exported: Path) -> None:
    config = read_json(exported / "adapter_config.json")
    assert sorted(config["target_modules"]) == ["query", "value"]
    assert config["modules_to_save"] == ["classifier"]  # the module, which PEFT looks for itself
    assert config["fan_in_fan_out"] is False
    names = load_file(exported / "adapter_model.safetensors").keys()
    assert "base_model.model.classifier.out_proj.bias" in names
    assert "base_model.model.roberta.encoder.layer.1.attention.self.value.lora_B.weight" in names
    assert len(names) == 4 + 2 * 2 * 2


def test_an_exported_adapter_comes_back_bit_for_bit(project: Path, exported: Path) -> None:
    source = make_hub_source(project, SETTINGS)
    back = take_in(project, exported)
    assert back.settings.target_modules == ["query", "value"]
    assert back.trainable == sum(
        p.numel() for p in source.classifier.model.parameters() if p.requires_grad
    )
    own = dict(source.classifier.model.named_parameters())
    name = "model.roberta.encoder.layer.1.attention.self.value"
    assert torch.equal(back.tensors[f"{name}.lora_B"], own[f"{name}.adapters.default.lora_B"])
    assert torch.equal(
        back.tensors["model.classifier.out_proj.weight"], own["model.classifier.out_proj.weight"]
    )


def test_the_base_of_the_hub_is_named_with_its_commit(project: Path, tmp_path: Path) -> None:
    source = make_hub_source(project, SETTINGS)
    origin = {"kind": "hub", "repository": "FacebookAI/roberta-base", "revision": "e2da8e2f811d"}
    public = replace(source, description={**source.description, "source": origin})
    lines = export(public, "peft", tmp_path / "public")
    config = read_json(tmp_path / "public" / "adapter_config.json")
    assert config["base_model_name_or_path"] == "FacebookAI/roberta-base"
    assert config["revision"] == "e2da8e2f811d"
    assert 'revision="e2da8e2f811d"' in lines
    assert not (tmp_path / "public" / "base").exists()
    # What the hub's files lack would be random again: then the base goes along.
    partial = {**public.description, "initialised": ["pooler.dense.weight"]}
    export(replace(public, description=partial), "peft", tmp_path / "partial")
    assert (tmp_path / "partial" / "base" / "model.safetensors").is_file()


def test_what_the_files_of_a_base_lack_is_recorded(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "inputs" / "models" / "mine", "bert")
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    model = ModelParams(name="inputs/models/mine", weights="pretrained")
    base = make_base(model, [], torch.device("cpu"), root=tmp_path)
    assert base.description["initialised"] == ["pooler.dense.bias", "pooler.dense.weight"]


def test_the_printed_lines_run(project: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    source = make_hub_source(project, SETTINGS)
    (expected,) = source.classifier.probabilities([EXAMPLE])
    for kind in ("peft", "merged"):
        lines = export(source, kind, Path("exports") / kind)
        names: dict[str, Any] = {}
        with redirect_stdout(io.StringIO()):
            exec(lines, names)
        if kind == "peft":
            scores = names["model"](**names["inputs"]).logits.softmax(dim=-1)[0].tolist()
        else:
            scores = [
                row["score"] for row in names["classify"](EXAMPLE, top_k=None, truncation=True)
            ]
        assert np.allclose(np.sort(scores), np.sort(expected), atol=1e-6)


def test_longer_texts_are_cut_on_the_side_of_the_training(project: Path, tmp_path: Path) -> None:
    source = make_hub_source(project, SETTINGS)
    for truncation, side in (("tail", "left"), ("head_tail", "right")):
        other = replace(source, classifier=replace(source.classifier, truncation=truncation))
        lines = export(other, "merged", tmp_path)
        config = read_json(tmp_path / "tokenizer_config.json")
        assert (config["truncation_side"], config["model_max_length"]) == (side, 30)
        assert ("differ" in lines) == (truncation == "head_tail")


def test_an_export_repeats_itself_and_says_nothing_of_this_machine(
    project: Path, tmp_path: Path
) -> None:
    for kind in ("peft", "merged"):
        folder = tmp_path / kind
        first, second = ([*_contents(project, folder, kind).items()] for _ in range(2))
        assert first == second
        for name, content in first:
            # The place of the base beside it is what the user typed.
            there = content.replace(str(folder).encode(), b"")
            assert str(project).encode() not in there, name
            assert b"local_files_only" not in there, name


def _contents(project: Path, folder: Path, kind: Any) -> dict[str, bytes]:
    export(make_hub_source(project, SETTINGS), kind, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_onnx_is_refused_with_the_way_to_it(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="optimum-cli export onnx"):
        export(make_hub_source(project, SETTINGS), "onnx", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_an_import_adds_a_method(project: Path, exported: Path) -> None:
    paths, base = Paths(project), load_base(project / "models" / "base")
    params = load_params(paths.params)
    _, head = import_adapter(paths, params, base, CLASSES, exported, "theirs")
    assert head.classes == CLASSES
    method = load_params(paths.params).methods["theirs"]
    assert method.sha256 == sha256(paths.adapter("theirs") / "model.safetensors")


def changed(exported: Path, folder: Path, tensors: dict[str, Any], **settings: Any) -> Path:
    """Write an adapter again with tensors (None: without) and settings that differ."""
    folder.mkdir()
    stored = {**load_file(exported / "adapter_model.safetensors"), **tensors}
    kept = {name: tensor for name, tensor in stored.items() if tensor is not None}
    save_file(kept, folder / "adapter_model.safetensors")
    config = {**read_json(exported / "adapter_config.json"), **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


HEAD = "base_model.model.classifier"
VALUE = "base_model.model.roberta.encoder.layer.1.attention.self.value"


@pytest.mark.parametrize(
    ("tensors", "settings", "expected"),
    [
        ({f"{HEAD}.dense.weight": None}, {}, "classifier.dense.weight: missing; PEFT stores this"),
        ({f"{HEAD}.out_proj.weight": None}, {}, "without a trained head there are no classes"),
        ({f"{HEAD}.out_proj.weight": torch.ones(4, 32)}, {}, "4 classes, the data has 3"),
        ({f"{VALUE}.lora_A.weight": torch.ones(3, 31)}, {}, "shape (3, 31), rank and model ask"),
        ({f"{VALUE}.lora_A.weight": None, f"{VALUE}.lora_B.weight": None}, {}, "no adapter in the"),
        ({}, {"target_modules": ["query"]}, "the file has an adapter for roberta.encoder.layer.0"),
        ({}, {"peft_type": "IA3"}, "peft_type: IA3, supported is LORA"),
        ({}, {"use_dora": True}, "value.lora_magnitude_vector: missing"),
        ({}, {"bias": "all"}, "bias: all, but"),
        ({}, {"trainable_token_indices": [1]}, "trainable_token_indices: [1] is not supported"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_by_name(
    project: Path,
    exported: Path,
    tmp_path: Path,
    tensors: dict[str, Any],
    settings: dict[str, Any],
    expected: str,
) -> None:
    with pytest.raises(CheckpointError) as refused:
        take_in(project, changed(exported, tmp_path / "x", tensors, **settings))
    assert expected in str(refused.value)


def test_an_adapter_of_another_family_is_named_after_it(project: Path, tmp_path: Path) -> None:
    make_hub_base(tmp_path, "bert")
    export(make_hub_source(tmp_path, SETTINGS), "peft", tmp_path / "peft")
    with pytest.raises(CheckpointError, match="made for bert; this base is roberta"):
        take_in(project, tmp_path / "peft")


def test_the_named_base_must_be_the_base_here(
    project: Path, exported: Path, tmp_path: Path
) -> None:
    base = load_base(project / "models" / "base")

    def problem(name: str | None, revision: str | None = None, source: Path = tmp_path) -> str:
        return base_problem({"base_model_name_or_path": name, "revision": revision}, base, source)

    assert problem(None) == ""
    assert problem(str(project / "inputs" / "models" / "roberta")) == ""  # by its files
    assert problem("anywhere", source=exported) == ""  # by the weights in exported/base
    assert "is not here to be compared" in problem("google-bert/bert-base-cased")
    make_hub_base(tmp_path, "roberta", seed=1)
    assert "whose weights are not" in problem(str(tmp_path / "inputs" / "models" / "roberta"))
    origin = {"repository": "FacebookAI/roberta-base", "revision": "e2da8e2f"}
    base.description["source"] = origin
    assert problem("FacebookAI/roberta-base", "e2da8e2f") == ""
    assert problem("roberta-base") == ""
    assert "the base model here is at e2da8e2f" in problem("roberta-base", "11111111")
