"""The type of the arithmetic: chosen by device, what weights are held in, what is trained."""

import pytest
import torch

from lora_compare.compute.precision import (
    choose_precision,
    has_fast_bfloat16,
    lower_frozen,
    trained_in_float32,
)
from lora_compare.lora import inject
from lora_compare.models.gpt.network import GPT, Classifier, GPTConfig, initialise
from lora_settings import lora_settings

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"avx2": True, "avx512_f": True}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"neon": True}, torch.float32),
    ],
)
def test_auto_takes_bfloat16_only_where_a_cpu_has_it(
    known: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert choose_precision("auto", CPU, 768) == expected
    assert choose_precision("auto", CPU, 128) == torch.float32
    assert choose_precision("float32", CPU, 768) == torch.float32
    assert choose_precision("bfloat16", CPU, 128) == torch.bfloat16


def test_auto_is_float32_on_other_devices_without_a_measurement() -> None:
    assert not has_fast_bfloat16(torch.device("mps"))


NAMES = ("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""The Linear layers of a block."""


def classifier() -> Classifier:
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=40, context_length=8, n_layer=1, n_head=2, n_embd=8)
    return Classifier(initialise(GPT(config)), 2, "last_token")


def lowered(model: Classifier) -> set[str]:
    return {n for n, p in model.named_parameters() if p.dtype == torch.bfloat16}


def test_only_frozen_weights_of_linear_layers_are_lowered() -> None:
    model = classifier()
    inject(model, lora_settings(bias="lora_only"))
    lower_frozen(model, torch.bfloat16, keep=(model.score,))
    assert lowered(model) == {f"gpt.h.0.{name}.base_layer.weight" for name in NAMES}
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}


def test_trained_weights_of_linear_layers_are_lowered_and_come_back_as_their_masters() -> None:
    model = classifier()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def fail_in_the_block() -> None:
        with trained_in_float32(model, torch.bfloat16, keep=(model.score,)) as masters:
            assert lowered(model) == {f"gpt.h.0.{name}.weight" for name in NAMES}
            for weight, master in masters.items():
                assert torch.equal(weight, master.bfloat16())
                master.data += 1e-4  # too little for bfloat16 to hold
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_the_block()
    for name, parameter in model.named_parameters():
        moved = any(name == f"gpt.h.0.{layer}.weight" for layer in NAMES)
        assert torch.equal(parameter, before[name] + 1e-4 * moved), name
        assert parameter.requires_grad


def test_masters_are_of_trained_weights_in_bfloat16_alone() -> None:
    model = classifier()
    with trained_in_float32(model, torch.float32) as masters:
        assert not masters
        assert not lowered(model)
    inject(model, lora_settings())
    with trained_in_float32(model, torch.bfloat16, keep=(model.score,)) as masters:
        assert not masters
        assert not lowered(model)
