"""Trainings on CUDA: the CPU's losses, the same bytes again, and recorded steps like all others."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lora_compare.compute.optimizers import Rates
from lora_compare.lora import adapter_tensors, inject, quantize
from lora_compare.lora.plain import dense_weight
from lora_compare.models.batches import Examples, collate
from lora_compare.models.gpt.network import Classifier
from lora_compare.models.losses import RecordedLoss, packed_loss
from lora_compare.models.methods import Trained, choose_trainable
from lora_compare.models.network import Network
from lora_compare.training.history import TrainingResult
from lora_compare.training.loop import train
from lora_compare.training.resume import Checkpoints
from lora_settings import lora_settings
from unit.compute.test_graphs import Repeated
from unit.training.test_loop import SEED, model, settings, texts
from unit.training.test_resume import FACTS, CutOffError, cut_off_after

pytestmark = pytest.mark.cuda

CPU = torch.device("cpu")
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "dropout": {"lora_dropout": 0.3},
    "pissa": {"init_lora_weights": "pissa", "r": 2},
}
WIDE = {"gradient_accumulation_steps": 3, "class_weights": "balanced", "max_grad_norm": 0.5}


def classifier(method: str, device: torch.device) -> Classifier:
    found = model("full")
    if method in ADAPTERS:
        inject(found, lora_settings(**{"r": 4, "lora_alpha": 8, **ADAPTERS[method]}))
    return found.to(device)


def run(
    method: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    checkpoints: Checkpoints | None = None,
    **changes: object,
) -> tuple[Classifier, TrainingResult]:
    found, data = classifier(method, device), (texts(50), texts(20, 1))
    torch.manual_seed(7)  # of dropout
    rates, shared = Rates(0.01, 0.05), settings(**changes)
    return found, train(found, *data, shared, rates, SEED, dtype, checkpoints=checkpoints)


def figures(result: TrainingResult) -> np.ndarray:
    return np.array([(row.train_loss, row.validation_loss) for row in result.history])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("changes", [{}, WIDE], ids=["plain", "accumulated"])
@pytest.mark.parametrize("method", ["full", "lora", "dora", "pissa"])
def test_losses_are_those_of_the_cpu(
    method: str, changes: dict[str, object], compiled: bool, device: torch.device
) -> None:
    _, expected = run(method, CPU, **changes)
    _, found = run(method, device, compile=compiled, **changes)
    np.testing.assert_allclose(figures(found), figures(expected), rtol=1e-4)
    assert found.state is not None
    assert expected.state is not None
    for part in ("weights", "gradients"):  # what is kept for them is the device's own affair
        assert found.state[part] == expected.state[part]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("method", ["full", "lora", "dropout", "bfloat16"])
def test_going_on_gives_the_same_bytes(
    method: str,
    compiled: bool,
    device: torch.device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dtype = torch.bfloat16 if method == "bfloat16" else torch.float32
    whole, expected = run(method, device, dtype, compile=compiled)
    file = tmp_path / "state.safetensors"
    with monkeypatch.context() as patch:
        cut_off_after(9, patch)
        with pytest.raises(CutOffError):
            run(method, device, dtype, Checkpoints(file, FACTS, 0), compile=compiled)
    again, found = run(method, device, dtype, Checkpoints(file, FACTS, 0), compile=compiled)
    assert np.array_equal(figures(found), figures(expected))
    for (name, one), other in zip(
        again.state_dict().items(), whole.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_bfloat16_is_float32_but_for_rounding(
    method: str, compiled: bool, device: torch.device
) -> None:
    _, expected = run(method, device)
    _, found = run(method, device, torch.bfloat16, compile=compiled)
    np.testing.assert_allclose(figures(found), figures(expected), atol=0.03)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_four_bit_weights_and_losses_are_those_of_the_cpu(device: torch.device) -> None:
    losses: dict[torch.device, torch.Tensor] = {}
    gradients: dict[torch.device, torch.Tensor] = {}
    weights: dict[torch.device, list[torch.Tensor]] = {}
    start: dict[str, torch.Tensor] = {}
    for place in (CPU, device):
        found = model("full").to(place)
        paths = quantize(found, keep=found.head)
        weights[place] = [dense_weight(found.get_submodule(path)).float().cpu() for path in paths]
        inject(found, lora_settings(r=4, lora_alpha=8))
        for name, parameter in found.named_parameters():
            if parameter.requires_grad:  # each device has dice of its own
                parameter.data.copy_(start.setdefault(name, parameter.detach().cpu()))
        found.to(place).train()
        batch = collate(texts(16)).to(place)
        losses[place] = packed_loss(found.of_packed, batch, 16).cpu()
        given = [p.grad.flatten().cpu() for p in found.parameters() if p.grad is not None]
        gradients[place] = torch.cat(given)
    for one, other in zip(weights[device], weights[CPU], strict=True):
        # The levels are the same, and the constants of blocks are but for rounding.
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)
    # A GPU multiplies by them in bfloat16, of 8 bits, a CPU in float32: one pass is compared,
    # because whole trainings go apart after any rounding.
    torch.testing.assert_close(losses[device], losses[CPU], rtol=2**-8, atol=0)
    error = (gradients[device] - gradients[CPU]).norm() / gradients[CPU].norm()
    assert error <= 0.05


def hub_classifier(architecture: str, method: str, folder: Path) -> tuple[Network, Examples]:
    tiny_bases = pytest.importorskip("tiny_bases")
    base = tiny_bases.load(architecture, folder)
    found = base.new_classifier(3, tiny_bases.HEAD, SEED)
    for module in found.modules():
        if isinstance(module, torch.nn.Dropout):  # each device has dice of its own
            module.p = 0.0
    trained = Trained("all") if method == "full" else Trained("lora", lora_settings(r=4))
    choose_trainable(found, trained, SEED)
    return found, tiny_bases.examples(base).cut(30)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_models_of_transformers_train_as_on_the_cpu(
    architecture: str, method: str, compiled: bool, device: torch.device, folder: Path
) -> None:
    losses = {}
    for place in (CPU, device):
        found, data = hub_classifier(architecture, method, folder)
        shared = settings(compile=compiled and place == device)
        result = train(found.to(place), data, data, shared, Rates(1e-3, 0.05), SEED)
        losses[place] = figures(result)
    np.testing.assert_allclose(losses[device], losses[CPU], rtol=1e-3)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_models_of_transformers_are_recorded(
    architecture: str, method: str, device: torch.device, folder: Path
) -> None:
    (recorded, data), (plain, _) = (hub_classifier(architecture, method, folder) for _ in "ab")
    recorded.to(device).eval()
    plain.to(device).eval()
    play = RecordedLoss(recorded, 30, capture=Repeated() if device == CPU else None)
    for indices in (range(8), range(4, 12)):
        batch = collate(data.take(indices))
        expected = packed_loss(plain.of_packed, batch.to(device), 8)
        torch.testing.assert_close(play(batch, 8), expected, rtol=1e-4, atol=1e-5)
    gradients = [
        (p.grad, q.grad) for p, q in zip(recorded.parameters(), plain.parameters(), strict=True)
    ]
    for one, other in ((a, b) for a, b in gradients if b is not None):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_recorded_dropout_draws_from_where_the_generator_is(device: torch.device) -> None:
    """Played at a state, a recording zeroes the same inputs, wherever it was recorded."""
    batch, drawn = collate(texts(8)), []
    for before in (0, 5):
        found = classifier("dropout", device).train()
        for name, parameter in found.named_parameters():
            if "lora_B" in name:  # at zero, dropout changes nothing
                torch.nn.init.ones_(parameter)
        play = RecordedLoss(found, 9, capture=Repeated() if device == CPU else None)
        torch.manual_seed(7)
        for _ in range(before):
            play(batch, 8)
        losses = []
        for seed in (3, 4, 3):
            torch.manual_seed(seed)
            losses += [play(batch, 8).item(), play(batch, 8).item()]
        drawn.append(losses)
        play.close()
    assert drawn[0] == drawn[1]
    assert drawn[0][:2] == drawn[0][4:]
    assert len(set(drawn[0])) == 4


def test_adapters_hold_what_they_were_trained_to(device: torch.device) -> None:
    """A recording changes the very tensors that are stored afterwards."""
    before = {n: t.clone() for n, t in adapter_tensors(classifier("lora", device)).items()}
    trained, _ = run("lora", device, compile=True)
    after = adapter_tensors(trained)
    assert after.keys() == before.keys()
    assert all(not torch.equal(after[name], before[name]) for name in before)
