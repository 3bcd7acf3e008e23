"""Where ranks are to run: a GPU for each, or a share of the processor."""

from dataclasses import replace

import torch

from lora_compare.compute.device import Machine
from lora_compare.errors import ParamsError
from lora_compare.params import Params
from lora_compare.training.ranks.environment import on_this_machine


def shared_out(machine: Machine, params: Params) -> Machine:
    """Return what one rank computes with: of a CPU its threads, unless the settings say how many.

    Raises:
        ParamsError: This machine has no place for as many ranks.
    """
    here = on_this_machine(params.training.devices)
    room = {"cuda": torch.cuda.device_count(), "mps": 0}.get(machine.device.type, here)
    if room < here:
        raise ParamsError(
            "There are not as many GPUs as processes.",
            where="params.yaml: training.devices",
            expected=f"at most {room}, one GPU for each" if room else "strategy single on mps",
            actual=f"{here} on this machine",
            next="set training.devices accordingly; several machines: torchrun (docs/gpus.md)",
        )
    if params.threads is not None or machine.device.type != "cpu":
        return machine
    return replace(machine, threads=max(1, machine.threads // here))
