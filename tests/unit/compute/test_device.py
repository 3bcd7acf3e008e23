"""The machine that a stage computes with."""

import pytest
import torch

from lora_compare.compute import precision
from lora_compare.compute.device import Machine, choose_machine
from lora_compare.errors import ParamsError
from lora_compare.params import TrainingParams


def training(**changes: object) -> TrainingParams:
    return TrainingParams(
        **{
            "epochs": 1,
            "batch_size": 1,
            "seeds": [1],
            "device": "cpu",
            "precision": "auto",
            **changes,
        }
    )


def test_the_machine_is_what_the_settings_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)
    narrow, wide = choose_machine(training(), 128), choose_machine(training(), 768)
    assert narrow == Machine(torch.device("cpu"), torch.float32, torch.get_num_threads())
    assert wide.dtype == torch.bfloat16
    assert choose_machine(training(precision="float32"), 768) == narrow


def test_its_description_is_plain_data() -> None:
    assert choose_machine(training(), 128).describe() == {
        "device": "cpu",
        "cuda": None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ParamsError, match=r"(?s)cuda is not available.*training\.device"):
        choose_machine(training(device="cuda"), 128)
