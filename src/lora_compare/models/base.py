"""The model before any fine-tuning: made or fetched once, then read by every method."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tiktoken
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lora_compare.compute.seeding import seeded
from lora_compare.models import weights
from lora_compare.models.checkpoints import fetch_checkpoint
from lora_compare.models.network import CONFIGS, GPT, GPTConfig, initialise
from lora_compare.models.pretraining import pretrain, random_nano, sequences
from lora_compare.models.tokenizer import (
    encode,
    gpt2_encoding,
    load_encoding,
    save_encoding,
    train_encoding,
)
from lora_compare.params import ModelParams
from lora_compare.project.checksums import read_verified, seal, verified
from lora_compare.project.files import sha256, write_json
from lora_compare.project.progress import SILENT, Progress

PROMPT = "Every effort moves you"
"""What every base model continues, so that wrongly loaded weights are seen at a glance."""

NEW_TOKENS = 15
"""Tokens of the continuation."""

PUBLISHED_CONTINUATIONS = {
    "gpt2-small": " forward.\n\nThe first step is to understand the importance of your work"
}
"""How pretrained weights are known to continue the prompt, by the model's name.

Source: Raschka 2024, "Build a Large Language Model (From Scratch)", appendix E, notebook.
"""


@dataclass(frozen=True)
class Base:
    """A GPT with its tokenizer.

    Attributes:
        gpt: The network.
        encoding: Its tokenizer.
        description: What config.json holds: name, weights, shape, parameters, source,
            continuation of the prompt, sha256.
    """

    gpt: GPT
    encoding: tiktoken.Encoding
    description: dict[str, Any]


def make_base(
    model: ModelParams, texts: Sequence[str], device: torch.device, progress: Progress = SILENT
) -> Base:
    """Return the model that params.yaml asks for, on the CPU.

    Args:
        model: Name, weights and settings.
        texts: What `gpt2-nano` learns its tokens and its language from; the other models
            do not look at them.
        device: Where `gpt2-nano` is pre-trained.
        progress: Where to report.

    Raises:
        DownloadError: A checkpoint or tokenizer can neither be found nor fetched.
        CheckpointError: The checkpoint is not the one that was asked for.
    """
    if model.name == "gpt2-nano":
        return _make_nano(model, texts, device, progress)
    encoding = gpt2_encoding()
    config = CONFIGS[model.name]
    if model.weights == "random":
        with seeded(model.seed):
            return _describe(initialise(GPT(config)), encoding, model, {"kind": "random"})
    checkpoint = fetch_checkpoint(model.name, progress)
    gpt = _empty(config)
    gpt.load_state_dict(weights.load_gpt2_state(checkpoint.path, config), assign=True)
    return _describe(gpt, encoding, model, {"kind": "checkpoint", **checkpoint.provenance})


def _make_nano(
    model: ModelParams, texts: Sequence[str], device: torch.device, progress: Progress
) -> Base:
    progress.say(f"train the tokenizer on {len(texts)} messages")
    encoding = train_encoding(texts, model.pretraining.vocabulary_size)
    if model.weights == "random":
        gpt = random_nano(encoding.n_vocab, model.seed)
        return _describe(gpt, encoding, model, {"kind": "random"})
    pieces = sequences(texts, encoding, model.pretraining.sequence_length)
    gpt, loss = pretrain(pieces, encoding.n_vocab, model.pretraining, device, progress)
    source = {
        "kind": "pretrained here",
        "texts": len(texts),
        "tokens": sum(len(piece) for piece in pieces),
        "final_loss": loss,
    }
    return _describe(gpt.cpu(), encoding, model, source)


def _describe(
    gpt: GPT, encoding: tiktoken.Encoding, model: ModelParams, source: dict[str, Any]
) -> Base:
    description = {
        "name": model.name,
        "weights": model.weights,
        "shape": gpt.config.to_dict(),
        "parameters": sum(p.numel() for p in gpt.parameters()),
        "source": source,
        "continuation": {"prompt": PROMPT, "text": continuation(gpt, encoding)},
    }
    return Base(gpt, encoding, description)


def continuation(gpt: GPT, encoding: tiktoken.Encoding) -> str:
    """Return what the model writes after the prompt; bytes that are no UTF-8 become U+FFFD."""
    prompt = torch.tensor([encode(encoding, PROMPT)], device=gpt.wte.weight.device)
    tokens = greedy(gpt, prompt, NEW_TOKENS)
    return encoding.decode(tokens[0, prompt.shape[1] :].tolist(), errors="replace")


@torch.no_grad()
def greedy(gpt: GPT, tokens: Tensor, new_tokens: int) -> Tensor:
    """Return texts with the likeliest next token added again and again.

    Args:
        gpt: The language model.
        tokens: Token ids of b texts of equal length, shape (b, t).
        new_tokens: Tokens to add; with them the texts must fit into the context.

    Returns:
        Token ids, shape (b, t + new_tokens).

    Checked by tests/parity/test_gpt2_weights.py against transformers.
    """
    for _ in range(new_tokens):
        likeliest = gpt.next_token_logits(gpt(tokens)[:, -1:]).argmax(dim=-1)
        tokens = torch.cat((tokens, likeliest), dim=1)
    return tokens


def say_continuation(base: Base, progress: Progress) -> None:
    """Print how `base` continues the prompt, and where that is known to be wrong.

    Args:
        base: The model.
        progress: Where to print.
    """
    name, text = base.description["name"], base.description["continuation"]["text"]
    progress.say(f"{PROMPT!r} goes on with {text!r}")
    published = PUBLISHED_CONTINUATIONS.get(name)
    if base.description["weights"] == "pretrained" and published not in (None, text):
        progress.say(
            f"WRONG: with its published weights {name} goes on with {published!r}.\n"
            "Something reads or runs them differently; no result of this model can be trusted."
        )


def _empty(config: GPTConfig) -> GPT:
    with torch.device("meta"), _Uninitialised():
        return GPT(config)


class _Uninitialised(TorchFunctionMode):
    """Leaves new parameters as they come.

    Random numbers for a tensor without memory cost more than nothing: torch draws them through
    its compiler, which takes a second to import.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def save_base(base: Base, folder: Path) -> Base:
    """Write `base` to `folder` as config.json, model.safetensors and tokenizer.json, and seal it.

    Args:
        base: The model.
        folder: Where to write.

    Returns:
        `base` with the weights' sha256 in its description.
    """
    weights.save_state(folder / "model.safetensors", base.gpt.state_dict())
    save_encoding(base.encoding, folder / "tokenizer.json")
    description = {**base.description, "sha256": sha256(folder / "model.safetensors")}
    write_json(folder / "config.json", description)
    seal(folder)
    return replace(base, description=description)


def read_description(folder: Path) -> dict[str, Any]:
    """Return the description of the model that `save_base` wrote to `folder`.

    Raises:
        MissingArtifactError: The folder or its config.json is missing.
        IntegrityError: That has changed since it was written.
    """
    description: dict[str, Any] = json.loads(read_verified(folder / "config.json", "base_model"))
    return description


def load_base(folder: Path, with_weights: bool = True) -> Base:
    """Return the model that `save_base` wrote to `folder`, on the CPU.

    Args:
        folder: The base model's folder.
        with_weights: False leaves them on torch's device `meta`, where they take no memory, for
            a method that has every weight itself; model.safetensors need not be there then.

    Raises:
        MissingArtifactError: The folder or a file in it is missing.
        IntegrityError: A file has changed since it was written.
    """
    description = read_description(folder)
    gpt = _empty(GPTConfig(**description["shape"]))
    if with_weights:
        path = verified(folder / "model.safetensors", "base_model")
        shapes = {name: tuple(tensor.shape) for name, tensor in gpt.state_dict().items()}
        gpt.load_state_dict(weights.load_state(path, shapes), assign=True)
    encoding = load_encoding(verified(folder / "tokenizer.json", "base_model"))
    return Base(gpt, encoding, description)
