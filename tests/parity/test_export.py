"""Exports in PEFT, transformers and ONNX Runtime: logits in float32."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import peft
import pytest
import transformers

from interchange import (
    CLASSES,
    SMALL,
    TEXTS,
    difference,
    logits,
    make_small_base,
    make_source,
    padded_tokens,
    reference_logits,
)
from lora_compare import lora
from lora_compare.exchange.export import Source, export
from lora_compare.exchange.usage import EXAMPLE
from lora_compare.models.answers.targets import ONE_CLASS
from lora_compare.models.gpt.network import GPTConfig
from lora_compare.params import LoraParams
from lora_settings import lora_settings

from .conftest import Parity

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        # PEFT reads a property of transformers by its old name.
        "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
    ),
]


TOLERANCE = 1e-5

ADAPTERS: dict[str, LoraParams] = {
    "all-linear": lora_settings(r=3),
    "q and v only": lora_settings(target_modules=["q_proj", "v_proj"]),
    "ranks of q, k, v, a block and a layer": lora_settings(
        rank_pattern={"q_proj": 4, "k_proj": 1, "h.0.mlp.c_fc": 5}
    ),
    "scales of q, k, v": lora_settings(alpha_pattern={"q_proj": 3.5, "v_proj": 1}),
    "one block": lora_settings(layers_to_transform=[1], target_modules=["c_attn", "c_fc"]),
    "rsLoRA": lora_settings(use_rslora=True, rank_pattern={"k_proj": 3}),
    "DoRA": lora_settings(use_dora=True),
    "DoRA, q only": lora_settings(use_dora=True, target_modules=["q_proj", "mlp.c_proj"]),
    "PiSSA": lora_settings(init_lora_weights="pissa", exclude_modules=["score"]),
    "OLoRA with DoRA": lora_settings(
        init_lora_weights="olora", exclude_modules=["score"], use_dora=True
    ),
    "embeddings": lora_settings(target_modules=["wte", "wpe", "c_attn"]),
    "embeddings with DoRA": lora_settings(target_modules=["wte", "c_fc"], use_dora=True),
    "all biases": lora_settings(bias="all", target_modules=["c_attn", "attn.c_proj"]),
    "biases of adapted layers": lora_settings(bias="lora_only", target_modules=["q_proj", "score"]),
    "modules in full": lora_settings(
        target_modules=["c_attn", "mlp.c_proj"],
        modules_to_save=["score", "ln_1", "c_fc", "wpe"],
        bias="all",
    ),
    "k in full beside q and v": lora_settings(
        target_modules=["q_proj", "v_proj", "c_fc"], modules_to_save=["k_proj"]
    ),
}


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    make_small_base(folder)
    return folder


def load_with_peft(folder: Path) -> Any:
    base = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "base")
    return peft.PeftModel.from_pretrained(base, folder)


def check_peft(source: Source, folder: Path, setting: str, parity: Parity) -> None:
    export(source, "peft", folder)
    expected = logits(source.classifier)
    with lora.disabled(source.classifier.model):
        assert difference(logits(source.classifier), expected) > 0.02  # the adapter matters
    model = load_with_peft(folder)
    unmerged = difference(reference_logits(model, source.classifier), expected)
    parity(f"adapter: {setting}", "PEFT", TOLERANCE, unmerged)
    merged = difference(reference_logits(model.merge_and_unload(), source.classifier), expected)
    parity(f"adapter, merged by PEFT: {setting}", "PEFT", TOLERANCE, merged)


@pytest.mark.parametrize("setting", ADAPTERS)
def test_peft_computes_the_exported_adapters_logits(
    base_folder: Path, tmp_path: Path, setting: str, parity: Parity
) -> None:
    source = make_source(base_folder, ADAPTERS[setting])
    check_peft(source, tmp_path / "export", setting, parity)


def test_a_head_without_bias_leaves_the_last_norm_alone(
    base_folder: Path, tmp_path: Path, parity: Parity
) -> None:
    source = make_source(base_folder, ADAPTERS["all-linear"], bias=False)
    check_peft(source, tmp_path, "head without bias", parity)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] == [
        "score"
    ]


def test_at_the_width_of_gpt2_small(tmp_path: Path, parity: Parity) -> None:
    make_small_base(tmp_path / "base", GPTConfig(SMALL.vocab_size, 64, 2, 12, 768))
    settings = lora_settings(r=16, lora_alpha=16, rank_pattern={"v_proj": 8})
    source = make_source(tmp_path / "base", settings)
    check_peft(source, tmp_path / "export", "two blocks of gpt2-small", parity)


def test_an_adapter_of_a_4_bit_base_is_exact_when_merged_and_warns_of_the_full_weights(
    tmp_path: Path, parity: Parity
) -> None:
    # The kernels for 4 bit on a CPU need widths that are multiples of 64.
    make_small_base(tmp_path / "base", GPTConfig(SMALL.vocab_size, 40, 2, 4, 128))
    source = make_source(tmp_path / "base", lora_settings(quantization="nf4"))
    expected = logits(source.classifier)
    export(source, "merged", tmp_path / "merged")
    merged = load_merged(tmp_path / "merged")
    measured = difference(reference_logits(merged, source.classifier), expected)
    parity("merged model: QLoRA", "transformers", TOLERANCE, measured)
    assert "4 bit" in export(source, "peft", tmp_path / "peft")
    adapted = reference_logits(load_with_peft(tmp_path / "peft"), source.classifier)
    assert 1e-3 < difference(adapted, expected) < 1


def load_merged(folder: Path) -> Any:
    model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model


@pytest.mark.parametrize(
    ("setting", "settings", "bias"),
    [
        ("full fine-tuning", None, True),
        ("full fine-tuning without bias", None, False),
        ("LoRA", ADAPTERS["modules in full"], True),
        ("DoRA", ADAPTERS["embeddings with DoRA"], True),
    ],
)
def test_transformers_computes_the_merged_models_logits(
    base_folder: Path,
    tmp_path: Path,
    parity: Parity,
    setting: str,
    settings: LoraParams | None,
    bias: bool,
) -> None:
    source = make_source(base_folder, settings, bias=bias)
    export(source, "merged", tmp_path)
    model = load_merged(tmp_path)
    assert model.config.id2label == dict(enumerate(CLASSES))
    measured = difference(reference_logits(model, source.classifier), logits(source.classifier))
    parity(f"merged model: {setting}", "transformers", 1e-5, measured)


def test_the_pipeline_of_transformers_classifies_raw_text(
    base_folder: Path, tmp_path: Path, parity: Parity
) -> None:
    source = make_source(base_folder, ADAPTERS["all-linear"])
    export(source, "merged", tmp_path)
    classify = transformers.pipeline("text-classification", model=str(tmp_path), device="cpu")
    scores = [
        [{row["label"]: row["score"] for row in rows}[name] for name in CLASSES]
        for rows in classify(TEXTS, top_k=None)
    ]
    measured = float(abs(np.array(scores) - source.classifier.probabilities(TEXTS)).max())
    parity("merged model: text to probabilities", "transformers", 1e-5, measured)


@pytest.mark.parametrize(
    ("position", "settings"),
    [("last_token", ADAPTERS["PiSSA"]), ("mean", ADAPTERS["DoRA"]), ("last_position", None)],
)
def test_onnxruntime_computes_the_merged_models_logits(
    base_folder: Path,
    tmp_path: Path,
    parity: Parity,
    position: str,
    settings: LoraParams | None,
) -> None:
    source = make_source(base_folder, settings, position=position)
    export(source, "onnx", tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    tokens, lengths = (tensor.numpy() for tensor in padded_tokens(source.classifier))
    expected = logits(source.classifier)
    for rows in ([1], range(len(tokens))):
        columns = len(tokens[0]) if source.classifier.padding.length else lengths[rows].max()
        inputs = {"tokens": tokens[rows, :columns], "lengths": lengths[rows]}
        measured = difference(session.run(None, inputs)[0], expected[rows])
        setting = f"ONNX: {position}, batch of {len(rows)}"
        parity(setting, "onnxruntime", TOLERANCE, measured)


@pytest.mark.parametrize("kind", ["peft", "merged", "onnx"])
def test_the_printed_lines_run(
    base_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parity: Parity,
    kind: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    source = make_source(base_folder, ADAPTERS["all-linear"])
    lines = export(source, kind, Path("exports/m"))
    assert lines in (tmp_path / "exports/m/README.md").read_text()
    names: dict[str, Any] = {}
    with redirect_stdout(io.StringIO()) as output:
        exec(lines, names)
    if kind == "merged":
        scores = [row["score"] for row in names["classify"](EXAMPLE, top_k=None, truncation=True)]
        assert str(max(scores)) in output.getvalue()
    elif kind == "peft":
        scores = names["model"](**names["inputs"]).logits.softmax(dim=-1)[0].tolist()
    else:
        logits = names["session"].run(None, names["inputs"])[0].astype(float)
        scores = ONE_CLASS.probabilities(logits)[0].tolist()
    (expected,) = source.classifier.probabilities([EXAMPLE])
    measured = float(abs(np.sort(scores) - np.sort(expected)).max())
    reference = {"peft": "PEFT", "merged": "transformers", "onnx": "onnxruntime"}[kind]
    parity(f"printed lines, {kind}: probabilities", reference, TOLERANCE, measured)
