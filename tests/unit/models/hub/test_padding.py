"""Linear layers on real tokens alone, beside the same network on all of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("transformers")

from lora_compare.models.batches import Batch, Examples, collate
from lora_compare.models.classifier import untuned
from lora_compare.models.hub import padding
from lora_compare.models.methods import adapt
from lora_settings import lora_settings
from tiny_bases import CLASSES, FEW, HEAD, SEED, load
from tiny_models import ARCHITECTURES


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("padding")


def batch(lengths: list[int], last: int = 1) -> Batch:
    rng = np.random.default_rng(0)
    texts = [rng.integers(10, 90, n).astype(np.int64) for n in lengths]
    for text in texts:
        text[-1] = last
    return collate(Examples(texts, np.arange(len(texts)) % len(CLASSES)))


def step(model: nn.Module, texts: Batch) -> dict[str, Tensor]:
    model.zero_grad()
    logits = model.of_packed(texts.texts)
    F.cross_entropy(logits, texts.labels).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **gradients}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FEW else [pytest.mark.slow]) for n in ARCHITECTURES]
)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_logits_and_gradients_are_those_of_all_tokens(
    name: str, method: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untuned(load(name, root), CLASSES, HEAD, SEED).model
    if method == "lora":
        adapt(model, lora_settings())
    model.double().eval()  # dropout would draw other numbers
    # T5 and BART look for the end of a text, and want one in every text.
    texts, seen = batch([3, 20, 7, 1, 12], model.model.config.eos_token_id or 1), []
    layer = next(m for m in padding._linear_layers(model.model.base_model))
    layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[:-1]))
    found = step(model, texts)
    monkeypatch.setattr(padding, "WORTHWHILE", 0.0)
    expected = step(model, texts)
    # DeBERTa's first layer sees distances, too.
    assert [shape for shape in seen if shape in ((43,), (5, 20))] == [(43,), (5, 20)]
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-9, msg=key)


def test_little_padding_is_computed_with(root: Path) -> None:
    model = untuned(load("bert", root), CLASSES, HEAD, SEED).model.eval()
    seen: list[torch.Size] = []
    layer = next(m for m in padding._linear_layers(model.model.base_model))
    layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[:-1]))
    model.of_packed(batch([20, 20, 19]).texts)
    model.of_packed(batch([20, 20, 20]).texts)
    model.of_packed(batch([20, 10, 10]).texts)
    assert seen == [(3, 20), (3, 20), (40,)]
    assert len(layer._forward_pre_hooks) == 0
