"""What is known of the networks without torch is what they are."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from lora_compare.lora import describe_modules
from lora_compare.models.gpt.network import GPT, Classifier
from lora_compare.params import CONFIGS, classifier_modules


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("n_classes", [2, 7])
def test_the_modules_are_those_of_the_network(name: str, n_classes: int) -> None:
    # Two blocks stand for all: torch draws random numbers without memory rather slowly.
    config = replace(CONFIGS[name], n_layer=2)
    with torch.device("meta"):
        model: nn.Module = Classifier(GPT(config), n_classes, "last_token")
    expected = classifier_modules(config, n_classes)
    assert list(expected.items()) == list(describe_modules(model).items())


def test_params_are_read_without_torch() -> None:
    code = "import sys, lora_compare.params; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
