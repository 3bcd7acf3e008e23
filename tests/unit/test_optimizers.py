"""AdamW without torch's compiler: the same numbers, and really without it."""

import subprocess
import sys

import pytest
import torch

from lora_compare.optimizers import AdamW


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


SCRIPT = """
import sys, torch
from lora_compare.optimizers import AdamW
model = torch.nn.Linear(2, 1)
optimizer = AdamW(model.parameters(), fused=True)
model(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
sys.exit("torch._dynamo" in sys.modules)
"""


def test_torchs_compiler_is_not_imported() -> None:
    assert subprocess.run([sys.executable, "-c", SCRIPT]).returncode == 0
