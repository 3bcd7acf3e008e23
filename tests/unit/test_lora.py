"""LoRA: sizes, starting point, training, merging, and parity with PEFT."""

import copy

import pytest
import torch
from torch import nn

from lora_compare.errors import ParamsError
from lora_compare.gpt import CONFIGS, GPT, Classifier
from lora_compare.lora import LoRALinear, inject, linear_names, merge_and_unload

# By formula, r = 16 on every Linear layer and the head: Hu et al. 2021, section 4.2.
WITH_HEAD = {
    "gpt2-small": 2_666_528,
    "gpt2-medium": 7_094_304,
    "gpt2-large": 13_291_552,
    "gpt2-xl": 22_144_032,
}


def small_model() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8, bias=False), nn.Tanh(), nn.Linear(8, 2)]
    return nn.Sequential(*layers).double()


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def train_a_little(model: nn.Module, steps: int = 5) -> list[float]:
    torch.manual_seed(1)
    x, y = torch.randn(32, 6).double(), torch.randint(0, 2, (32,))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("name", "parameters"), WITH_HEAD.items())
def test_adapters_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = Classifier(GPT(CONFIGS[name]), 2, "last_token")
        model.requires_grad_(False)
        assert trainable(model) == 0
        inject(model, r=16, lora_alpha=16)
    assert trainable(model) == parameters


def test_without_the_head_gpt2_small_trains_2654208_parameters() -> None:
    with torch.device("meta"):
        gpt = GPT(CONFIGS["gpt2-small"])
        inject(gpt, r=16, lora_alpha=16)
    assert trainable(gpt) == 2_654_208


def test_the_adapted_model_starts_from_exactly_the_same_outputs() -> None:
    model = small_model()
    x = torch.randn(4, 6).double()
    before = model(x)
    inject(model, r=2, lora_alpha=4)
    assert torch.equal(model(x), before)


def test_training_leaves_the_frozen_weights_as_they_were() -> None:
    model = small_model()
    frozen = copy.deepcopy(model.state_dict())
    inject(model, r=2, lora_alpha=4)
    losses = train_a_little(model)
    assert losses[-1] < losses[0]
    for index in (0, 2, 4):
        assert torch.equal(model[index].linear.weight, frozen[f"{index}.weight"])


def test_merged_layer_computes_what_the_adapter_does() -> None:
    model = small_model()
    inject(model, r=2, lora_alpha=4)
    train_a_little(model)
    x = torch.randn(16, 6).double()
    adapted = model(x)
    merged = merge_and_unload(model)
    assert merged is model
    assert not any(isinstance(m, LoRALinear) for m in model.modules())
    torch.testing.assert_close(model(x), adapted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
@pytest.mark.parametrize("targets", ["all-linear", ["0", "4"]])
def test_losses_equal_those_of_peft(bias: str, targets: str | list[str]) -> None:
    import peft

    ours, theirs = small_model(), small_model()
    names = inject(ours, r=3, lora_alpha=6, target_modules=targets, bias=bias)
    assert names == (["0", "2", "4"] if targets == "all-linear" else targets)
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=names, bias=bias)
    theirs = peft.get_peft_model(theirs, config)
    for name in names:
        layer, other = ours.get_submodule(name), theirs.base_model.model.get_submodule(name)
        with torch.no_grad():
            other.lora_A["default"].weight.copy_(layer.lora_A)
    assert trainable(ours) == trainable(theirs)
    expected = train_a_little(theirs)
    assert train_a_little(ours) == pytest.approx(expected, rel=0, abs=1e-9)


def test_initial_adapters_have_pefts_bound() -> None:
    layer = LoRALinear(nn.Linear(400, 10), r=8, lora_alpha=8, lora_dropout=0.0)
    assert layer.lora_A.abs().max().item() == pytest.approx(400**-0.5, rel=0.01)
    assert layer.lora_B.abs().max() == 0


def test_dropout_acts_on_the_adapters_input_while_training_only() -> None:
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(50, 4), r=2, lora_alpha=2, lora_dropout=0.5)
    nn.init.normal_(layer.lora_B)
    x = torch.randn(3, 50)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_the_scale_is_alpha_over_r() -> None:
    assert LoRALinear(nn.Linear(8, 8), r=4, lora_alpha=16, lora_dropout=0.0).scale == 4.0


def test_an_unknown_target_is_refused_with_the_names_there_are() -> None:
    model = Classifier(GPT(CONFIGS["gpt2-nano"]), 2, "last_token")
    with pytest.raises(ParamsError, match=r"c_fc, c_proj, k_proj, q_proj, score, v_proj"):
        inject(model, r=2, lora_alpha=2, target_modules=["c_attn"])
    assert trainable(model) == sum(p.numel() for p in model.parameters())


def test_a_rank_larger_than_the_layer_is_refused_and_nothing_is_changed() -> None:
    model = small_model()
    with pytest.raises(ParamsError, match="rank is larger"):
        inject(model, r=9, lora_alpha=9)
    assert linear_names(model) == ["0", "2", "4"]
    assert not any(isinstance(m, LoRALinear) for m in model.modules())
