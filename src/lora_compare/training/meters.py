"""What a training is watched by and costs: its clock, its losses, memory and throughput."""

import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_compare.compute.device import Machine
from lora_compare.errors import DivergenceError, TrainingError
from lora_compare.models.batches import Batch, IntArray

UNSEEN = 20
"""Losses that may wait on a device before the host looks at them."""


class Clock:
    """Adds up seconds, those that the device's queued work takes included.

    Args:
        device: The device whose work is waited for when the clock stops.

    Attributes:
        seconds: The time so far, up to the last stop.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._synchronize = {
            "cuda": torch.cuda.synchronize,
            "mps": torch.mps.synchronize,
        }.get(device.type, lambda: None)

    def start(self) -> None:
        """Go on counting."""
        self._start = time.perf_counter()

    def stop(self) -> None:
        """Count what the device has been given so far, and no further."""
        self._synchronize()
        self.seconds += time.perf_counter() - self._start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count what is done in the block."""
        self.stop()
        yield
        self.start()


class Losses:
    """Sees to it that every step's loss is a finite number.

    On a CPU each is looked at once; elsewhere that would stop the device at every step, so
    a few are collected first.

    Args:
        device: Where the losses are.

    Attributes:
        last: The last loss that was looked at, in nats.
    """

    def __init__(self, device: torch.device) -> None:
        self.last = math.nan
        self._most = 0 if device.type == "cpu" else UNSEEN
        self._unseen: list[tuple[Tensor, int, float, Sequence[IntArray]]] = []

    def add(self, loss: Tensor, step: int, rate: float, groups: Sequence[IntArray]) -> None:
        """Take in the loss of one step.

        Args:
            loss: The loss, shape ().
            step: The step's number, from 1.
            rate: Its learning rate.
            groups: The indices of its texts in the training split.

        Raises:
            DivergenceError: This loss or an earlier one is not finite.
        """
        self._unseen.append((loss, step, rate, groups))
        if len(self._unseen) > self._most:
            self.check()

    def check(self) -> None:
        """Look at all losses so far.

        Raises:
            DivergenceError: One of them is not finite; the message names the first.
        """
        if not self._unseen:
            return
        values = torch.stack([loss for loss, *_ in self._unseen]).tolist()
        for value, (_, step, rate, groups) in zip(values, self._unseen, strict=True):
            rows = ", ".join(str(i) for i in np.concatenate(groups)[:16])
            require_finite(value, step, rate, f"rows {rows} of data/splits/train.csv")
        self.last = values[-1]
        self._unseen.clear()


def require_finite(loss: float, step: int, rate: float, texts: str) -> None:
    """Stop a training whose loss is not a finite number.

    Args:
        loss: The loss in nats.
        step: The step's number.
        rate: Its learning rate.
        texts: What the loss is of, in words.

    Raises:
        DivergenceError: The loss is infinite or no number.
    """
    if not math.isfinite(loss):
        raise DivergenceError(
            f"The loss is {loss}.",
            where=f"step {step}, learning rate {rate:g}, {texts}",
            expected="a finite number",
            kept="the outputs of the stages before this one, and the last good checkpoint",
            next="lower the method's learning_rate, or set training.max_grad_norm, in params.yaml",
        )


@contextmanager
def naming_memory(step: int, batches: Sequence[Batch]) -> Iterator[None]:
    """Say what the memory did not suffice for, where it runs out in the block.

    Args:
        step: The step's number, from 1.
        batches: What the step works on.

    Raises:
        TrainingError: The host's or the device's memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On the CPU torch raises a plain RuntimeError.
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and "can't allocate memory" not in str(error):
            raise
        most = max(len(batch.labels) for batch in batches)
        longest = max(length for batch in batches for length in batch.texts.lengths)
        raise TrainingError(
            "The memory does not suffice.",
            where=f"step {step}, batches of {most} messages, the longest of {longest} tokens",
            actual=str(error).splitlines()[0] if str(error) else type(error).__name__,
            kept="the outputs of the stages before this one, and the last checkpoint",
            next="lower training.batch_size (and raise gradient_accumulation_steps) or\n"
            "training.max_length, or set gradient_checkpointing: true, in params.yaml",
        ) from None


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory in use so far, in bytes.

    On a GPU that is what tensors took there; on the CPU it is the resident memory of the whole
    process, libraries included.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would also count the shell's and DVC's memory before they became us.
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cost_figures(seconds: float, examples: int, tokens: int, machine: Machine) -> dict[str, Any]:
    """Return the content of a cost file; of a training without a step only its time is known.

    Args:
        seconds: Time of the optimizer steps alone; 0: there were none.
        examples: Texts seen in them.
        tokens: Tokens seen in them.
        machine: What they ran on.
    """
    return {
        "train_seconds": round(seconds, 3),
        "examples_per_second": _rate(examples, seconds),
        "tokens_per_second": _rate(tokens, seconds),
        "peak_memory_bytes": peak_memory_bytes(machine.device) if seconds else None,
        "device": machine.device.type,
        "dtype": str(machine.dtype).removeprefix("torch."),
        "threads": machine.threads,
    }


def mean_cost(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the cost figures of a training of a method, from all its trainings.

    What differs between them is averaged, but for the most memory and the most trainings at a
    time, of which the largest counts.

    Args:
        costs: The content of a cost file for each training.
    """
    largest = ("peak_memory_bytes", "side_by_side")
    figures = {key: [cost[key] for cost in costs] for key in costs[0]}
    return {
        key: values[0]
        if all(value == values[0] for value in values)
        else max(values)
        if key in largest
        else round(math.fsum(values) / len(values), 3)
        for key, values in figures.items()
    }


def _rate(amount: int, seconds: float) -> float | None:
    return round(amount / seconds, 3) if seconds else None
