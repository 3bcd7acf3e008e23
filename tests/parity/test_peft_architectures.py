"""LoRA beside PEFT on other architectures: several AdamW steps from the same start."""

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from lora_compare import lora
from lora_compare.errors import ParamsError
from lora_compare.params import DEFAULT_TARGETS, LoraParams, customary
from lora_settings import lora_settings
from tiny_models import ARCHITECTURES, make_model

from .conftest import Parity
from .test_peft import give_the_same_start

# PEFT asks transformers by an older name.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
    # A classifier has no output layer to which an embedding could be tied.
    pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`"),
]

STEPS, RATE, DECAY = 4, 0.02, 0.05

HEADS = {"t5": "classification_head", "bart": "classification_head"}
"""Heads that PEFT does not know by their name."""

OURS_ONLY = {"quantization", "loraplus_lr_ratio"}
"""Settings that PEFT takes elsewhere than in LoraConfig."""

EVERYWHERE: dict[str, dict[str, Any]] = {
    "default": {},
    "use_dora, bias=lora_only": {"use_dora": True, "bias": "lora_only"},
    "all-linear, r=4": {"target_modules": "all-linear", "r": 4, "lora_alpha": 8},
    "lora_dropout=0.1": {"lora_dropout": 0.1},
    "use_dora, use_rslora, lora_dropout=0.1": {
        "use_dora": True,
        "use_rslora": True,
        "lora_dropout": 0.1,
    },
    "init_lora_weights=pissa": {"init_lora_weights": "pissa"},
    "init_lora_weights=olora": {"init_lora_weights": "olora"},
    "layers_to_transform": {"layers_to_transform": [1]},
}

QUICK = [(name, "default") for name in ("bert", "llama", "t5")] + [
    ("gpt2", "use_dora, bias=lora_only")
]

NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "c_attn and c_proj": (
        "gpt2",
        {
            "r": 8,
            "lora_alpha": 32,
            "lora_dropout": 0.1,
            "target_modules": ["c_attn", "c_proj"],
            "bias": "all",
        },
    ),
    "embeddings": ("gpt2", {"target_modules": ["wte", "wpe", "c_fc"]}),
    "embeddings and query": ("bert", {"target_modules": ["word_embeddings", "query"]}),
    "embeddings that are scaled": ("gemma", {"target_modules": ["embed_tokens", "q_proj"]}),
    "names": ("modernbert", {"target_modules": ["Wqkv", "Wo", "Wi"]}),
    "regular expression": (
        "bert",
        {"target_modules": r"bert\.encoder\.layer\.1\.attention\.self\.(query|key)"},
    ),
}

CASES = [
    *(
        pytest.param(name, case, settings, marks=[] if (name, case) in QUICK else pytest.mark.slow)
        for name in ("bert", "llama", "t5", "gpt2")
        for case, settings in EVERYWHERE.items()
    ),
    *(
        pytest.param(name, case, settings, marks=pytest.mark.slow)
        for case, (name, settings) in NAMED.items()
    ),
]


def classifier(folder: Path, architecture: str) -> PreTrainedModel:
    if not folder.exists():
        make_model(folder, architecture)
    torch.manual_seed(0)  # of the head
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", pad_token_id=0
    )
    # Dropout of the model's own would have to draw the same numbers as theirs.
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():  # biases that start at 0 would hide mistakes
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def heads(model: PreTrainedModel) -> list[str]:
    found = ("score", "classifier", "classification_head")
    return [name for name, _ in model.named_children() if name in found]


def batch(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(10, 90, (6, 9), generator=generator)
    ids[:, -1] = 1  # T5 looks for its last token, and wants one in every text
    mask = torch.ones_like(ids)
    labels = torch.randint(2, (6,), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def adapted_by_peft(settings: LoraParams, model: PreTrainedModel) -> nn.Module:
    values = settings.model_dump(exclude=OURS_ONLY)
    if values["target_modules"] == "default":
        values["target_modules"] = None
    name = HEADS.get(model.config.model_type)
    values["modules_to_save"] = [name] if name else None
    if settings.init_lora_weights == "olora":
        # PEFT's is not made for weights that are stored transposed; the start is copied anyway.
        values["init_lora_weights"] = True
    values["fan_in_fan_out"] = any(map(lora.is_conv1d, model.modules()))
    return peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", **values))


def adapted_paths(model: nn.Module) -> list[str]:
    layers = peft.tuners.lora.LoraLayer
    return [path for path, module in model.named_modules() if isinstance(module, layers)]


def largest_difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


def run(model: nn.Module) -> tuple[list[float], Tensor]:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    losses = []
    model.train()
    for step in range(STEPS):
        torch.manual_seed(step)  # the same dropout masks
        loss = model(**batch(step)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, logits(model)


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    model.eval()
    result: Tensor = model(**batch(STEPS)).logits
    return result


@pytest.mark.parametrize(("name", "case", "changes"), CASES)
def test_training_equals_that_of_peft(
    name: str, case: str, changes: dict[str, Any], tmp_path: Path, parity: Parity
) -> None:
    settings = lora_settings(**{"target_modules": "default", **changes})
    ours = classifier(tmp_path / "model", name).double()
    theirs = adapted_by_peft(settings, classifier(tmp_path / "model", name)).double()
    paths = lora.inject(ours, customary(settings, name, heads(ours)))
    inner = theirs.base_model.model
    give_the_same_start(ours, inner)
    assert paths == adapted_paths(inner)
    assert lora.count(ours).trainable == theirs.get_nb_trainable_parameters()[0]
    (first, own), (second, other) = run(ours), run(theirs)
    assert first[0] != first[-1]
    differences = [abs(a - b) for a, b in zip(first, second, strict=True)]
    differences.append(largest_difference(own, other))
    merged = logits(lora.merge_and_unload(ours)), logits(theirs.merge_and_unload())
    differences.append(largest_difference(*merged))
    what = f"{name}, {case}: losses, logits, merged logits, float64"
    parity(what, "PEFT", 1e-9, max(differences))


# T5's layer `wo` stays as it is in either; GPT-2's Conv1D becomes a Linear layer in 4 bit.
@pytest.mark.parametrize(
    "name", ["gpt2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("bert", "t5"))]
)
def test_a_base_in_four_bit_trains_as_that_of_peft(
    name: str, tmp_path: Path, parity: Parity
) -> None:
    settings = lora_settings(target_modules="default", quantization="nf4", r=4)
    ours = classifier(tmp_path / "model", name)
    linear = set(lora.quantize(ours, keep=heads(ours)))
    assert bool([path for path in linear if path.endswith(".wo")]) is False
    theirs = copy.deepcopy(ours)
    theirs.is_loaded_in_4bit = True
    theirs = adapted_by_peft(settings, theirs)
    lora.inject(ours, customary(settings, name, heads(ours)))
    give_the_same_start(ours, theirs.base_model.model)
    (first, own), (second, other) = run(ours), run(theirs)
    differences = [abs(a - b) for a, b in zip(first, second, strict=True)]
    what = f"{name}, quantization=nf4: losses and logits, float32"
    difference = max(*differences, largest_difference(own, other))
    parity(what, "PEFT, bitsandbytes", 1e-5, difference)


def test_a_conv1d_in_four_bit_becomes_one_again(tmp_path: Path) -> None:
    model = classifier(tmp_path / "model", "gpt2")
    plain = copy.deepcopy(model)
    paths = lora.quantize(model, keep=heads(model))
    assert len(paths) == 8
    rounded = lora.bare_state_dict(model)
    assert {n: t.shape for n, t in rounded.items()} == {
        n: t.shape for n, t in plain.state_dict().items()
    }
    before = logits(model)
    plain.load_state_dict(rounded)
    torch.testing.assert_close(logits(plain), before)
    lora.inject(model, lora_settings(target_modules=["c_attn", "c_fc"], use_dora=True))
    run(model)
    adapted = logits(model)
    merged = lora.merge_and_unload(model)
    assert lora.is_conv1d(merged.transformer.h[0].attn.c_attn)
    torch.testing.assert_close(logits(merged), adapted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(adapted, before, atol=1e-3)


def test_default_targets_are_those_of_peft() -> None:
    assert DEFAULT_TARGETS == TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("word", ["default", "all-linear"])
def test_words_for_layers_mean_what_they_mean_to_peft(name: str, word: str) -> None:
    ours, theirs = shapes(name), shapes(name)
    settings = lora_settings(target_modules=word)
    customs = customary(settings, name, heads(ours))
    if word == "default" and name not in DEFAULT_TARGETS:
        with pytest.raises(ParamsError, match=r"(?s)no default .*all-linear, or some of"):
            lora.inject(ours, customs)
        with pytest.raises(ValueError, match="Please specify `target_modules`"):
            adapted_by_peft(settings, theirs)
        return
    paths = lora.inject(ours, customs)
    if name == "distilbert":
        # PEFT takes `pre_classifier` for a head, as it ends like one, and adapts it as well.
        with pytest.raises(TypeError, match="modules_to_save cannot be applied"):
            adapted_by_peft(settings, theirs)
        return
    assert paths == adapted_paths(adapted_by_peft(settings, theirs).base_model.model)


def shapes(name: str, **config: Any) -> PreTrainedModel:
    """Return a classifier without memory for its weights, by default a tiny one."""
    tiny = {**ARCHITECTURES[name].config, "vocab_size": 100, "pad_token_id": 0}
    with torch.device("meta"):
        shape = AutoConfig.for_model(name, **(config or tiny))
        return AutoModelForSequenceClassification.from_config(shape)


OPT_350M = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "ffn_dim": 4096,
    "word_embed_proj_dim": 512,
    "do_layer_norm_before": False,
}
"""Source: config.json of facebook/opt-350m."""


def test_opt_350m_has_the_published_counts() -> None:
    """Of a notebook in which PEFT adapted it, its embedding included, without a head."""
    settings = lora_settings(r=16, target_modules=["q_proj", "v_proj", "embed_tokens"])
    model = shapes("opt", **OPT_350M)
    lora.inject(model.model, settings)
    assert str(lora.count(model.model)) == (
        "trainable params: 2,385,408 || all params: 333,581,824 || trainable%: 0.7151"
    )
    classifier = shapes("opt", **OPT_350M)
    lora.inject(classifier, customary(settings, "opt", heads(classifier)))
    head = 2 * 512
    assert lora.count(classifier) == lora.Count(2_385_408 + head, 333_581_824 + head)


@pytest.mark.parametrize(
    ("name", "changes", "trained"),
    [
        ("t5", {"r": 8, "lora_alpha": 16, "target_modules": ["q", "v"]}, 294_912),
        ("gpt2", {"r": 8, "lora_alpha": 32, "target_modules": ["c_attn", "c_proj"]}, 811_008),
    ],
)
def test_small_models_have_pefts_counts(name: str, changes: dict[str, Any], trained: int) -> None:
    """T5 small's and GPT-2's shapes are the defaults of their configurations."""
    settings = lora_settings(lora_dropout=0.1, **changes)
    ours, theirs = shapes(name, num_labels=2), shapes(name, num_labels=2)
    lora.inject(ours, settings)
    values = {**settings.model_dump(exclude=OURS_ONLY), "fan_in_fan_out": name == "gpt2"}
    adapted = peft.get_peft_model(theirs, peft.LoraConfig(**values))
    assert lora.count(ours) == lora.Count(*adapted.get_nb_trainable_parameters())
    assert lora.count(ours).trainable == trained
