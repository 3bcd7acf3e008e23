"""Compiled training: the same curve, and a clear error where nothing can be compiled."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from lora_compare.compute.optimizers import AdamW
from lora_compare.lora import inject
from lora_compare.models.batches import Examples, collate
from lora_compare.models.classifier import predict_logits
from lora_compare.models.gpt.network import GPT, Classifier, GPTConfig, initialise
from lora_compare.models.losses import is_recorded
from lora_compare.training.ranks.steps import optimizer_step
from lora_settings import lora_settings
from unit.training.test_loop import settings

# torch's compiler imports what torch has deprecated, and looks at gradients as it traces.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]

CONFIG = GPTConfig(vocab_size=40, context_length=16, n_layer=3, n_head=2, n_embd=16)


def classifier(method: str) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(initialise(GPT(CONFIG)), 2, "last_token")
    if method == "lora":
        inject(model, lora_settings(r=4, lora_alpha=8))
    if method == "dora":
        inject(model, lora_settings(r=4, lora_alpha=8, use_dora=True))
    return model


def examples(seed: int) -> Examples:
    random = np.random.default_rng(seed)
    return Examples(
        [random.integers(0, 39, n) for n in random.integers(1, 16, 6)], np.arange(6) % 2
    )


def losses(model: Classifier) -> list[float]:
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    batches = [collate(examples(seed)) for seed in range(5)]
    return [optimizer_step(model, [batch], optimizer).item() for batch in batches]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "checkpointing"),
    [
        ("lora", True),
        ("full", True),
        ("full", False),
        ("dora", False),
    ],
)
def test_compiled_training_goes_the_same_way(method: str, checkpointing: bool) -> None:
    plain, compiled = classifier(method), classifier(method)
    compiled.checkpointing = checkpointing
    compiled.compile_blocks()
    np.testing.assert_allclose(losses(compiled), losses(plain), rtol=1e-4)
    assert list(compiled.state_dict()) == list(plain.state_dict())


def test_evaluations_stay_as_they_are() -> None:
    plain, compiled = classifier("full"), classifier("full")
    compiled.compile_blocks()
    data = examples(0)
    assert np.array_equal(predict_logits(compiled, data), predict_logits(plain, data))


@pytest.mark.slow
def test_a_machine_that_cannot_compile_is_told_what_it_lacks(tmp_path: os.PathLike[str]) -> None:
    code = """
import torch
from lora_compare.errors import ParamsError
from lora_compare.training.finetuning import require_compiler
try:
    require_compiler(torch.device("cpu"))
except ParamsError as error:
    print(error)
"""
    environment = {
        **os.environ,
        "CXX": "no-such-compiler",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "training.compile" in done.stdout
    assert "no-such-compiler" in done.stdout
    assert "set training.compile: false" in done.stdout


def test_a_gpu_records_what_it_need_not_compute_anew() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert is_recorded(settings(compile=True), cuda)
    assert not is_recorded(settings(compile=True), cpu)
    assert not is_recorded(settings(), cuda)
    assert not is_recorded(settings(compile=True, gradient_checkpointing=True), cuda)
