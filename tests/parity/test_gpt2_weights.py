"""GPT-2 checkpoints as transformers writes them: the same network in our names."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_compare.compute.seeding import seeded
from lora_compare.models.gpt.base import greedy
from lora_compare.models.gpt.network import GPT, GPTConfig
from lora_compare.models.gpt.weights import gpt2_state_dict, load_gpt2_state
from lora_compare.models.weights import save_state

from .conftest import Parity

LANGUAGE_MODEL = "transformers GPT2LMHeadModel"

# The head width of 8 and the four-fold MLP keep the real sizes' ratios; three heads of odd
# number, so that a mixed-up head or channel cannot land in its own place.
CONFIG = GPTConfig(vocab_size=97, context_length=20, n_layer=3, n_head=3, n_embd=24)


@pytest.fixture(scope="module")
def reference() -> Any:
    """A GPT-2 of transformers in which every parameter, norms and biases too, is random."""
    config = transformers.GPT2Config(
        vocab_size=CONFIG.vocab_size,
        n_positions=CONFIG.context_length,
        n_embd=CONFIG.n_embd,
        n_layer=CONFIG.n_layer,
        n_head=CONFIG.n_head,
        bos_token_id=96,
        eos_token_id=96,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    with seeded(1), torch.no_grad():
        for name, parameter in model.named_parameters():
            # Biases as large would drown the tokens, and every text would repeat one.
            parameter.normal_(std=0.05 if name.endswith("bias") else 0.3)
            if "ln_" in name and name.endswith("weight"):
                parameter.add_(1)
    return model


@pytest.fixture(scope="module")
def checkpoint(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    reference.save_pretrained(folder)
    return folder / "model.safetensors"


def ours(path: Path, dtype: torch.dtype) -> GPT:
    gpt = GPT(CONFIG)
    gpt.load_state_dict(load_gpt2_state(path, CONFIG))
    return gpt.to(dtype).eval()


def tokens() -> Tensor:
    with seeded(2):
        return torch.randint(CONFIG.vocab_size, (4, CONFIG.context_length))


def largest_difference(gpt: GPT, reference: Any, dtype: torch.dtype) -> tuple[float, float]:
    """Return the largest difference of hidden states and logits, relative to the largest value."""
    with torch.no_grad():
        expected = reference.to(dtype)(tokens(), output_hidden_states=True)
        hidden = gpt(tokens())
        logits = gpt.next_token_logits(hidden)
    reference.float()
    last = expected.hidden_states[-1]
    return (
        float((hidden - last).abs().max() / last.abs().max()),
        float((logits - expected.logits).abs().max() / expected.logits.abs().max()),
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_hidden_states_and_logits_equal_those_of_transformers(
    reference: Any, checkpoint: Path, parity: Parity, dtype: torch.dtype, tolerance: float
) -> None:
    hidden, logits = largest_difference(ours(checkpoint, dtype), reference, dtype)
    name = str(dtype).removeprefix("torch.")
    parity(f"3 layers of width 24: hidden states, {name}", LANGUAGE_MODEL, tolerance, hidden)
    parity(f"3 layers of width 24: logits, {name}", LANGUAGE_MODEL, tolerance, logits)


def test_greedy_text_is_that_of_transformers(
    reference: Any, checkpoint: Path, parity: Parity
) -> None:
    prompts = tokens()[:, :6]
    theirs = reference.double().generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=False,
        min_new_tokens=14,
        max_new_tokens=14,
    )
    reference.float()
    differing = (greedy(ours(checkpoint, torch.float64), prompts, 14) != theirs).sum()
    parity("greedy text of 4 prompts: differing tokens", LANGUAGE_MODEL, 0, int(differing))


@pytest.mark.parametrize("layer", ["attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.c_proj"])
def test_one_square_matrix_left_transposed_is_seen(
    reference: Any, checkpoint: Path, layer: str
) -> None:
    gpt = ours(checkpoint, torch.float64)
    weight = gpt.get_parameter(f"h.1.{layer}.weight")
    with torch.no_grad():
        weight.copy_(weight.T.clone())
    assert min(largest_difference(gpt, reference, torch.float64)) > 1e-3


def test_published_layout_without_prefix_and_with_masks_loads_the_same(
    reference: Any, checkpoint: Path, tmp_path: Path
) -> None:
    """The files of `openai-community/gpt2` have no prefix, and a mask in every block."""
    published = {
        name.removeprefix("transformer."): tensor for name, tensor in load_file(checkpoint).items()
    }
    mask = torch.ones(1, 1, CONFIG.context_length, CONFIG.context_length).tril()
    for index in range(CONFIG.n_layer):
        published[f"h.{index}.attn.bias"] = mask.clone()
    path = tmp_path / "model.safetensors"
    save_file(published, path, {"format": "pt"})
    expected = load_gpt2_state(checkpoint, CONFIG)
    actual = load_gpt2_state(path, CONFIG)
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())
    assert actual.keys() == expected.keys()


def test_transformers_reads_back_what_we_write(
    reference: Any, checkpoint: Path, tmp_path: Path
) -> None:
    stored = gpt2_state_dict(load_gpt2_state(checkpoint, CONFIG))
    save_state(tmp_path / "model.safetensors", stored, {"format": "pt"})
    reference.config.save_pretrained(tmp_path)
    model, info = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, tensor in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
