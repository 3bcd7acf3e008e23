"""Classifiers of transformers, exported and imported: logits in float32."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers

from hub_models import (
    CLASSES,
    TEXTS,
    logits,
    make_hub_base,
    make_hub_source,
    padded,
    reference_logits,
)
from interchange import difference
from lora_compare import lora
from lora_compare.compute.seeding import seeded
from lora_compare.exchange.export import export
from lora_compare.exchange.imported import HEADS, SEED, build
from lora_compare.exchange.kinds import counterpart_of
from lora_compare.exchange.peft.config import read_adapter
from lora_compare.exchange.peft.reading import from_peft
from lora_compare.models.base import load_base
from lora_compare.models.classifier import untuned
from lora_compare.params import LoraParams
from lora_settings import lora_settings

from .conftest import Parity

pytestmark = [
    pytest.mark.filterwarnings(
        # PEFT reads a property of transformers by its old name.
        "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
    ),
]

ARCHITECTURES = ["bert", "llama", "t5", "gpt2"]
MORE = ["roberta", "distilbert", "deberta-v2", "modernbert", "bart", "opt", "gemma"]
TOLERANCE = 1e-5

ADAPTERS: dict[str, LoraParams] = {
    "default": lora_settings(target_modules="default", r=3),
    "all-linear": lora_settings(target_modules="all-linear", use_rslora=True, bias="lora_only"),
    "DoRA": lora_settings(target_modules="all-linear", use_dora=True, layers_to_transform=[1]),
    "PiSSA": lora_settings(target_modules="default", init_lora_weights="pissa", r=2, bias="all"),
}


def first_fast(cases: Iterable[str]) -> list[Any]:
    """Return cases of which all but the first are run by `make test-slow` alone."""
    first, *others = cases
    return [first, *(pytest.param(case, marks=pytest.mark.slow) for case in others)]


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("projects")
    for architecture in (*ARCHITECTURES, *MORE):
        make_hub_base(folder / architecture, architecture)
    return {name: folder / name for name in (*ARCHITECTURES, *MORE)}


def load_with_peft(folder: Path) -> Any:
    settings = json.loads((folder / "adapter_config.json").read_text())
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder / "base", num_labels=len(CLASSES), use_safetensors=True
    )
    assert settings["base_model_name_or_path"] == f"{folder.as_posix()}/base"
    return peft.PeftModel.from_pretrained(base, folder)


@pytest.mark.parametrize("setting", first_fast(ADAPTERS))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_peft_computes_the_exported_adapters_logits(
    projects: dict[str, Path], tmp_path: Path, architecture: str, setting: str, parity: Parity
) -> None:
    source = make_hub_source(projects[architecture], ADAPTERS[setting])
    export(source, "peft", tmp_path)
    expected = logits(source.classifier)
    with lora.disabled(source.classifier.model):
        assert difference(logits(source.classifier), expected) > 0.02  # the adapter matters
    model = load_with_peft(tmp_path)
    measured = difference(reference_logits(model, source.classifier), expected)
    parity(f"{architecture}, {setting}", "PEFT", TOLERANCE, measured)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", MORE)
def test_peft_computes_the_logits_of_more_architectures(
    projects: dict[str, Path], tmp_path: Path, architecture: str, parity: Parity
) -> None:
    source = make_hub_source(projects[architecture], lora_settings(target_modules="all-linear"))
    export(source, "peft", tmp_path)
    model = load_with_peft(tmp_path)
    measured = difference(reference_logits(model, source.classifier), logits(source.classifier))
    parity(architecture, "PEFT", TOLERANCE, measured)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["bert", "gpt2", "t5"])
def test_a_model_that_was_trained_in_4_bit_is_exact_when_merged(
    tmp_path: Path, architecture: str, parity: Parity
) -> None:
    # The kernels for 4 bit on a CPU need widths that are multiples of 64.
    widths: dict[str, dict[str, int]] = {
        "bert": {"hidden_size": 64, "intermediate_size": 128},
        "gpt2": {"n_embd": 64},
        "t5": {"d_model": 64, "d_kv": 16, "d_ff": 128},
    }
    make_hub_base(tmp_path, architecture, **widths[architecture])
    settings = lora_settings(target_modules="all-linear", quantization="nf4")
    source = make_hub_source(tmp_path, settings)
    expected = logits(source.classifier)
    export(source, "merged", tmp_path / "merged")
    merged = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    measured = difference(reference_logits(merged, source.classifier), expected)
    parity(f"{architecture}, QLoRA, merged", "transformers", TOLERANCE, measured)
    assert "4 bit" in export(source, "peft", tmp_path / "peft")
    adapted = reference_logits(load_with_peft(tmp_path / "peft"), source.classifier)
    assert 1e-4 < difference(adapted, expected) < 1  # on the full weights


@pytest.mark.parametrize("trainable", first_fast(["lora", "all", "head", "last_block"]))
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "roberta"])
def test_the_pipeline_of_transformers_gives_the_merged_models_probabilities(
    projects: dict[str, Path], tmp_path: Path, architecture: str, trainable: str, parity: Parity
) -> None:
    settings = ADAPTERS["DoRA"] if trainable == "lora" else None
    source = make_hub_source(projects[architecture], settings, trainable)
    export(source, "merged", tmp_path)
    _, found = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    classify = transformers.pipeline("text-classification", model=str(tmp_path), device="cpu")
    texts = [*TEXTS, " ".join(TEXTS * 9)]  # the last one is too long
    scores = [
        [{row["label"]: row["score"] for row in rows}[name] for name in CLASSES]
        for rows in classify(texts, top_k=None, truncation=True, batch_size=len(texts))
    ]
    measured = float(abs(np.array(scores) - source.classifier.probabilities(texts)).max())
    parity(f"{architecture}, {trainable}: text to probabilities", "transformers", 1e-5, measured)


CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "DoRA, rsLoRA, ranks": {
        "use_dora": True,
        "use_rslora": True,
    },
    "all linear layers, biases": {"target_modules": "all-linear", "bias": "all"},
}


FIRST = {
    "bert": "query",
    "roberta": "query",
    "llama": "q_proj",
    "t5": "q",
    "gpt2": "c_attn",
    "distilbert": "q_lin",
}
"""An adapted layer of each architecture."""

OF_ARCHITECTURE: dict[str, dict[str, Any]] = {
    "t5": {"modules_to_save": ["classification_head"]},  # PEFT knows only `classifier` and `score`
    "distilbert": {"target_modules": ["q_lin", "v_lin"]},  # for which PEFT has no default
    "gpt2": {"fan_in_fan_out": True},
}


def train_with_peft(project: Path, folder: Path, architecture: str, **settings: Any) -> Any:
    """Train an adapter with PEFT for some steps, save it to `folder` and return the model."""
    plain: dict[str, Any] = {"r": 4, "lora_alpha": 8, "task_type": "SEQ_CLS"}
    plain |= OF_ARCHITECTURE.get(architecture, {})
    if settings.get("use_rslora"):
        plain["rank_pattern"] = {FIRST[architecture]: 2}
    with seeded(5):
        base = transformers.AutoModelForSequenceClassification.from_pretrained(
            project / "inputs" / "models" / architecture, num_labels=len(CLASSES)
        )
        bare = untuned(load_base(project / "models/base"), CLASSES, HEADS["hub"], 1)
        base.config.pad_token_id = bare.tokenizer.pad
        adapted = peft.get_peft_model(base, peft.LoraConfig(**{**plain, **settings}))
        optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], 0.02)
        for _ in range(4):
            optimizer.zero_grad()
            adapted.train()(**padded(bare), labels=torch.tensor([0, 1, 2, 1])).loss.backward()
            optimizer.step()
    adapted.save_pretrained(folder)
    return adapted


@pytest.mark.parametrize("setting", first_fast(CASES))
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "roberta", "distilbert"])
def test_an_imported_adapter_has_pefts_logits_and_counts(
    projects: dict[str, Path], tmp_path: Path, architecture: str, setting: str, parity: Parity
) -> None:
    if architecture == "distilbert" and "target_modules" in CASES[setting]:
        pytest.skip("PEFT itself cannot save a head of which it has adapted a layer")
    project = projects[architecture]
    theirs = train_with_peft(project, tmp_path, architecture, **CASES[setting])
    bare = untuned(load_base(project / "models" / "base"), CLASSES, HEADS["hub"], SEED)
    layout = counterpart_of(bare, {}).layout
    converted = from_peft(read_adapter(tmp_path), layout, CLASSES)
    ours = build(converted, bare)
    expected = reference_logits(theirs, ours)
    with lora.disabled(ours.model):
        assert difference(logits(ours), expected) > 0.02  # training mattered
    measured = difference(logits(ours), expected)
    parity(f"{architecture}, {setting}, imported", "PEFT", TOLERANCE, measured)
    lora.merge(ours.model)
    measured = difference(logits(ours), expected)
    parity(f"{architecture}, {setting}, imported and merged", "PEFT", TOLERANCE, measured)
    assert converted.trainable == theirs.get_nb_trainable_parameters()[0]
