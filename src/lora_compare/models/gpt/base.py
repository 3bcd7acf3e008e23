"""GPT-2 before any fine-tuning: its checkpoints, and `gpt2-nano`, which is pre-trained here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiktoken
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lora_compare.compute.seeding import seeded
from lora_compare.models.batches import IntArray
from lora_compare.models.gpt.checkpoints import fetch_checkpoint
from lora_compare.models.gpt.network import CONFIGS, GPT, Classifier, GPTConfig, initialise
from lora_compare.models.gpt.pretraining import pretrain, random_nano, sequences
from lora_compare.models.gpt.tokenizer import (
    encode,
    encode_all,
    gpt2_encoding,
    load_encoding,
    save_encoding,
    train_encoding,
)
from lora_compare.models.gpt.weights import load_gpt2_state
from lora_compare.models.network import Base
from lora_compare.models.weights import load_state
from lora_compare.params import ClassifierParams, ModelParams
from lora_compare.project.checksums import verified
from lora_compare.project.progress import Progress

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
class GPTTokenizer:
    """A byte-level BPE, which puts nothing around a text.

    Attributes:
        encoding: The tokenizer itself.
    """

    encoding: tiktoken.Encoding
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()

    @property
    def pad(self) -> int:
        """The id of the end of a text."""
        return self.encoding.eot_token

    def encode_all(self, texts: Iterable[str]) -> list[IntArray]:
        """Return the ids of every text."""
        return encode_all(self.encoding, texts)[0]


@dataclass(frozen=True)
class GPTBase(Base):
    """A GPT with its tokenizer.

    Its description also has the network's shape, and how it continues a prompt.
    """

    network: GPT
    tokenizer: GPTTokenizer
    kind = "gpt"

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.network.config.n_embd

    @property
    def context(self) -> int:
        """Longest text in tokens."""
        return self.network.config.context_length

    @property
    def remarks(self) -> list[str]:
        """How it continues the prompt, and where that is known to be wrong."""
        name, text = self.description["name"], self.description["continuation"]["text"]
        remarks = [f"{PROMPT!r} goes on with {text!r}"]
        published = PUBLISHED_CONTINUATIONS.get(name)
        if self.description["weights"] == "pretrained" and published not in (None, text):
            remarks.append(
                f"WRONG: with its published weights {name} goes on with {published!r}.\n"
                "Something reads or runs them differently; no result of this model can be trusted."
            )
        return remarks

    def new_classifier(self, n_classes: int, head: ClassifierParams, seed: int) -> Classifier:
        """Return a classifier of the network, which is used and not copied, under a new head."""
        with seeded(seed):
            return Classifier(self.network, n_classes, head.position, head.bias)

    def state(self) -> dict[str, Tensor]:
        """Return the network's tensors by name."""
        return self.network.state_dict()

    def save_tokenizer(self, folder: Path) -> None:
        """Write tokenizer.json."""
        save_encoding(self.tokenizer.encoding, folder / "tokenizer.json")


def load_gpt(folder: Path, description: dict[str, Any], with_weights: bool) -> GPTBase:
    """Return the model in a folder of `models.base.save_base`, on the CPU.

    Args:
        folder: The folder.
        description: What `read_description` says of it.
        with_weights: False leaves them on torch's device `meta`, where they take no memory.

    Raises:
        MissingArtifactError: A file is missing.
        IntegrityError: A file has changed since it was written.
    """
    gpt = _empty(GPTConfig(**description["shape"]))
    if with_weights:
        path = verified(folder / "model.safetensors", "base_model")
        shapes = {name: tuple(tensor.shape) for name, tensor in gpt.state_dict().items()}
        gpt.load_state_dict(load_state(path, shapes), assign=True)
    encoding = load_encoding(verified(folder / "tokenizer.json", "base_model"))
    return GPTBase(gpt, GPTTokenizer(encoding), description)


def make_gpt(
    model: ModelParams, texts: Sequence[str], device: torch.device, progress: Progress
) -> GPTBase:
    """Return the GPT that params.yaml asks for, on the CPU.

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
    gpt.load_state_dict(load_gpt2_state(checkpoint.path, config), assign=True)
    return _describe(gpt, encoding, model, {"kind": "checkpoint", **checkpoint.provenance})


def _make_nano(
    model: ModelParams, texts: Sequence[str], device: torch.device, progress: Progress
) -> GPTBase:
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
) -> GPTBase:
    description = {
        "name": model.name,
        "weights": model.weights,
        "shape": gpt.config.to_dict(),
        "parameters": sum(p.numel() for p in gpt.parameters()),
        "source": source,
        "continuation": {"prompt": PROMPT, "text": continuation(gpt, encoding)},
    }
    return GPTBase(gpt, GPTTokenizer(encoding), description)


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
