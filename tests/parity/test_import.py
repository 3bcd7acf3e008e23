"""Adapters that PEFT trained, imported: logits in float32."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from interchange import (
    CLASSES,
    difference,
    logits,
    make_classifier,
    make_small_base,
    make_source,
    padded_tokens,
    reference_logits,
)
from lora_compare import lora
from lora_compare.compute.seeding import seeded
from lora_compare.exchange.export import export
from lora_compare.exchange.imported import HEADS, SEED, build
from lora_compare.exchange.peft.config import read_adapter
from lora_compare.exchange.peft.gpt import GPTLayout
from lora_compare.exchange.peft.reading import Imported, from_peft
from lora_compare.exchange.peft.writing import to_peft
from lora_compare.exchange.transformers import model_config
from lora_compare.models.base import load_base
from lora_compare.models.classifier import TextClassifier, untuned
from lora_compare.models.gpt.weights import gpt2_state_dict
from lora_settings import lora_settings

from .conftest import Parity

pytestmark = pytest.mark.filterwarnings(
    # PEFT reads a property of transformers by its old name.
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)


LINEAR = ["c_attn", "c_proj", "c_fc"]

CASES: dict[str, dict[str, Any]] = {
    "c_attn": {"target_modules": ["c_attn"]},
    "all linear layers": {"target_modules": "all-linear", "lora_dropout": 0.1},
    "rsLoRA": {"target_modules": LINEAR, "use_rslora": True},
    "DoRA": {"target_modules": LINEAR, "use_dora": True},
    "rank_pattern, alpha_pattern": {
        "target_modules": LINEAR,
        "rank_pattern": {"h.0.attn.c_attn": 6, "mlp.c_proj": 2},
        "alpha_pattern": {"c_fc": 5, r"transformer\.h\.1\.attn\.c_\w+": 3},
        "use_rslora": True,
    },
    "bias all": {"target_modules": ["c_attn"], "bias": "all"},
    "bias all, ln_f and c_fc in full": {
        "target_modules": ["c_attn"],
        "bias": "all",
        "modules_to_save": ["ln_f", "c_fc"],
    },
    "bias lora_only": {"target_modules": ["c_attn", "mlp.c_proj"], "bias": "lora_only"},
    "bias lora_only, DoRA": {"target_modules": LINEAR, "bias": "lora_only", "use_dora": True},
    "embeddings": {"target_modules": ["wte", "wpe", "c_attn"]},
    "embedding with DoRA": {"target_modules": ["wte", "c_fc"], "use_dora": True},
    "modules in full": {"target_modules": ["c_fc"], "modules_to_save": ["ln_f", "c_attn", "wpe"]},
    "one block by a regular expression": {"target_modules": r".*\.h\.1\..*\.(c_attn|c_proj)"},
    "one block by its index": {"target_modules": ["c_attn"], "layers_to_transform": [1]},
}


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    make_small_base(folder)
    return folder


def train_with_peft(base_folder: Path, folder: Path, **settings: Any) -> Any:
    """Train an adapter with PEFT for some steps, save it to `folder` and return the model."""
    base = load_base(base_folder)
    pad = base.tokenizer.encoding.eot_token
    config = transformers.GPT2Config.from_dict(model_config(base.network.config, CLASSES, pad))
    with seeded(5):
        model = transformers.GPT2ForSequenceClassification(config)
        model.transformer.load_state_dict(gpt2_state_dict(base.network.state_dict()))
        model.score.weight.data.normal_(std=0.2)
        plain = {"r": 4, "lora_alpha": 8, "task_type": "SEQ_CLS", "fan_in_fan_out": True}
        adapted = peft.get_peft_model(model, peft.LoraConfig(**{**plain, **settings}))
        tokens, _ = padded_tokens(make_classifier(base, None))
        optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], 0.02)
        for _ in range(4):
            optimizer.zero_grad()
            adapted.train()(tokens, labels=torch.tensor([0, 1, 2, 1])).loss.backward()
            optimizer.step()
    adapted.save_pretrained(folder)
    return adapted


def imported(base_folder: Path, folder: Path) -> tuple[Imported, TextClassifier]:
    base = load_base(base_folder)
    bare = untuned(base, CLASSES, HEADS["gpt"], SEED)
    layout = GPTLayout(bare.model, base.network.state_dict())
    converted = from_peft(read_adapter(folder), layout, CLASSES)
    return converted, build(converted, bare)


@pytest.mark.parametrize("setting", CASES)
def test_an_imported_adapter_has_pefts_logits_and_counts(
    base_folder: Path, tmp_path: Path, parity: Parity, setting: str
) -> None:
    theirs = train_with_peft(base_folder, tmp_path, **CASES[setting])
    converted, ours = imported(base_folder, tmp_path)
    expected = reference_logits(theirs, ours)
    with lora.disabled(ours.model):
        assert difference(logits(ours), expected) > 0.02  # training mattered
    parity(setting, "PEFT", 1e-5, difference(logits(ours), expected))
    lora.merge(ours.model)
    parity(f"{setting}, merged here", "PEFT", 1e-5, difference(logits(ours), expected))
    assert converted.trainable == theirs.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(
    base_folder: Path, tmp_path: Path, parity: Parity, dtype: torch.dtype
) -> None:
    theirs = train_with_peft(base_folder, tmp_path, target_modules=LINEAR)
    file = tmp_path / "adapter_model.safetensors"
    save_file({k: t.to(dtype) for k, t in load_file(file).items()}, file, {"format": "pt"})
    rounded = {k: t.float() for k, t in load_file(file).items()}
    peft.set_peft_model_state_dict(theirs, rounded)
    _, ours = imported(base_folder, tmp_path)
    measured = difference(logits(ours), reference_logits(theirs, ours))
    parity(f"file in {dtype}".replace("torch.", ""), "PEFT", 1e-5, measured)


def test_pefts_file_comes_back_bit_for_bit(
    base_folder: Path, tmp_path: Path, parity: Parity
) -> None:
    settings = {"target_modules": LINEAR, "bias": "lora_only", "modules_to_save": ["ln_f"]}
    train_with_peft(base_folder, tmp_path, **settings)
    converted, ours = imported(base_folder, tmp_path)
    base = load_base(base_folder)
    again = to_peft(GPTLayout(ours.model, base.network.state_dict()), converted.settings, "")
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert again.tensors.keys() == stored.keys()
    measured = max(float((again.tensors[n] - t).abs().max()) for n, t in stored.items())
    parity("every tensor of PEFT's file, imported and exported again", "PEFT", 0.0, measured)


@pytest.mark.parametrize(
    "settings",
    [
        lora_settings(rank_pattern={"q_proj": 3, "h.1.attn.k_proj": 1}),
        lora_settings(use_dora=True, target_modules=["q_proj", "v_proj", "c_fc"]),
        lora_settings(init_lora_weights="pissa", bias="all", exclude_modules=["score"]),
        lora_settings(target_modules=["wte", "c_attn"], modules_to_save=["k_proj", "ln_2"]),
        lora_settings(use_rslora=True, bias="lora_only", target_modules=["v_proj", "c_proj"]),
    ],
    ids=["ranks", "DoRA", "PiSSA", "modules in full", "rsLoRA"],
)
def test_an_exported_adapter_imports_with_its_own_logits(
    base_folder: Path, tmp_path: Path, settings: Any
) -> None:
    source = make_source(base_folder, settings)
    export(source, "peft", tmp_path)
    _, ours = imported(base_folder, tmp_path)
    assert difference(logits(ours), logits(source.classifier)) < 2e-6
    if settings.rank_pattern:
        ranks = {
            path: len(layer.adapters["default"].lora_A)
            for path, layer in lora.adapted_layers(ours.model)
        }
        assert ranks["gpt.h.0.attn.q_proj"] == ranks["gpt.h.1.attn.q_proj"] == 3
        assert (ranks["gpt.h.0.attn.k_proj"], ranks["gpt.h.1.attn.k_proj"]) == (2, 1)


def test_the_names_of_older_versions_mean_the_same(base_folder: Path, tmp_path: Path) -> None:
    train_with_peft(base_folder, tmp_path, target_modules=["c_attn"], bias="lora_only")
    new = imported(base_folder, tmp_path)[0].tensors
    file, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    stored = load_file(file)
    save_file({k.replace(".base_layer.", "."): t for k, t in stored.items()}, file)
    values = json.loads(config.read_text())
    kept = ("peft_type", "r", "lora_alpha", "bias", "target_modules", "task_type")
    config.write_text(json.dumps({key: values[key] for key in kept}))
    old = imported(base_folder, tmp_path)[0].tensors
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], tensor) for name, tensor in new.items())
