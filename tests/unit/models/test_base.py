"""The model before fine-tuning tells by a continued prompt what weights it has."""

from pathlib import Path

import pytest
import torch

from lora_compare.compute.seeding import seeded
from lora_compare.models.base import load_base, make_base, save_base
from lora_compare.models.gpt import base as base_module
from lora_compare.models.gpt.base import NEW_TOKENS, PUBLISHED_CONTINUATIONS, continuation
from lora_compare.models.gpt.checkpoints import FetchedCheckpoint
from lora_compare.models.gpt.network import GPT, GPTConfig, initialise
from lora_compare.models.gpt.tokenizer import gpt2_encoding, train_encoding
from lora_compare.models.gpt.weights import gpt2_state_dict
from lora_compare.models.weights import save_state
from lora_compare.params import ModelParams, PretrainingParams
from lora_compare.project.files import read_json

CPU = torch.device("cpu")
TEXTS = ["every effort moves the world", "£5 prize, call now"] * 4
NANO = ModelParams(
    name="gpt2-nano",
    weights="random",
    pretraining=PretrainingParams(vocabulary_size=300, steps=1),
)
SMALL = ModelParams(name="gpt2-small", weights="pretrained")


@pytest.fixture
def tiny_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gpt2-small of a few thousand random weights in the place of the published one."""
    encoding = train_encoding(TEXTS, 300)
    config = GPTConfig(encoding.n_vocab, 64, 2, 2, 8)
    with seeded(3):
        stored = gpt2_state_dict(initialise(GPT(config)).state_dict())
    save_state(tmp_path / "model.safetensors", stored)
    fetched = FetchedCheckpoint(tmp_path / "model.safetensors", {"repository": "here"})
    monkeypatch.setitem(base_module.CONFIGS, "gpt2-small", config)
    monkeypatch.setattr(base_module, "gpt2_encoding", lambda: encoding)
    monkeypatch.setattr(base_module, "fetch_checkpoint", lambda name, progress: fetched)


def said_about(model: ModelParams) -> str:
    base = make_base(model, TEXTS, CPU)
    return "\n".join(base.remarks)


def test_config_holds_how_the_model_continues_the_prompt(tmp_path: Path) -> None:
    save_base(make_base(NANO, TEXTS, CPU), tmp_path)
    loaded = load_base(tmp_path)
    text = continuation(loaded.network, loaded.tokenizer.encoding)
    recorded = read_json(tmp_path / "config.json")["continuation"]
    assert recorded == {"prompt": "Every effort moves you", "text": text}


def test_random_weights_are_reported_without_a_verdict() -> None:
    said = said_about(NANO)
    assert said.startswith("'Every effort moves you' goes on with ")
    assert "WRONG" not in said
    assert "\n" not in said


def test_pretrained_weights_that_write_another_text_are_called_wrong(tiny_checkpoint: None) -> None:
    said = said_about(SMALL)
    assert "WRONG" in said
    assert repr(PUBLISHED_CONTINUATIONS["gpt2-small"]) in said


def test_pretrained_weights_that_write_the_published_text_are_not(
    tiny_checkpoint: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = make_base(SMALL, TEXTS, CPU).description["continuation"]["text"]
    monkeypatch.setitem(PUBLISHED_CONTINUATIONS, "gpt2-small", text)
    assert "WRONG" not in said_about(SMALL)


def test_random_weights_of_a_known_size_are_not_called_wrong(tiny_checkpoint: None) -> None:
    assert "WRONG" not in said_about(ModelParams(name="gpt2-small", weights="random"))


@pytest.mark.real_data
def test_published_text_has_as_many_tokens_as_are_written(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(assets / "tiktoken_cache"))
    encoding = gpt2_encoding()
    assert len(encoding.encode(PUBLISHED_CONTINUATIONS["gpt2-small"])) == NEW_TOKENS
