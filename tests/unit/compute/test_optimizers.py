"""AdamW without torch's compiler and of masters: the same numbers, and really without it."""

import subprocess
import sys

import pytest
import torch

from lora_compare.compute import optimizers
from lora_compare.compute.optimizers import AdamW, MasterAdamW
from lora_compare.compute.precision import trained_in_float32


@pytest.mark.parametrize("fused", [True, False])
def test_steps_equal_those_of_torchs_adamw(fused: bool) -> None:
    weights = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 1))
        groups = [
            {"params": model[0].parameters(), "lr": 1e-2},
            {"params": model[1].parameters(), "weight_decay": 0.3},
        ]
        optimizer = optimizer_class(groups, lr=1e-3, weight_decay=0.1, fused=fused)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        for _ in range(5):
            model(torch.randn(3, 7)).square().sum().backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            assert all(p.grad is None for p in model.parameters())
        weights.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*weights, strict=True))


@pytest.mark.parametrize("chunk", [64, 256, 2**20])
def test_masters_move_as_weights_under_autocast(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "CHUNK", chunk)

    def train(in_float32: bool) -> list[torch.Tensor]:
        torch.manual_seed(1)
        model = torch.nn.Sequential(
            torch.nn.Linear(17, 31), torch.nn.GELU(), torch.nn.Linear(31, 9)
        )
        groups = [
            {"params": list(model[0].parameters()), "lr": 1e-2},
            {"params": list(model[2].parameters()), "weight_decay": 0.3},
        ]
        shared = {"lr": 1e-3, "weight_decay": 0.1}
        with trained_in_float32(model, torch.float32 if in_float32 else torch.bfloat16) as masters:
            optimizer: torch.optim.Optimizer
            if in_float32:
                optimizer = torch.optim.AdamW(groups, fused=True, **shared)
            else:
                optimizer = MasterAdamW(groups, masters, **shared)
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
            for _ in range(5):
                with torch.autocast("cpu", torch.bfloat16):
                    output = model(torch.randn(23, 17))
                output.float().square().sum().backward()
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                assert all(p.grad is None for p in model.parameters())
        return [p.detach() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(train(True), train(False), strict=True))


def test_a_master_without_a_gradient_stays_where_it_is() -> None:
    model = torch.nn.Linear(3, 2, bias=False)
    before = model.weight.detach().clone()
    with trained_in_float32(model, torch.bfloat16) as masters:
        optimizer = MasterAdamW([{"params": [model.weight]}], masters, lr=1.0)
        optimizer.step()
        assert not optimizer.state
    assert torch.equal(model.weight, before)


SCRIPT = """
import sys, torch
from lora_compare.compute.optimizers import AdamW, MasterAdamW
from lora_compare.compute.precision import trained_in_float32
model = torch.nn.Linear(2, 1)
with trained_in_float32(model, torch.bfloat16) as masters:
    for optimizer in (
        AdamW([model.bias], fused=True), MasterAdamW([{"params": [model.weight]}], masters)
    ):
        with torch.autocast("cpu", torch.bfloat16):
            model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
sys.exit("torch._dynamo" in sys.modules)
"""


@pytest.mark.slow
def test_torchs_compiler_is_not_imported() -> None:
    assert subprocess.run([sys.executable, "-c", SCRIPT]).returncode == 0
