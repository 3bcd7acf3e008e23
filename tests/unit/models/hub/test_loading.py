"""Folders as they really are: with the head of another task, buffers of old, another precision."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lora_compare.compute.seeding import seeded
from lora_compare.errors import CheckpointError
from lora_compare.models.base import load_base, make_base, save_base
from lora_compare.models.hub.folder import check_folder
from lora_compare.models.hub.loading import load_network, load_tokenizer
from lora_compare.params import ClassifierParams, ModelParams
from tiny_models import ARCHITECTURES, make_model

HEADS = {
    "bert": "AutoModelForMaskedLM",
    "roberta": "AutoModelForMaskedLM",
    "distilbert": "AutoModelForMaskedLM",
    "deberta-v2": "AutoModelForMaskedLM",
    "modernbert": "AutoModelForMaskedLM",
    "gpt2": "AutoModelForCausalLM",
    "opt": "AutoModelForCausalLM",
    "gpt_neox": "AutoModelForCausalLM",
    "llama": "AutoModelForCausalLM",
    "t5": "AutoModelForSeq2SeqLM",
    "bart": "AutoModelForSeq2SeqLM",
}
"""What the models of the hub were trained as."""

OLD = {
    "bert": {"embeddings.position_ids": torch.arange(64)[None]},
    "gpt2": {
        "h.0.attn.bias": torch.ones(1, 1, 64, 64),
        "h.1.attn.masked_bias": torch.tensor(-1e4),
    },
    "gpt_neox": {
        "layers.0.attention.bias": torch.ones(1, 1, 64, 64),
        "layers.0.attention.masked_bias": torch.tensor(-1e9),
        "layers.1.attention.rotary_emb.inv_freq": torch.ones(4),
    },
    "llama": {"layers.1.self_attn.rotary_emb.inv_freq": torch.ones(4)},
    "t5": {
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.ones(32, 4)
    },
}
"""Tensors in published checkpoints that older versions of transformers wrote."""


def load(folder: Path, n_classes: int = 2) -> Any:
    facts = check_folder(folder)
    network = load_network(folder, n_classes)
    assert type(network).__name__ == facts.architecture
    load_tokenizer(folder, network.get_input_embeddings().num_embeddings)
    return network


def weights(network: Any) -> dict[str, torch.Tensor]:
    return dict(network.base_model.state_dict())


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_weights_are_those_that_transformers_loads(tmp_path: Path, architecture: str) -> None:
    make_model(tmp_path, architecture)
    network = load(tmp_path, n_classes=5)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert equal(weights(network), weights(theirs))
    assert network.config.num_labels == 5
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert not network.training


@pytest.mark.parametrize("architecture", HEADS)
def test_the_head_of_another_task_is_left_out(tmp_path: Path, architecture: str) -> None:
    make_model(tmp_path, architecture)
    before = weights(load(tmp_path))
    trained = getattr(transformers, HEADS[architecture]).from_pretrained(tmp_path)
    trained.save_pretrained(tmp_path)
    after = weights(load(tmp_path))
    # A masked language model has no pooler, which is random then.
    kept = {name for name in before if "pooler" not in name}
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept)


def test_a_classifier_of_other_classes_is_a_base_too(tmp_path: Path) -> None:
    make_model(tmp_path, "bert")
    before = weights(load(tmp_path))
    labels = {0: "a", 1: "b", 2: "c"}
    trained = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, id2label=labels, label2id={name: number for number, name in labels.items()}
    )
    trained.save_pretrained(tmp_path)
    network = load(tmp_path, n_classes=2)
    assert equal(weights(network), before)
    assert network.classifier.weight.shape == (2, 32)


@pytest.mark.parametrize("architecture", OLD)
def test_what_older_versions_stored_besides_is_ignored(tmp_path: Path, architecture: str) -> None:
    make_model(tmp_path, architecture)
    before = weights(load(tmp_path))
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), **OLD[architecture]}, path, {"format": "pt"})
    assert equal(weights(load(tmp_path)), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_is_loaded_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    make_model(tmp_path, "llama")
    path = tmp_path / "model.safetensors"
    stored = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file(stored, path, {"format": "pt"})
    found = weights(load(tmp_path))
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in stored.items())


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("saved", ["flash_attention_2", "flex_attention", "paged|sdpa", "sdpa"])
@pytest.mark.parametrize(("architecture", "best"), [("llama", "sdpa"), ("deberta-v2", "eager")])
def test_attention_is_computed_by_what_is_here_however_the_model_was_saved(
    tmp_path: Path, key: str, saved: str, architecture: str, best: str
) -> None:
    make_model(tmp_path, architecture)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: saved}))
    assert load(tmp_path).config._attn_implementation == best


def test_many_shards_are_one_model(tmp_path: Path) -> None:
    make_model(tmp_path, "qwen3")
    before = weights(load(tmp_path))
    model = transformers.AutoModel.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(check_folder(tmp_path).weights) > 2
    assert equal(weights(load(tmp_path)), before)


def test_random_weights_repeat_by_seed_and_need_no_file_of_weights(tmp_path: Path) -> None:
    make_model(tmp_path, "bert")
    stored = weights(load(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    check_folder(tmp_path, with_weights=False)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(weights(load_network(tmp_path, 2, with_weights=False)))
    assert equal(drawn[0], drawn[1])
    assert not equal(drawn[0], drawn[2])
    assert not equal(drawn[0], stored)


def test_transformers_own_tokenizer_without_a_vocabulary_is_none(tmp_path: Path) -> None:
    """Where its files are missing it makes an empty one and says nothing."""
    make_model(tmp_path, "bert")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="no fast tokenizer"):
        load_tokenizer(tmp_path, 300)


def test_what_the_files_hold_of_a_head_is_its_start_but_for_the_last_layer(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "inputs/models/mine", "modernbert")
    trained = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        trained.head.norm.weight += 0.5  # as pretraining would
    trained.save_pretrained(folder)
    params = ModelParams(name="inputs/models/mine", weights="pretrained")
    save_base(make_base(params, [], torch.device("cpu"), root=tmp_path), tmp_path / "base")
    base = load_base(tmp_path / "base")
    assert "its head starts with head.dense.weight, head.norm.weight of the files" in base.remarks
    head = ClassifierParams(position="last_token", bias=True)
    own = base.new_classifier(3, head, seed=7).model.state_dict()
    with seeded(7):
        theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=3
        )
    assert torch.equal(own["head.norm.weight"], trained.head.norm.weight)
    assert equal(
        {n: own[n] for n in own if n.startswith("head.")}, theirs.head.state_dict(prefix="head.")
    )
    # The same classes would be taken for those of the file, whatever they are called there.
    theirs.save_pretrained(folder)
    network = load(folder, n_classes=3)
    assert sorted(network.known_head) == ["head.dense.weight", "head.norm.weight"]
