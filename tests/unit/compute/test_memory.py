"""What a computation holds, beside torch's own account of what was allocated and not freed."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForSequenceClassification

from lora_compare.compute.memory import Saved, held_tensors, planned_state, storage_bytes
from lora_compare.compute.optimizers import AdamW
from lora_compare.lora import inject, quantizable, quantize
from lora_compare.models.batches import collate
from lora_compare.models.gpt.network import Classifier
from lora_settings import lora_settings
from tiny_models import ARCHITECTURES
from unit.training.test_loop import model, texts


def allocated(model: Classifier, labels: torch.Tensor, packed: object) -> tuple[int, torch.Tensor]:
    """Return the bytes that a forward pass leaves allocated, by torch's profiler, and its loss."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        loss = F.cross_entropy(model.of_packed(packed), labels)
    return sum(event.self_cpu_memory_usage for event in watched.events()), loss


@pytest.mark.parametrize(
    ("method", "tolerance"), [("full", 0), ("lora", 0), ("dropout", 0.01), ("bfloat16", 0.01)]
)
def test_what_autograd_keeps_is_what_the_forward_pass_left_allocated(
    method: str, tolerance: float
) -> None:
    network = model("lora" if method == "lora" else "full")
    if method == "dropout":
        inject(network, lora_settings(r=4, lora_dropout=0.3))
    network.train()
    batch = collate(texts(12))
    given = [batch.labels, *(v for v in vars(batch.texts).values() if isinstance(v, torch.Tensor))]
    network.of_packed(batch.texts)  # the first one moves frozen weights, and allocates for it
    with (
        Saved([*network.parameters(), *given]) as saved,
        torch.autocast("cpu", torch.bfloat16, enabled=method == "bfloat16"),
    ):
        left, loss = allocated(network, batch.labels, batch.texts)
    # Beside these, autocast keeps copies of biases, and dropout a few numbers.
    assert left - loss.nbytes == pytest.approx(saved.peak, rel=tolerance)
    assert saved.peak > 30_000


def test_frozen_weights_that_a_first_pass_moves_are_no_activations() -> None:
    batch, peaks = collate(texts(12)), []
    network = model("lora")
    for _ in range(2):
        with Saved([*network.parameters()]) as saved:
            network.of_packed(batch.texts)
        peaks.append(saved.peak)
    assert peaks[0] == peaks[1]


def test_a_storage_counts_once_as_a_whole() -> None:
    whole = torch.zeros(100)
    assert storage_bytes([whole, whole[:10], whole.view(10, 10).T]) == 400
    assert storage_bytes([whole.clone(), torch.zeros(3, dtype=torch.int8)]) == 403
    assert storage_bytes([torch.empty(100, device="meta"), torch.empty(7, device="meta")]) == 428


def test_several_forward_passes_count_the_one_that_keeps_most() -> None:
    layer = nn.Linear(4, 4)
    with Saved([*layer.parameters()]) as saved:
        for rows in (8, 32, 16):
            layer(torch.ones(rows, 4)).sum().backward()
    assert saved.peak == 32 * 4 * 4
    with Saved([*layer.parameters()]) as saved:
        both = layer(torch.ones(8, 4)).sum() + layer(torch.ones(32, 4)).sum()
    assert saved.peak == (8 + 32) * 4 * 4
    both.backward()


def test_no_bit_of_a_gradient_changes() -> None:
    gradients = []
    for counted in (False, True):
        network = model("lora")
        batch = collate(texts(12))
        hooks = Saved([]) if counted else saved_tensors_hooks(lambda t: t, lambda t: t)
        with hooks:
            F.cross_entropy(network.of_packed(batch.texts), batch.labels).backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


HEADS = {"bert": "classifier", "llama": "score"}


def shape(name: str) -> Any:
    tiny = {**ARCHITECTURES[name].config, "vocab_size": 100, "pad_token_id": 0}
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(name, **tiny))


def prepared(name: str, method: str) -> tuple[Any, list[Tensor]]:
    """Return a model that is ready to train, and the weights that QLoRA would hold in 4 bit."""
    network = shape(name)
    paths = quantizable(network, [HEADS[name]]) if method == "qlora" else []
    packed = [network.get_submodule(path).weight for path in paths]
    if method != "full":
        inject(network, lora_settings(modules_to_save=[HEADS[name]]))
    return network, packed


def batch() -> dict[str, Tensor]:
    mask = torch.ones(6, 16, dtype=torch.int64)
    mask[2, 10:] = 0
    ids = torch.full((6, 16), 5)
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.zeros(6, dtype=torch.int64)}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_the_planned_state_is_that_of_a_training(name: str, method: str) -> None:
    with torch.device("meta"):
        planned = planned_state(*prepared(name, method))
    if method == "qlora":
        network = shape(name)
        quantize(network, [HEADS[name]])
        inject(network, lora_settings(modules_to_save=[HEADS[name]]))
    else:
        network, _ = prepared(name, method)
    optimizer = AdamW([p for p in network.parameters() if p.requires_grad])
    network(**batch()).loss.backward()
    gradients = storage_bytes(p.grad for p in network.parameters() if p.grad is not None)
    optimizer.step()
    held = [tensor for state in optimizer.state.values() for tensor in state.values()]
    assert planned == {
        "weights": storage_bytes(held_tensors(network)),
        "gradients": gradients,
        "optimizer": storage_bytes(held),
    }


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_activations_are_the_same_without_the_memory_for_them(name: str, method: str) -> None:
    peaks = []
    for world in (nullcontext(), FakeTensorMode()):
        with world:
            network, _ = prepared(name, method)
            given = batch()
            with Saved([*held_tensors(network), *given.values()]) as saved:
                network(**given)
        peaks.append(saved.peak)
    assert peaks[0] == peaks[1] > 300_000
