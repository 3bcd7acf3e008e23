"""LoRA beside PEFT on the same network: several AdamW steps from the same start."""

import copy
from dataclasses import dataclass, field
from typing import Any

import peft
import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from torch import Tensor, nn
from torch.nn import functional as F

from lora_compare import lora
from lora_compare.models.gpt.network import GPT, Classifier, GPTConfig, initialise
from lora_compare.params import LoraParams
from lora_settings import lora_settings

from .conftest import Parity

CONFIG = GPTConfig(vocab_size=50, context_length=16, n_layer=2, n_head=2, n_embd=16)
STEPS = 4
RATE, DECAY, RATIO = 0.02, 0.05, 4.0

OURS_ONLY = {"quantization", "loraplus_lr_ratio"}
"""Settings that PEFT takes elsewhere than in LoraConfig."""

CASES: dict[str, dict[str, Any]] = {
    "r=4, lora_alpha=4": {"r": 4, "lora_alpha": 4},
    "r=8, lora_alpha=32": {"r": 8, "lora_alpha": 32},
    "lora_dropout=0.1": {"lora_dropout": 0.1},
    "target_modules: names": {"target_modules": ["q_proj", "mlp.c_proj"]},
    "target_modules: regular expression": {"target_modules": r".*\.1\.attn\.[qv]_proj"},
    "target_modules: q and v only, r=16": {"r": 16, "target_modules": ["q_proj", "v_proj"]},
    "target_modules: feed-forward only": {"target_modules": ["c_fc", "mlp.c_proj"]},
    "exclude_modules: names": {"exclude_modules": ["score", "attn.c_proj"]},
    "exclude_modules: regular expression": {"exclude_modules": r"gpt\.h\.0\..*"},
    "bias=all": {"bias": "all"},
    "bias=lora_only": {"bias": "lora_only", "target_modules": ["q_proj", "c_fc"]},
    "use_rslora": {"use_rslora": True, "r": 4, "lora_alpha": 8},
    "use_dora": {"use_dora": True},
    "use_dora, lora_dropout=0.1": {"use_dora": True, "lora_dropout": 0.1},
    "layers_to_transform": {"layers_to_transform": [1], "target_modules": ["q_proj", "c_fc"]},
    "rank_pattern": {"rank_pattern": {"q_proj": 5, r"h\.1\.mlp\.c_fc": 3}},
    "alpha_pattern": {"alpha_pattern": {"attn.c_proj": 16.0, "score": 2.0}},
    "modules_to_save": {"modules_to_save": ["score", "ln_f"]},
    "init_lora_weights=gaussian": {"init_lora_weights": "gaussian"},
    "init_lora_weights=pissa": {"init_lora_weights": "pissa"},
    "init_lora_weights=olora": {"init_lora_weights": "olora"},
    "use_dora, init_lora_weights=pissa": {"use_dora": True, "init_lora_weights": "pissa"},
    "embeddings": {"target_modules": ["wte", "wpe", "q_proj"]},
    "embeddings, use_dora": {"target_modules": ["wte", "q_proj"], "use_dora": True},
    "loraplus_lr_ratio": {"loraplus_lr_ratio": RATIO},
    "all at once": {
        "r": 4,
        "lora_dropout": 0.05,
        "bias": "lora_only",
        "use_rslora": True,
        "use_dora": True,
        "modules_to_save": ["score"],
        "rank_pattern": {"c_fc": 2},
        "alpha_pattern": {"v_proj": 3.0},
        "layers_to_transform": 0,
        "target_modules": ["q_proj", "v_proj", "c_fc"],
    },
}


def classifier() -> Classifier:
    torch.manual_seed(0)
    model = Classifier(initialise(GPT(CONFIG)), 2, "last_token")
    with torch.no_grad():  # biases and norms that start at 0 and 1 would hide mistakes
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(CONFIG.vocab_size, (6, 9), generator=generator)
    lengths = torch.randint(1, 10, (6,), generator=generator)
    return tokens, lengths, torch.randint(2, (6,), generator=generator)


@dataclass
class Run:
    """What a training left: the loss of every step, and the logits after the last."""

    losses: list[float] = field(default_factory=list)
    logits: Tensor | None = None


def run(model: nn.Module, optimizer: torch.optim.Optimizer) -> Run:
    result = Run()
    model.train()
    for step in range(STEPS):
        tokens, lengths, labels = batch(step)
        torch.manual_seed(step)  # the same dropout masks
        loss = F.cross_entropy(model(tokens, lengths), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        result.losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        result.logits = model(*batch(STEPS)[:2])
    return result


def adapted_by_peft(settings: LoraParams, model: Classifier) -> nn.Module:
    """Return PEFT's model over `model`, in float32 as its own initialisation demands."""
    values = settings.model_dump(exclude=OURS_ONLY)
    if settings.modules_to_save is None:
        values.pop("modules_to_save")
    return peft.get_peft_model(model, peft.LoraConfig(**values))


def give_the_same_start(ours: nn.Module, theirs: nn.Module) -> None:
    """Copy our starting factors, and what PiSSA and OLoRA take out of W, into PEFT's layers.

    Args:
        ours: The model with our adapters.
        theirs: The model inside PEFT's, which has the same paths.
    """
    with torch.no_grad():
        for path, layer in lora.adapted_layers(ours):
            adapter, other = layer.adapters["default"], theirs.get_submodule(path)
            if isinstance(layer.base_layer, nn.Embedding):
                other.lora_embedding_A["default"].copy_(adapter.lora_A)
                other.lora_embedding_B["default"].copy_(adapter.lora_B)
            else:
                other.lora_A["default"].weight.copy_(adapter.lora_A)
                other.lora_B["default"].weight.copy_(adapter.lora_B)
            if adapter.initial_A is not None:
                rest = layer.weight - adapter.scale * adapter.initial_B @ adapter.initial_A
                weight = other.base_layer.weight
                weight.copy_(rest.T if lora.is_conv1d(layer.base_layer) else rest)
            if adapter.lora_magnitude is not None:
                other.lora_magnitude_vector["default"].weight.copy_(adapter.lora_magnitude)


def optimizers(
    settings: LoraParams, ours: nn.Module, theirs: nn.Module
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    ratio = settings.loraplus_lr_ratio
    own = torch.optim.AdamW(lora.parameter_groups(ours, RATE, DECAY, ratio))
    if ratio is None:
        trained = [p for p in theirs.parameters() if p.requires_grad]
        return own, torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    return own, create_loraplus_optimizer(
        theirs,
        torch.optim.AdamW,
        lr=RATE,
        loraplus_lr_ratio=ratio,
        loraplus_weight_decay=DECAY,
    )


def largest_difference(ours: Run, theirs: Run) -> float:
    losses = max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True))
    return max(losses, float((ours.logits - theirs.logits).abs().max()))


@pytest.mark.parametrize("case", CASES)
def test_training_equals_that_of_peft(case: str, parity: Parity) -> None:
    settings = lora_settings(**CASES[case])
    if settings.init_lora_weights in ("pissa", "olora"):
        settings = settings.model_copy(update={"exclude_modules": ["score"]})
    ours, theirs = classifier(), classifier()
    theirs = adapted_by_peft(settings, theirs).double()
    paths = lora.inject(ours.double(), settings)
    give_the_same_start(ours, theirs.base_model.model)
    before = lora.count(ours)
    inner = theirs.base_model.model
    assert paths == [
        n for n, m in inner.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)
    ]
    assert before.trainable == theirs.get_nb_trainable_parameters()[0]
    own, other = optimizers(settings, ours, theirs)
    first, second = run(ours, own), run(theirs, other)
    assert first.losses[0] != first.losses[-1]
    with torch.no_grad():
        merged = lora.merge_and_unload(ours)(*batch(STEPS)[:2])
        expected = theirs.merge_and_unload()(*batch(STEPS)[:2])
    difference = max(largest_difference(first, second), float((merged - expected).abs().max()))
    parity(f"{case}: losses, logits, merged logits, float64", "PEFT", 1e-9, difference)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_factors_taken_from_the_weight_equal_those_of_peft(start: str, parity: Parity) -> None:
    settings = lora_settings(r=4, init_lora_weights=start, exclude_modules=["score"])
    ours = classifier()
    theirs = adapted_by_peft(settings, classifier()).base_model.model
    lora.inject(ours, settings)
    difference = 0.0
    for path, layer in lora.adapted_layers(ours):
        adapter, other = layer.adapters["default"], theirs.get_submodule(path)
        for mine, its in ((adapter.lora_A, other.lora_A), (adapter.lora_B, other.lora_B)):
            apart = (mine - its["default"].weight).detach().abs().max()
            difference = max(difference, float(apart))
    parity(f"init_lora_weights={start}: A and B, float32", "PEFT", 1e-6, difference)


def test_a_base_in_four_bit_trains_as_that_of_peft(parity: Parity) -> None:
    settings = lora_settings(r=4, exclude_modules=["score"], quantization="nf4")
    ours = classifier()
    lora.quantize(ours, keep=["score"])
    theirs = copy.deepcopy(ours)
    theirs.is_loaded_in_4bit = True
    theirs = adapted_by_peft(settings, theirs)
    lora.inject(ours, settings)
    give_the_same_start(ours, theirs.base_model.model)
    assert lora.count(ours).trainable == theirs.get_nb_trainable_parameters()[0]
    own, other = optimizers(settings, ours, theirs)
    difference = largest_difference(run(ours, own), run(theirs, other))
    parity("quantization=nf4: losses and logits, float32", "PEFT, bitsandbytes", 1e-5, difference)


def test_steps_are_big_enough_to_tell_two_settings_apart() -> None:
    """The tolerance means something only if a wrong scale or start would show."""

    def trained(**changes: object) -> Run:
        model = classifier().double()
        torch.manual_seed(5)
        lora.inject(model, lora_settings(**changes))
        return run(model, torch.optim.AdamW(lora.parameter_groups(model, RATE, DECAY, None)))

    plain = trained(r=4, lora_alpha=8)
    for changes in ({"use_rslora": True}, {"use_dora": True}, {"bias": "all"}):
        assert largest_difference(plain, trained(r=4, lora_alpha=8, **changes)) > 1e-4
