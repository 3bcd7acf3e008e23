"""Logits and gradients of GPT-2's real shapes are those of transformers on the same weights."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from lora_compare.compute.seeding import seeded
from lora_compare.models.gpt.network import CONFIGS, GPT, Classifier, GPTConfig
from lora_compare.models.gpt.weights import gpt2_state_dict, load_gpt2_state

from .conftest import Parity

pytestmark = pytest.mark.slow

LANGUAGE_MODEL = "transformers GPT2LMHeadModel"
CLASSIFIER = "transformers GPT2ForSequenceClassification"
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}
N_CLASSES = 3

# The vocabulary is whole only once: a shorter one changes no arithmetic and saves most time.
SMALL = "gpt2-small shape, 2 layers, vocabulary 2,000"
SHAPES = {
    f"{name} shape, {layers}, vocabulary 2,000": replace(
        CONFIGS[name], n_layer=int(layers[0]), vocab_size=2000
    )
    for name, layers in {
        "gpt2-small": "2 layers",
        "gpt2-medium": "2 layers",
        "gpt2-large": "1 layer",
        "gpt2-xl": "1 layer",
    }.items()
}
WHOLE = {"gpt2-small, whole": CONFIGS["gpt2-small"]}
WITH_VOCABULARY = {
    f"{name} shape, 1 layer, whole vocabulary": replace(CONFIGS[name], n_layer=1)
    for name in ("gpt2-medium", "gpt2-large", "gpt2-xl")
}


def slow(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@dataclass(frozen=True)
class Reference:
    """Two models of transformers with one body, and what its shape is called."""

    name: str
    config: GPTConfig
    language_model: Any
    classifier: Any


@dataclass(frozen=True)
class Outcome:
    """A batch's logits, and the gradients of its mean cross-entropy by GPT-2's names."""

    logits: Tensor
    gradients: dict[str, Tensor]


Maker = Callable[[torch.dtype], Outcome]


@pytest.fixture(scope="module")
def reference(request: pytest.FixtureRequest) -> Reference:
    """Models in which every parameter, norms and biases too, is random."""
    config = {**SHAPES, **WHOLE, **WITH_VOCABULARY}[request.param]
    theirs = reference_config(config)
    with torch.device("meta"):
        language_model = transformers.GPT2LMHeadModel(theirs).eval()
        classifier = transformers.GPT2ForSequenceClassification(theirs).eval()
    language_model.to_empty(device="cpu").tie_weights()
    classifier.transformer = language_model.transformer
    classifier.score.to_empty(device="cpu")
    randomise(language_model)
    randomise(classifier.score)
    return Reference(request.param, config, language_model, classifier)


@pytest.fixture(scope="module")
def language_file(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The language model's checkpoint, whose names have a prefix."""
    yield from written(reference.language_model, tmp_path_factory.mktemp("language_model"))


@pytest.fixture(scope="module")
def body_file(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The body's checkpoint, whose names have none, like the published files."""
    yield from written(reference.classifier.transformer, tmp_path_factory.mktemp("body"))


def written(model: Any, folder: Path) -> Iterator[Path]:
    model.save_pretrained(folder)
    yield folder / "model.safetensors"
    (folder / "model.safetensors").unlink()  # up to half a gigabyte


def reference_config(config: GPTConfig) -> Any:
    padding = config.vocab_size - 1
    return transformers.GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.context_length,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        num_labels=N_CLASSES,
        bos_token_id=padding,
        eos_token_id=padding,
        pad_token_id=padding,
        # Written out in transformers' own Python, so that no attention kernel is shared.
        attn_implementation="eager",
    )


@torch.no_grad()
def randomise(model: nn.Module) -> None:
    """Draw all parameters so that activations and attention scores are about one."""
    with seeded(1):
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.1 if name.endswith("bias") else 0.04)
            if "ln_" in name and name.endswith("weight"):
                parameter.mul_(5).add_(1)


def load(path: Path, config: GPTConfig) -> GPT:
    with torch.device("meta"):
        gpt = GPT(config)
    gpt.load_state_dict(load_gpt2_state(path, config), assign=True)
    return gpt.eval()


def load_classifier(path: Path, reference: Reference) -> Classifier:
    """Return our classifier with the body of the file and the head of the reference."""
    model = Classifier(load(path, reference.config), N_CLASSES, "last_token", bias=False)
    model.score.load_state_dict(reference.classifier.score.state_dict())
    return model.eval()


def tokens(config: GPTConfig, *shape: int) -> Tensor:
    """Return random tokens, none of which is the padding token."""
    with seeded(2):
        return torch.randint(config.vocab_size - 1, shape)


def padded(config: GPTConfig, lengths: Tensor, width: int) -> Tensor:
    """Return one text of each length with padding behind, shape (b, width)."""
    padding = torch.arange(width) >= lengths[:, None]
    return tokens(config, len(lengths), width).masked_fill(padding, config.vocab_size - 1)


def taken_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradients by parameter name; the model is then in float32 and has none."""
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()  # before the cast, which would round these gradients too
    model.float()
    return gradients


def backward_from_next_tokens(logits: Tensor, batch: Tensor) -> None:
    F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()).backward()


def backward_from_classes(logits: Tensor) -> None:
    F.cross_entropy(logits, torch.arange(len(logits)) % N_CLASSES).backward()


def their_next_tokens(reference: Reference, batch: Tensor, dtype: torch.dtype) -> Outcome:
    model = reference.language_model.to(dtype)
    logits = model(batch).logits
    backward_from_next_tokens(logits, batch)
    return Outcome(logits.detach(), taken_gradients(model.transformer))


def our_next_tokens(gpt: GPT, batch: Tensor) -> Outcome:
    logits = gpt.next_token_logits(gpt(batch))
    backward_from_next_tokens(logits, batch)
    return Outcome(logits.detach(), gpt2_state_dict(taken_gradients(gpt)))


def their_classes(
    reference: Reference, batch: Tensor, lengths: Tensor, dtype: torch.dtype
) -> Outcome:
    model = reference.classifier.to(dtype)
    real = torch.arange(batch.shape[1]) < lengths[:, None]
    logits = model(batch, attention_mask=real).logits
    backward_from_classes(logits)
    gradients = taken_gradients(model.transformer) | taken_gradients(model.score)
    return Outcome(logits.detach(), gradients)


def our_classes(model: Classifier, batch: Tensor, lengths: Tensor) -> Outcome:
    logits = model(batch, lengths)
    backward_from_classes(logits)
    gradients = gpt2_state_dict(taken_gradients(model.gpt)) | taken_gradients(model.score)
    return Outcome(logits.detach(), gradients)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    largest = partial(torch.linalg.vector_norm, ord=torch.inf)  # without copies of large tensors
    return float(largest(ours - theirs) / largest(theirs))


def differences(ours: Outcome, theirs: Outcome) -> dict[str, float]:
    """Return the `difference` of the logits, and the largest one of a parameter's gradients."""
    assert ours.gradients.keys() == theirs.gradients.keys()
    gradients = [difference(g, theirs.gradients[name]) for name, g in ours.gradients.items()]
    worst = float(np.max(gradients))  # unlike Python's, NaN if any is
    return {"logits": difference(ours.logits, theirs.logits), "gradients": worst}


def check(parity: Parity, setting: str, reference: str, ours: Maker, theirs: Maker) -> None:
    # No outcome gets a name, so that at most two of them are in memory.
    for dtype, tolerance in TOLERANCES.items():
        for what, measured in differences(ours(dtype), theirs(dtype)).items():
            name = str(dtype).removeprefix("torch.")
            parity(f"{setting}: {what}, {name}", reference, tolerance, measured)


def check_classifier(
    parity: Parity, setting: str, reference: Reference, body_file: Path, lengths: Tensor
) -> None:
    batch = padded(reference.config, lengths, int(lengths.max()))
    model = load_classifier(body_file, reference)
    check(
        parity,
        setting,
        CLASSIFIER,
        ours=lambda dtype: our_classes(model.to(dtype), batch, lengths),
        theirs=lambda dtype: their_classes(reference, batch, lengths, dtype),
    )


@pytest.mark.parametrize("reference", [*SHAPES, *slow([*WHOLE, *WITH_VOCABULARY])], indirect=True)
def test_language_model_has_the_logits_and_gradients_of_transformers(
    reference: Reference, language_file: Path, parity: Parity
) -> None:
    batch = tokens(reference.config, 2, 12)
    gpt = load(language_file, reference.config)
    check(
        parity,
        reference.name,
        LANGUAGE_MODEL,
        ours=lambda dtype: our_next_tokens(gpt.to(dtype), batch),
        theirs=lambda dtype: their_next_tokens(reference, batch, dtype),
    )


@pytest.mark.parametrize("reference", [*SHAPES, *slow(WHOLE)], indirect=True)
def test_classifier_has_the_logits_and_gradients_of_transformers(
    reference: Reference, body_file: Path, parity: Parity
) -> None:
    check_classifier(parity, reference.name, reference, body_file, torch.tensor([12, 1, 7]))


@pytest.mark.parametrize("reference", slow(SHAPES), indirect=True)
def test_full_context_has_the_logits_and_gradients_of_transformers(
    reference: Reference, body_file: Path, parity: Parity
) -> None:
    setting = f"{reference.name}, {reference.config.context_length:,} tokens"
    length = torch.tensor([reference.config.context_length])
    check_classifier(parity, setting, reference, body_file, length)


@pytest.mark.parametrize("reference", [SMALL], indirect=True)
def test_a_transposed_output_projection_is_seen_in_logits_and_gradients(
    reference: Reference, language_file: Path
) -> None:
    """It is square, so the file loads all the same."""
    batch = tokens(reference.config, 2, 12)
    gpt = load(language_file, reference.config).double()
    weight = gpt.get_parameter("h.1.attn.c_proj.weight")
    with torch.no_grad():
        weight.copy_(weight.T.clone())
    theirs = their_next_tokens(reference, batch, torch.float64)
    assert min(differences(our_next_tokens(gpt, batch), theirs).values()) > 1e-2


@pytest.mark.parametrize("reference", [SMALL], indirect=True)
def test_logits_do_not_depend_on_padding_or_on_the_batch(
    reference: Reference, body_file: Path, parity: Parity
) -> None:
    model = load_classifier(body_file, reference).double()
    lengths = torch.tensor([12, 1, 7])
    batch = padded(reference.config, lengths, 20)
    with torch.no_grad():
        alone = [model(text[None, :n], n[None]) for text, n in zip(batch, lengths, strict=True)]
        measured = difference(model(batch, lengths), torch.cat(alone))
    setting = f"{reference.name}: logits in a padded batch, float64"
    parity(setting, "each text alone", 1e-10, measured)
