"""Imported adapters: what is refused, with every difference named, and what is written."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from interchange import CLASSES, TEXTS, logits, make_small_base, make_source
from lora_compare.compute.device import Machine
from lora_compare.data.splits import split
from lora_compare.errors import CheckpointError, UserError
from lora_compare.exchange.export import export
from lora_compare.exchange.imported import import_adapter
from lora_compare.exchange.origins import base_problem
from lora_compare.exchange.peft.labels import head_rows
from lora_compare.models.base import Base, load_base, save_base
from lora_compare.models.methods import Trained, load_method
from lora_compare.models.tokens import tokenize
from lora_compare.params import TrainingParams, load_params
from lora_compare.project.corpus import make_corpus
from lora_compare.project.files import sha256
from lora_compare.project.paths import Paths
from lora_compare.training.imported import adopt
from lora_compare.training.meters import cost_figures
from lora_settings import lora_settings

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "recipes" / "quick.yaml").read_text()
CPU = torch.device("cpu")
LAYER = "base_model.model.transformer.h.0.attn.c_attn"

Files = tuple[dict[str, Any], dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    make_small_base(folder)
    return folder


@pytest.fixture(scope="module")
def good(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that fits; PEFT need not be installed."""
    folder = tmp_path_factory.mktemp("adapter")
    settings = lora_settings(target_modules=["c_attn", "wte"], modules_to_save=["score", "ln_2"])
    export(make_source(base_folder, settings, bias=False), "peft", folder)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Paths:
    (tmp_path / "params.yaml").write_text(TEXT)
    return Paths(tmp_path)


def run_import(paths: Paths, base_folder: Path, source: Path, name: str = "theirs", **more: Any):
    params, base = load_params(paths.params), load_base(base_folder)
    classes = more.pop("classes", CLASSES)
    imported, _ = import_adapter(paths, params, base, classes, source, name, **more)
    return imported


def changed(good: Path, folder: Path, change: Callable[[Any, Any], None]) -> Path:
    """Return a copy of the adapter after `change(config, tensors)`."""
    config = json.loads((good / "adapter_config.json").read_text())
    tensors = load_file(good / "adapter_model.safetensors")
    change(config, tensors)
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def refused(paths: Paths, base_folder: Path, source: Path, **more: Any) -> str:
    """Return the message of the refusal, which leaves everything as it was."""
    before = sorted(paths.root.rglob("*"))
    with pytest.raises(UserError) as caught:
        run_import(paths, base_folder, source, **more)
    assert paths.params.read_text() == TEXT
    assert sorted(paths.root.rglob("*")) == before
    return str(caught.value)


def test_an_import_converts_the_adapter_and_adds_a_method(
    project: Paths, base_folder: Path, good: Path
) -> None:
    imported = run_import(project, base_folder, good)
    target = project.root / "inputs/adapters/theirs"
    files = ["SHA256SUMS", "config.json", "model.safetensors"]
    assert sorted(p.name for p in target.iterdir()) == files
    assert load_method(target, load_base(base_folder)).classes == CLASSES
    method = load_params(project.params).method("theirs")
    assert method.trainable == "imported"
    assert method.adapter == "inputs/adapters/theirs"
    sums = {name: sha256(target / name) for name in files}
    assert (method.sha256, method.config_sha256) == (sums[files[2]], sums[files[1]])
    stored = load_file(good / "adapter_model.safetensors")
    assert imported.trainable == sum(tensor.numel() for tensor in stored.values())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c, t: c.update(peft_type="LOHA"), ["peft_type: LOHA"]),
        (lambda c, t: c.update(task_type="CAUSAL_LM"), ["task_type: CAUSAL_LM"]),
        (
            lambda c, t: c.update(
                lora_bias=True,
                layer_replication=[[0, 1]],
                trainable_token_indices=[3],
                target_parameters=["x"],
                use_qalora=True,
                some_new_setting={"a": 1},
            ),
            [
                "lora_bias: True",
                "layer_replication: [[0, 1]]",
                "trainable_token_indices: [3]",
                "target_parameters: ['x']",
                "use_qalora: True",
                "some_new_setting: {'a': 1}",
            ],
        ),
        (lambda c, t: c.update(init_lora_weights="pissa"), ["init_lora_weights: 'pissa' changes"]),
        (lambda c, t: c.update(r="8", bias="some"), ["r: Input should be", "bias: Input should"]),
        (lambda c, t: c.pop("lora_alpha"), ["lora_alpha: Field required"]),
        (lambda c, t: c.update(rank_pattern={"(c_attn": 2}), ["rank_pattern", "'(c_attn'"]),
        (
            lambda c, t: c.update(rank_pattern={"c_attn": 5}),
            [f"{LAYER}.lora_A.weight: shape (6, 24), rank and model ask for (5, 24)"],
        ),
        (
            lambda c, t: t.update({f"{LAYER}.lora_B.weight": torch.zeros(24, 6)}),
            [f"{LAYER}.lora_B.weight: shape (24, 6), rank and model ask for (72, 6)"],
        ),
        (lambda c, t: t.pop(f"{LAYER}.lora_A.weight"), [f"{LAYER}.lora_A.weight: missing"]),
        (lambda c, t: c.update(use_dora=True), [f"{LAYER}.lora_magnitude_vector: missing"]),
        (
            lambda c, t: t.update({f"{LAYER}.lora_magnitude_vector": torch.ones(72)}),
            ["use_dora is false"],
        ),
        (
            lambda c, t: t.update({LAYER.replace(".0.", ".7.") + ".lora_A.weight": t.popitem()[1]}),
            ["h.7.attn.c_attn.lora_A.weight: no part of an adapter"],
        ),
        (lambda c, t: t.update({"score.weight": torch.zeros(3, 24)}), ["score.weight: no part"]),
        (lambda c, t: t.pop("base_model.model.score.weight"), ["score.weight: missing"]),
        (
            lambda c, t: t.update({"base_model.model.score.weight": torch.zeros(2, 24)}),
            ["score.weight: 2 classes, the data has 3 (ham, spam, urgent)"],
        ),
        (
            lambda c, t: t.update({"base_model.model.score.weight": torch.zeros(3, 25)}),
            ["score.weight: shape (3, 25)"],
        ),
        (
            lambda c, t: t.pop("base_model.model.transformer.h.0.ln_2.bias"),
            ["h.0.ln_2.bias: missing beside"],
        ),
        (
            lambda c, t: t.update({f"{LAYER}.base_layer.bias": torch.zeros(72)}),
            ["c_attn.bias: not trained with bias: none"],
        ),
        (
            lambda c, t: t.update({f"{LAYER}.base_layer.weight": torch.zeros(24, 72)}),
            ["c_attn.weight: its layer has an adapter as well"],
        ),
        (lambda c, t: c["modules_to_save"].append("ln_f"), ["modules_to_save: ln_f is not in"]),
        (
            lambda c, t: [t.pop(key) for key in list(t) if "lora_" in key],
            ["no layer is adapted"],
        ),
        (
            lambda c, t: c.update(bias="all"),
            ["bias: all, but 11 biases are not in the file: transformer.h.0.ln_1.bias"],
        ),
        (
            lambda c, t: c.update(bias="lora_only"),
            ["bias: lora_only, but 2 biases are not in the file: transformer.h.0.attn.c_attn.bias"],
        ),
        (
            lambda c, t: c.update(target_modules=["c_attn", "wte", "mlp.c_proj"]),
            ["no adapter in the file for transformer.h.0.mlp.c_proj, transformer.h.1.mlp.c_proj"],
        ),
        (
            lambda c, t: c.update(target_modules=["c_attn"], layers_to_transform=[1]),
            ["the file has an adapter for transformer.wte, transformer.h.0.attn.c_attn, too"],
        ),
        (lambda c, t: c.update(target_modules="(c_attn"), ["'(c_attn' is no regular expression"]),
        (
            lambda c, t: t.update(
                {"base_model.model.transformer.h.0.ln_2.modules_to_save.bias": torch.ones(24)}
            ),
            ["ln_2.modules_to_save.bias: another value"],
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_with_its_differences(
    project: Paths,
    base_folder: Path,
    good: Path,
    tmp_path_factory: pytest.TempPathFactory,
    change: Callable[[Any, Any], None],
    expected: list[str],
) -> None:
    source = changed(good, tmp_path_factory.mktemp("changed") / "adapter", change)
    message = refused(project, base_folder, source)
    for part in expected:
        assert part in message


def test_the_bases_own_embeddings_beside_an_adapter_of_theirs_are_left_out(
    project: Paths, base_folder: Path, good: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = load_base(base_folder).network.wte.weight.detach()
    key = "base_model.model.transformer.wte.base_layer.weight"
    folder = tmp_path_factory.mktemp("embeddings")
    same = changed(good, folder / "same", lambda c, t: t.update({key: table.clone()}))
    other = changed(good, folder / "other", lambda c, t: t.update({key: table + 1}))
    assert "its layer has an adapter as well" in refused(project, base_folder, other)
    expected = run_import(project, base_folder, good, name="plain").trainable
    assert run_import(project, base_folder, same).trainable == expected


def test_an_adapter_of_another_family_is_named_after_it(
    project: Paths, base_folder: Path, good: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def change(config: Any, tensors: Any) -> None:
        tensors.clear()
        config["base_model_name_or_path"] = "google-bert/bert-base-uncased"
        for block in range(6):
            layer = f"base_model.model.bert.encoder.layer.{block}.attention.self.query"
            tensors[f"{layer}.lora_A.weight"] = torch.zeros(4, 24)
            tensors[f"{layer}.lora_B.weight"] = torch.zeros(24, 4)

    source = changed(good, tmp_path_factory.mktemp("bert") / "adapter", change)
    message = refused(project, base_folder, source)
    assert "made for bert; this base is GPT-2" in message
    assert "google-bert/bert-base-uncased" in message
    assert message.count("bert.encoder.layer") == 1


def test_another_number_of_classes_advises_other_data_not_another_config(
    project: Paths, base_folder: Path, good: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    head = {"base_model.model.score.weight": torch.zeros(2, 24)}
    source = changed(good, tmp_path_factory.mktemp("two") / "adapter", lambda c, t: t.update(head))
    message = refused(project, base_folder, source)
    assert "1 difference" in message
    assert "data.source" in message
    assert "adapter_config.json" not in message


def test_every_difference_is_named_at_once(
    project: Paths, base_folder: Path, good: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def change(config: Any, tensors: Any) -> None:
        tensors.pop("base_model.model.score.weight")
        tensors.pop(f"{LAYER}.lora_A.weight")
        tensors["base_model.model.extra"] = torch.zeros(1)

    source = changed(good, tmp_path_factory.mktemp("changed") / "adapter", change)
    message = refused(project, base_folder, source)
    assert "3 differences" in message


def test_a_pickle_is_never_opened(project: Paths, base_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "pickled"
    source.mkdir()
    (source / "adapter_config.json").write_text("{}")
    (source / "adapter_model.bin").write_bytes(b"\x80")
    assert "a pickle, which is never opened" in refused(project, base_folder, source)


@pytest.mark.parametrize(
    ("content", "expected"), [("{", "no JSON"), ("[]", "no JSON object"), ("\xff", "no JSON")]
)
def test_settings_that_are_no_json_object_are_refused(
    project: Paths, base_folder: Path, good: Path, tmp_path: Path, content: str, expected: str
) -> None:
    source = changed(good, tmp_path / "adapter", lambda c, t: None)
    (source / "adapter_config.json").write_bytes(content.encode("latin-1"))
    assert expected in refused(project, base_folder, source)


def test_a_models_settings_beside_the_adapter_that_are_no_json_are_refused(
    project: Paths, base_folder: Path, good: Path, tmp_path: Path
) -> None:
    source = changed(good, tmp_path / "adapter", lambda c, t: None)
    (source / "config.json").write_text("{")
    message = refused(project, base_folder, source)
    assert "The model's settings are no JSON." in message
    assert "save the model again" in message


def test_a_name_of_the_hub_is_explained(project: Paths, base_folder: Path) -> None:
    assert "hf download" in refused(project, base_folder, Path("someone/gpt2-spam-lora"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LORA", "has a method 'LORA' already"),
        ("baseline", "taken by a file of the pipeline"),
        ("../x", "becomes a file name"),
    ],
)
def test_a_name_that_is_taken_or_no_file_name_is_refused(
    project: Paths, base_folder: Path, good: Path, name: str, expected: str
) -> None:
    assert expected in refused(project, base_folder, good, name=name)


def test_wrong_classes_are_refused(project: Paths, base_folder: Path, good: Path) -> None:
    message = refused(project, base_folder, good, rows=["spam", "ham"])
    assert "ham, spam, urgent" in message


def test_another_order_of_the_classes_is_kept_with_the_method(
    project: Paths, base_folder: Path, good: Path
) -> None:
    rows = ["urgent", "ham", "spam"]
    run_import(project, base_folder, good, rows=rows)
    assert load_params(project.params).method("theirs").classes == rows
    run_import(project, base_folder, good, "plain")
    (found, *_), (plain, *_) = (
        adopt_imported(project, base_folder, m) for m in ("theirs", "plain")
    )
    assert found.classes == CLASSES
    assert np.array_equal(logits(found), logits(plain)[:, [rows.index(name) for name in CLASSES]])


def test_another_adapter_in_its_place_is_kept(
    project: Paths, base_folder: Path, good: Path
) -> None:
    target = project.adapter("theirs")
    target.mkdir(parents=True)
    (target / "config.json").write_text("{}")
    assert f"rm -r {target}" in refused(project, base_folder, good)


def test_an_adapter_that_is_in_its_place_already_can_be_imported_again(
    project: Paths, base_folder: Path, good: Path
) -> None:
    run_import(project, base_folder, good)
    added = project.params.read_text()
    project.params.write_text(TEXT)
    card = project.adapter("theirs") / "README.md"
    card.write_text("a model card")
    run_import(project, base_folder, good)
    assert project.params.read_text() == added
    assert card.exists()


def test_nothing_is_written_when_params_cannot_be_written(
    project: Paths, base_folder: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr("lora_compare.exchange.imported.write_text", fail)
    with pytest.raises(OSError, match="read-only"):
        run_import(project, base_folder, good)
    assert not project.adapter("theirs").exists()


def test_the_named_base_must_be_the_base_here(
    base_folder: Path, good: Path, tmp_path: Path
) -> None:
    base = load_base(base_folder)

    def problem(name: str | None, base: Base = base, source: Path = tmp_path) -> str:
        return base_problem({"base_model_name_or_path": name}, base, source)

    assert problem(None) == ""
    assert problem("anywhere", source=good) == ""  # good/base holds the same weights
    assert "the base model here is random gpt2-nano" in problem("gpt2")
    assert "is not here to be compared" in problem("someone/model")
    make_small_base(tmp_path / "mine")
    other = load_file(good / "base" / "model.safetensors")
    other["transformer.ln_f.bias"] += 1
    (tmp_path / "base").mkdir()
    save_file(other, tmp_path / "base" / "model.safetensors")
    assert "not those of models/base" in problem("anywhere")
    description = {**base.description, "name": "gpt2-medium", "weights": "pretrained"}
    medium = type(base)(base.network, base.tokenizer, description)
    assert problem("openai-community/gpt2-medium", medium) == ""
    assert "pretrained gpt2-medium" in problem("openai-community/gpt2", medium)


def test_whole_number_classes_of_an_adapter_are_its_rows_by_their_size(
    project: Paths, base_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    numbers = [str(number) for number in range(12)]
    settings = lora_settings(target_modules=["c_attn"], modules_to_save=["score"])
    theirs = make_source(base_folder, settings, bias=False, classes=numbers)
    folder = tmp_path_factory.mktemp("twelve")
    export(theirs, "peft", folder)
    silent(folder)
    # The data in string order: 0, 1, 10, 11, 2, ...
    corpus = make_corpus(sorted(numbers * 20), [f"message {i}" for i in range(240)])
    # These messages differ in their numbers alone.
    params = load_params(project.params).split.model_copy(update={"twins": "apart"})
    _, metrics = split(corpus, params)
    classes = list(metrics["classes"])
    run_import(project, base_folder, folder, classes=classes)
    (ours, *_) = adopt_imported(project, base_folder, classes=classes)
    expected = [numbers[row] for row in logits(theirs.classifier).argmax(axis=1)]
    assert len(set(expected)) > 2
    assert [ours.classes[row] for row in logits(ours).argmax(axis=1)] == expected


def silent(folder: Path) -> None:
    """Take every word on the order of the classes out of an export."""
    config = json.loads((folder / "base" / "config.json").read_text())
    del config["id2label"], config["label2id"]
    (folder / "base" / "config.json").write_text(json.dumps(config))


ORDER = ["urgent", "ham", "spam"]


def named(folder: Path, names: Any) -> None:
    (folder / "config.json").write_text(json.dumps({"id2label": names}))


def test_the_adapters_own_id2label_decides_the_order_of_its_rows(
    project: Paths, base_folder: Path, good: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = changed(good, tmp_path_factory.mktemp("named") / "adapter", lambda c, t: None)
    named(source, dict(enumerate(ORDER)))
    assert "contradicts" in refused(project, base_folder, source, rows=["spam", "ham", "urgent"])
    run_import(project, base_folder, source)
    assert load_params(project.params).method("theirs").classes == ORDER


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"0": "no", "1": "yes", "2": "perhaps"}, "(?s)otherwise than the data.*--classes"),
        ({"0": "ham", "2": "spam"}, "does not name every row"),
        (["ham", "spam", "urgent"], "does not name every row"),
    ],
)
def test_an_id2label_that_is_not_the_datas_is_refused(
    project: Paths,
    base_folder: Path,
    good: Path,
    tmp_path_factory: pytest.TempPathFactory,
    names: Any,
    expected: str,
) -> None:
    source = changed(good, tmp_path_factory.mktemp("named") / "adapter", lambda c, t: None)
    named(source, names)
    assert re.search(expected, refused(project, base_folder, source))


def test_the_order_that_an_import_assumes_is_told(good: Path, tmp_path: Path) -> None:
    silent_words = head_rows({}, tmp_path, CLASSES)
    assert "the adapter says none" in silent_words.origin
    assert "0 is ham, 1 is spam, 2 is urgent" in str(silent_words)
    assert head_rows({}, tmp_path, CLASSES, ORDER).origin == "--classes"
    named(tmp_path, {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"})
    assert head_rows({}, tmp_path, CLASSES).classes == CLASSES  # names that say nothing
    named(tmp_path, {"0": "no", "1": "yes", "2": "perhaps"})
    assert head_rows({}, tmp_path, CLASSES, ORDER).classes == ORDER
    assert "base" in head_rows({}, good, CLASSES).origin


def adopt_imported(
    project: Paths, base_folder: Path, name: str = "theirs", max_length: int = 40, classes=CLASSES
):
    base = load_base(base_folder)
    split = tokenize(base.tokenizer, pd.DataFrame({"Label": [0, 1, 2, 1], "Text": TEXTS}))
    return adopt(
        project.adapter(name),
        load_params(project.params).method(name),
        base,
        classes,
        {"train": split, "validation": split},
        TrainingParams(epochs=1, batch_size=1, seeds=[1], max_length=max_length),
        1,
        CPU,
    )


def test_an_adopted_method_has_one_evaluation_and_costs_nothing(
    project: Paths, base_folder: Path, good: Path
) -> None:
    imported = run_import(project, base_folder, good)
    classifier, row, trained, count = adopt_imported(project, base_folder, max_length=7)
    assert row.step == 0
    assert trained == Trained("lora", imported.settings)
    assert classifier.max_length == 7
    base = load_base(base_folder).network
    assert count.trainable == imported.trainable
    assert count.total == sum(p.numel() for p in base.parameters()) + 3 * 24 + imported.factors
    machine = Machine(CPU, torch.float32, 1)
    cost = cost_figures(0.0, 0, 0, machine)
    assert cost["train_seconds"] == 0.0
    assert {cost[k] for k in cost if k.endswith(("_second", "_bytes"))} == {None}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_changed_or_missing_adapter_is_refused(
    project: Paths, base_folder: Path, good: Path, name: str
) -> None:
    run_import(project, base_folder, good)
    file = project.adapter("theirs") / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match="sha256"):
        adopt_imported(project, base_folder)
    file.unlink()
    with pytest.raises(CheckpointError, match="dvc add inputs/adapters/theirs"):
        adopt_imported(project, base_folder)


def test_another_base_than_at_the_import_is_refused(
    project: Paths, base_folder: Path, good: Path, tmp_path: Path
) -> None:
    run_import(project, base_folder, good)
    gpt = load_base(base_folder).network
    with torch.no_grad():
        gpt.ln_f.bias += 1
    save_base(replace(load_base(base_folder), network=gpt), tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"(?s)base model.*lora-compare import"):
        adopt_imported(project, tmp_path / "other")


def test_an_adapter_that_an_earlier_version_imported_is_to_be_imported_again(
    project: Paths, base_folder: Path, good: Path
) -> None:
    run_import(project, base_folder, good)
    shutil.rmtree(project.adapter("theirs"))
    shutil.copytree(good, project.adapter("theirs"))
    with pytest.raises(CheckpointError, match=r"(?s)earlier version.*lora-compare import FOLDER"):
        adopt_imported(project, base_folder)
