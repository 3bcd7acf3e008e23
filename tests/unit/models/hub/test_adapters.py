"""Adapters on every architecture: trained, saved, loaded, merged, in 4 bit, and refused."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("transformers")

from lora_compare import lora
from lora_compare.compute.device import Machine
from lora_compare.errors import ParamsError
from lora_compare.evaluation.merging import merge_error
from lora_compare.models.base import Base, load_base
from lora_compare.models.classifier import TextClassifier, predict_logits, untuned
from lora_compare.models.hub.network import HubClassifier
from lora_compare.models.hub.shape import load_shape, shape_at_hand
from lora_compare.models.methods import (
    Trained,
    adapt,
    architecture,
    architecture_of,
    load_method,
    save_method,
)
from lora_compare.params import (
    LoraParams,
    MethodParams,
    Params,
    TrainingParams,
    parse_params,
    require_fit,
)
from lora_compare.project.files import sha256
from lora_compare.training.finetuning import Training, finetune
from lora_settings import lora_settings
from tiny_bases import (
    CLASSES,
    CPU,
    EVERY,
    HEAD,
    NAME,
    SEED,
    TEXTS,
    examples,
    load,
    model_params,
    project,
)
from tiny_models import ARCHITECTURES

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora with dropout": {"use_dora": True, "lora_dropout": 0.1, "bias": "lora_only"},
    "qlora": {"quantization": "nf4"},
}
FAST = [
    pytest.param(name, marks=[] if name == "gpt2" else [pytest.mark.slow]) for name in ARCHITECTURES
]
SOME = [kind if kind == "lora" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


def trained(base: Base, settings: LoraParams) -> TextClassifier:
    shared = TrainingParams(epochs=1, batch_size=4, seeds=[SEED], max_length=32)
    method = MethodParams(trainable="lora", learning_rate=1e-2, weight_decay=0.1, lora=settings)
    splits = {"train": examples(base), "validation": examples(base).take(range(4))}
    torch.manual_seed(SEED)  # of dropout, as `train_one` has it
    machine = Machine(CPU, torch.float32, 1)
    training = Training("seed", method, SEED, shared)
    return finetune(base, CLASSES, splits, HEAD, training, machine)[0]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", SOME)
def test_an_adapter_trains_to_the_same_bytes_and_is_all_that_is_saved(
    name: str, kind: str, root: Path, tmp_path: Path
) -> None:
    folder, settings = project(name, root) / "base", lora_settings(**KINDS[kind])
    bases = [load_base(folder) for _ in range(2)]
    results = [trained(base, settings) for base in bases]
    for place, result, base in zip("ab", results, bases, strict=True):
        save_method(tmp_path / place, result, Trained("lora", settings), SEED, base)
    assert sha256(tmp_path / "a/model.safetensors") == sha256(tmp_path / "b/model.safetensors")
    saved, model = load_file(tmp_path / "a/model.safetensors"), results[0].model
    in_head = {
        f"{path}.{name}"
        for path in model.head
        for name, _ in model.get_submodule(path).named_parameters()
    }
    assert in_head < saved.keys()
    adapters = {"lora_A", "lora_B", "lora_magnitude", "bias"}
    assert {key.split(".")[-1] for key in saved.keys() - in_head} <= adapters
    loaded, wanted = load_method(tmp_path / "a", load_base(folder)), results[0].probabilities(TEXTS)
    assert np.array_equal(loaded.probabilities(TEXTS), wanted)
    start = untuned(load_base(folder), CLASSES, HEAD, SEED).probabilities(TEXTS)
    assert not np.allclose(start, wanted, atol=1e-3)


@pytest.mark.parametrize("name", FAST)
def test_merging_changes_no_answer_and_taking_off_gives_the_base_back(
    name: str, root: Path
) -> None:
    settings = lora_settings(r=4, lora_alpha=8)
    base = load(name, root)
    before = {key: tensor.clone() for key, tensor in base.state().items()}
    classifier = trained(base, settings)
    bare = copy.deepcopy(classifier)
    assert merge_error(classifier, examples(base))["float32"] < 1e-4
    lora.unload(bare.model)
    assert isinstance(bare.model, HubClassifier)
    after = bare.model.model.base_model.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


@pytest.mark.parametrize("name", FAST)
def test_a_base_in_four_bit_computes_with_its_rounded_weights(name: str, root: Path) -> None:
    packed = untuned(load(name, root), CLASSES, HEAD, SEED)
    plain = copy.deepcopy(packed)
    data, _ = packed.fit(examples(load(name, root)))
    exact = predict_logits(plain.model, data)
    paths = lora.quantize(packed.model, keep=packed.model.head)
    assert paths
    assert not [path for path in paths if path.startswith(packed.model.head)]
    plain.model.load_state_dict(lora.bare_state_dict(packed.model))
    rounded = predict_logits(packed.model, data)
    assert not np.allclose(rounded, exact, atol=1e-4)
    np.testing.assert_allclose(rounded, predict_logits(plain.model, data), rtol=0, atol=1e-4)


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    (
        "bert",
        {"target_modules": ["q_proj"]},
        "target_modules: no module is called q_proj; expected some of dense, key, query, value; "
        "embeddings: position_embeddings, token_type_embeddings, word_embeddings, not q_proj",
    ),
    (
        "t5",
        {"target_modules": ["query"]},
        "target_modules: no module is called query; expected some of k, o, q, v, wi, wo; "
        "embeddings: embed_tokens, relative_attention_bias, shared, not query",
    ),
    (
        "gpt2",
        {"target_modules": ["q_proj"]},
        "target_modules: no module is called q_proj; expected some of c_attn, c_fc, c_proj; "
        "embeddings: wpe, wte, not q_proj",
    ),
    (
        "bert",
        {"target_modules": ["query"], "layers_to_transform": [1, 2]},
        "layers_to_transform: there are no such blocks with a targeted layer; expected 0, 1, not 2",
    ),
    (
        "t5",
        {"target_modules": ["q"], "r": 33},
        "r: the rank is larger than the layer "
        "model.transformer.encoder.block.0.layer.0.SelfAttention.q; expected at most 32, not 33",
    ),
]


@pytest.mark.parametrize(("name", "changes", "expected"), MISTAKES)
def test_settings_that_do_not_fit_are_refused_before_anything_trains(
    name: str, changes: dict[str, Any], expected: str, root: Path
) -> None:
    found = project(name, root)
    shape = shape_at_hand(model_params(), found)
    assert shape is not None
    assert all(parameter.is_meta for parameter in shape.parameters())
    params = with_lora(lora_settings(**changes))
    for network in (architecture(shape), architecture_of(found / "base")):
        with pytest.raises(ParamsError) as caught:
            require_fit(params, 3, network)
        assert caught.value.where == f"methods.lora.lora.{expected}"
    require_fit(with_lora(lora_settings(target_modules="all-linear")), 3, architecture(shape))


def with_lora(settings: LoraParams) -> Params:
    recipe = Path(__file__).parents[4] / "recipes" / "quick.yaml"
    params = parse_params(recipe.read_text(encoding="utf-8"))
    method = params.method("lora").model_copy(update={"lora": settings})
    return params.model_copy(update={"methods": {"lora": method}, "model": model_params()})


def test_one_table_of_embeddings_in_three_places_is_not_adapted(root: Path) -> None:
    model = untuned(load("t5", root), CLASSES, HEAD, SEED).model
    with pytest.raises(ParamsError, match=r"shared shares its weight with .*embed_tokens"):
        adapt(model, lora_settings(target_modules=["embed_tokens", "q"]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", ["layer.0", "layer.1"]),
        ("gpt2", ["h.0", "h.1"]),
        ("llama", ["layers.0", "layers.1"]),
        ("t5", ["encoder.block.0", "decoder.block.1"]),
    ],
)
def test_blocks_have_the_index_that_they_have_in_transformers(
    name: str, expected: list[str], root: Path
) -> None:
    found = architecture(load_shape(project(name, root) / NAME))
    for index, inside in enumerate(expected):
        settings = lora_settings(target_modules="default", layers_to_transform=index)
        paths = found.choose(settings).adapted
        assert paths
        assert any(f".{inside}." in path for path in paths)
        assert not [path for path in paths if f"{inside[:-1]}{1 - index}." in path]


HEADS = {
    "distilbert": {"pre_classifier", "classifier"},
    "modernbert": {"head", "classifier"},
    "deberta-v2": {"pooler", "classifier"},
    "t5": {"classification_head"},
    "bart": {"classification_head"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_head_is_all_that_is_not_the_base(name: str, root: Path) -> None:
    head = {path.removeprefix("model.") for path in load_shape(project(name, root) / NAME).head}
    plain = {"score"} if "classifier" not in head else {"classifier"}
    assert head == HEADS.get(name, plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_saved_embedding_is_trained_and_loaded(name: str, root: Path, tmp_path: Path) -> None:
    table = {"bert": "word_embeddings", "llama": "embed_tokens"}[name]
    settings = lora_settings(modules_to_save=[table], target_modules="default")
    folder = project(name, root) / "base"
    base = load_base(folder)
    classifier = trained(base, settings)
    save_method(tmp_path / "m", classifier, Trained("lora", settings), SEED, base)
    saved = load_file(tmp_path / "m/model.safetensors")
    (key,) = (key for key in saved if key.endswith(f"{table}.weight"))
    start = untuned(load_base(folder), CLASSES, HEAD, SEED).model.state_dict()[key]
    assert saved[key].shape == start.shape
    assert not torch.equal(saved[key], start)
    loaded = load_method(tmp_path / "m", load_base(folder))
    assert np.array_equal(loaded.probabilities(TEXTS), classifier.probabilities(TEXTS))
