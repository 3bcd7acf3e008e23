"""The numbers of published notebooks and articles, and their plain formulation."""

from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from benchmarks.notebook import LinearWithLoRA, NotebookGPT, notebook_name
from lora_compare import lora
from lora_compare.compute.precision import computing_in
from lora_compare.models.batches import Examples, collate
from lora_compare.models.classifier import Padding, predict_logits
from lora_compare.models.gpt.network import CONFIGS, GPT, Classifier, GPTConfig, initialise
from lora_compare.models.gpt.tokenizer import encode_all, gpt2_encoding
from lora_compare.models.methods import adapt
from lora_compare.training.ranks.steps import optimizer_step
from lora_settings import lora_settings

from .conftest import Parity

PADDED = 120
"""Tokens of the longest training message of the notebook."""

SHAPE = GPTConfig(vocab_size=1000, context_length=128, n_layer=2, n_head=4, n_embd=128)

METHODS = [("lora", 8e-4), ("full", 5e-5)]
"""The notebook's methods with its learning rates."""

# PEFT still asks for a property that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def made_up_messages(n: int) -> Examples:
    """Return texts as long as SMS messages, the last of full length."""
    random = np.random.default_rng(0)
    lengths = [*random.integers(3, 60, n - 1), PADDED]
    tokens = [random.integers(0, SHAPE.vocab_size - 1, length) for length in lengths]
    return Examples(tokens, np.arange(n) % 2)


def pair(shape: GPTConfig, method: str) -> tuple[Classifier, NotebookGPT]:
    """Return our classifier and the notebook's network with the same weights."""
    torch.manual_seed(0)
    ours = Classifier(initialise(GPT(shape)), 2, "last_position")
    theirs = NotebookGPT(
        shape.vocab_size, shape.context_length, shape.n_layer, shape.n_head, shape.n_embd, 2
    )
    state = {notebook_name(n): t.clone() for n, t in ours.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert all(name.endswith("future") for name in missing)
    assert not unexpected
    if method == "lora":
        adapt(ours, lora_settings(r=16, lora_alpha=16))
        theirs.requires_grad_(False)
        for path, layer in lora.adapted_layers(ours):
            name, adapter = notebook_name(path), layer.adapters["default"]
            linear = theirs.get_submodule(name)
            pieces = (adapter.lora_A.T.detach(), adapter.lora_B.T.detach())
            theirs.set_submodule(name, LinearWithLoRA(linear, *pieces, alpha=16))
    return ours, theirs


def step_by_step(shape: GPTConfig, method: str, rate: float, data: Examples) -> float:
    """Train both on the same batches and return the largest difference of a step's losses."""
    ours, theirs = pair(shape, method)
    mine = [p for p in ours.parameters() if p.requires_grad]
    its = [p for p in theirs.parameters() if p.requires_grad]
    assert sum(p.numel() for p in mine) == sum(p.numel() for p in its)
    own = torch.optim.AdamW(lora.parameter_groups(ours, rate, 0.1, None), fused=True)
    other = torch.optim.AdamW(its, lr=rate, weight_decay=0.1)
    losses = []
    padding = Padding(shape.vocab_size - 1, PADDED)
    padded = Examples([padding.pad(tokens) for tokens in data.tokens], data.labels)
    for first in range(0, len(data), 8):
        batch = collate(padded.take(range(first, first + 8)))
        tokens = batch.texts.tokens.view(-1, PADDED)
        loss = F.cross_entropy(theirs(tokens)[:, -1, :], batch.labels)
        other.zero_grad()
        loss.backward()
        other.step()
        losses.append((optimizer_step(ours, [batch], own).item(), loss.item()))
    assert abs(losses[0][1] - losses[-1][1]) > 1e-3
    return max(abs(a - b) for a, b in losses)


@pytest.mark.parametrize(("method", "rate"), METHODS)
def test_losses_equal_those_of_the_notebooks_formulation(
    method: str, rate: float, parity: Parity
) -> None:
    difference = step_by_step(SHAPE, method, rate, made_up_messages(40))
    setting = f"{method}, padded to {PADDED}, last position: losses of 5 steps, float32"
    parity(setting, "the notebook's formulation", 1e-5, difference)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(("method", "rate"), METHODS)
def test_losses_of_gpt2_small_on_real_messages_equal_those_of_the_notebook(
    method: str, rate: float, parity: Parity, assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(assets / "tiktoken_cache"))
    lines = (assets / "sms" / "SMSSpamCollection").read_text(encoding="utf-8").splitlines()[:24]
    labels = np.array([line.startswith("spam") for line in lines], dtype=np.int64)
    tokens, _ = encode_all(gpt2_encoding(), [line.split("\t", 1)[1] for line in lines], PADDED)
    difference = step_by_step(CONFIGS["gpt2-small"], method, rate, Examples(tokens, labels))
    setting = f"{method}, gpt2-small, real messages: losses of 3 steps, float32"
    parity(setting, "the notebook's formulation", 1e-5, difference)


class TwoLayers(nn.Module):
    """An embedding and two Linear layers, as an introduction to LoRA shows them."""

    def __init__(self, vocabulary: int = 10_000, width: int = 512) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.linear1 = nn.Linear(width, width)
        self.linear2 = nn.Linear(width, vocabulary)


def test_two_layers_with_their_biases_train_56656_of_10512656_parameters() -> None:
    model = TwoLayers()
    assert lora.count(model).trainable == 10_512_656
    lora.inject(model, lora_settings(r=4, lora_alpha=16, bias="lora_only"))
    assert lora.count(model).trainable == 56_656


def opt_350m() -> transformers.OPTForCausalLM:
    """Return OPT-350M's network, its shape as published with its checkpoint, without weights."""
    config = transformers.OPTConfig(
        vocab_size=50_272,
        hidden_size=1024,
        word_embed_proj_dim=512,
        ffn_dim=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        do_layer_norm_before=False,
    )
    with torch.device("meta"):
        return transformers.OPTForCausalLM(config)


def test_opt_350m_trains_as_many_parameters_as_with_peft() -> None:
    settings = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05}
    targets = ["q_proj", "v_proj", "embed_tokens"]
    line = "trainable params: 2,385,408 || all params: 333,581,824 || trainable%: 0.7151"
    ours, theirs = opt_350m(), opt_350m()
    assert lora.count(ours).trainable == 331_196_416
    with torch.device("meta"):
        lora.inject(ours, lora_settings(**settings, target_modules=targets))
        config = peft.LoraConfig(**settings, target_modules=targets, task_type="CAUSAL_LM")
        with pytest.warns(UserWarning, match="tied"):
            theirs = peft.get_peft_model(theirs, config)
    assert str(lora.count(ours)) == line
    assert theirs.get_nb_trainable_parameters() == (2_385_408, 333_581_824)


def test_unload_gives_back_the_same_opt_with_its_own_layers() -> None:
    model = opt_350m()
    layers = dict(model.named_modules())
    with torch.device("meta"):
        lora.inject(model, lora_settings(target_modules=["q_proj", "v_proj", "embed_tokens"]))
    assert dict(model.named_modules()).keys() != layers.keys()
    assert lora.unload(model) is model
    assert dict(model.named_modules()) == layers


def small_meta() -> Classifier:
    with torch.device("meta"):
        return Classifier(GPT(CONFIGS["gpt2-small"]), 2, "last_token")


def trained(**settings: object) -> int:
    model = small_meta()
    with torch.device("meta"):
        adapt(model, lora_settings(**settings))
    return lora.count(model).trainable


def test_c_attn_and_c_proj_at_rank_8_are_three_adapters_where_peft_has_one() -> None:
    """PEFT's one adapter on c_attn shares A among query, key and value; ours does not."""
    config = transformers.GPT2Config()
    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(config)
        theirs = peft.get_peft_model(
            model,
            peft.LoraConfig(
                r=8,
                lora_alpha=32,
                lora_dropout=0.1,
                target_modules=["c_attn", "c_proj"],
                fan_in_fan_out=True,
            ),
        )
    assert theirs.get_nb_trainable_parameters()[0] == 811_008
    ours = trained(r=8, lora_alpha=32, lora_dropout=0.1, target_modules=["c_attn", "c_proj"])
    assert ours == 811_008 + 12 * 2 * 8 * 768


@pytest.mark.parametrize("r", [4, 8, 16])
def test_ranks_on_query_and_value_or_on_the_feed_forward_alone_count_by_formula(r: int) -> None:
    assert trained(r=r, target_modules=["q_proj", "v_proj"]) == 12 * 2 * r * (768 + 768)
    assert trained(r=r, target_modules=["c_fc", "mlp.c_proj"]) == 12 * 2 * r * (768 + 3072)


@pytest.mark.parametrize("changes", [{}, {"use_dora": True}, {"init_lora_weights": "pissa"}])
def test_mixed_precision_trains_as_float32_does(changes: dict[str, object], parity: Parity) -> None:
    config = GPTConfig(vocab_size=60, context_length=16, n_layer=2, n_head=2, n_embd=32)
    random = np.random.default_rng(1)
    data = Examples([random.integers(0, 59, 9) for _ in range(16)], np.arange(16) % 2)
    batch = collate(data)

    def losses(mixed: bool) -> tuple[list[float], Classifier]:
        torch.manual_seed(0)
        model = Classifier(initialise(GPT(config)), 2, "last_token")
        adapt(model, lora_settings(r=8, lora_alpha=16, exclude_modules=["score"], **changes))
        optimizer = torch.optim.AdamW(lora.parameter_groups(model, 5e-3, 0.0, None))
        found = []
        for _ in range(15):
            with computing_in(torch.bfloat16 if mixed else torch.float32, torch.device("cpu")):
                logits = model.of_packed(batch.texts)
            loss = F.cross_entropy(logits, batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found, model

    exact, _ = losses(mixed=False)
    rounded, model = losses(mixed=True)
    assert exact[-1] < 0.9 * exact[0]
    assert all(p.dtype == torch.float32 for p in model.parameters())
    difference = max(abs(a - b) for a, b in zip(exact, rounded, strict=True))
    name = ", ".join(f"{k}={v}" for k, v in changes.items()) or "plain LoRA"
    parity(
        f"{name}: losses of 15 steps in bfloat16 autocast", "the same in float32", 5e-2, difference
    )
    half = predict_logits(model, data, dtype=torch.bfloat16)
    whole = predict_logits(model, data)
    parity(f"{name}: logits in bfloat16", "the same in float32", 5e-2, abs(half - whole).max())
