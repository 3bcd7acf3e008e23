"""A small base model, methods fine-tuned from it, and transformers' view of both, for tests."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_compare import lora
from lora_compare.compute.seeding import seeded
from lora_compare.exchange.export import Source
from lora_compare.models.base import Base, load_base, save_base
from lora_compare.models.classifier import TextClassifier, predict_logits, untuned
from lora_compare.models.gpt.base import GPTBase, GPTTokenizer
from lora_compare.models.gpt.network import GPT, GPTConfig
from lora_compare.models.gpt.tokenizer import train_encoding
from lora_compare.models.methods import adapt
from lora_compare.params import ClassifierParams, LoraParams

CLASSES = ["ham", "spam", "urgent"]
TEXTS = ["hi", "you won a prize, call now £9", "see you at <|endoftext|> 6?", "  ok  \n then 😀"]
ENCODING = train_encoding(TEXTS * 3, 300)
SMALL = GPTConfig(ENCODING.n_vocab, 40, n_layer=2, n_head=3, n_embd=24)


def randomise(model: nn.Module, seed: int, width: int) -> None:
    """Make every parameter random, also norms and biases, of a size that suits a width."""
    with seeded(seed), torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if ".ln_" in f".{name}" and name.endswith("weight") else 0.0
            parameter.normal_(mean, width**-0.5)


def make_small_base(folder: Path, shape: GPTConfig = SMALL) -> Base:
    """Write and return a base with random weights."""
    gpt = GPT(shape)
    randomise(gpt, 1, shape.n_embd)
    description = {
        "name": "gpt2-nano",
        "weights": "random",
        "shape": shape.to_dict(),
        "parameters": sum(p.numel() for p in gpt.parameters()),
        "source": {"kind": "random"},
    }
    return save_base(GPTBase(gpt, GPTTokenizer(ENCODING), description), folder)


def make_classifier(
    base: Base,
    settings: LoraParams | None,
    position: str = "last_token",
    bias: bool = True,
    classes: list[str] = CLASSES,
) -> TextClassifier:
    """Return a classifier with an adapter all of whose tensors were changed as by training."""
    head = ClassifierParams(position=position, bias=bias)
    padded = 24 if position == "last_position" else None
    classifier = untuned(base, classes, head, seed=2, max_length=30, padded_length=padded)
    if settings is None:
        randomise(classifier.model, 3, base.network.config.n_embd)
        return classifier
    spread = 0.5 * base.network.config.n_embd**-0.5
    with seeded(4), torch.no_grad():
        adapt(classifier.model, settings)
        for tensor in lora.adapter_tensors(classifier.model).values():
            if isinstance(tensor, nn.Parameter):  # the fixed start of PiSSA is none
                tensor += spread * torch.randn_like(tensor)
    return classifier


def make_source(folder: Path, settings: LoraParams | None, **head: Any) -> Source:
    """Return a method of the base in `folder` that is ready to be exported."""
    base = load_base(folder)
    original = {name: tensor.clone() for name, tensor in base.network.state_dict().items()}
    classifier = make_classifier(base, settings, **head)
    return Source("m", 1, classifier, settings, original, base.description, "0" * 64)


def logits(classifier: TextClassifier) -> np.ndarray:
    """Return our logits of TEXTS, shape (n, n_classes)."""
    examples, _ = classifier.examples(TEXTS, [0] * len(TEXTS))
    return predict_logits(classifier.model, examples)


def padded_tokens(classifier: TextClassifier) -> tuple[Tensor, Tensor]:
    """Return TEXTS as one batch of token ids, shape (n, t), and their lengths, shape (n,)."""
    examples, _ = classifier.examples(TEXTS, [0] * len(TEXTS))
    width = classifier.padding.length or int(examples.lengths.max())
    rows = [
        [*ids.tolist(), *[classifier.padding.token] * (width - len(ids))] for ids in examples.tokens
    ]
    return torch.tensor(rows), torch.from_numpy(np.asarray(examples.lengths))


def reference_logits(model: Any, classifier: TextClassifier) -> np.ndarray:
    """Return the logits of transformers' (or PEFT's) model for TEXTS, shape (n, n_classes)."""
    tokens, _ = padded_tokens(classifier)
    with torch.no_grad():
        return model.eval()(tokens).logits.double().numpy()


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest absolute difference of logits that are neither tiny nor huge."""
    assert one.shape == other.shape
    assert 0.3 < abs(other).max() < 10
    return float(abs(one - other).max())
