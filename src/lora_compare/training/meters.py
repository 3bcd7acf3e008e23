"""What a training is watched by and costs: its clock, its losses, memory and throughput."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from lora_compare.compute.device import Machine, processor
from lora_compare.compute.memory import Saved, held_tensors, peak_memory_bytes, storage_bytes
from lora_compare.compute.ranks import local
from lora_compare.errors import DivergenceError, TrainingError
from lora_compare.models.batches import Batch, IntArray

UNSEEN = 20
"""Losses that may wait on a device before the host looks at them."""

TIMED = 10
"""On a GPU one step in so many is timed: before and after it, the host waits for the device."""

STATE = ("weights", "gradients", "optimizer", "activations")
"""The parts of what a training holds."""


class Clock:
    """Adds up seconds, those that the device's queued work takes included.

    Args:
        device: The device whose work is waited for when the clock stops.

    Attributes:
        seconds: The time so far, up to the last stop.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._synchronize = _waiting_for(device)

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


def _waiting_for(device: torch.device) -> Callable[[], None]:
    """Return what waits until a device has done what it was given."""
    waits = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
    return waits.get(device.type, lambda: None)


class Meter:
    """Measures single optimizer steps, from batches to changed weights: time and tensors.

    On a CPU a step's time is that for which all threads of the process computed: with one thread
    other programs lengthen it less than the time on the wall, while several threads also wait for
    each other. On a GPU it is the time on the wall of every tenth step. Tensors are counted in one
    step, exactly, since that costs time.

    Args:
        model: What is trained. All that it holds counts, trained or not.
        optimizer: Its optimizer; masters of weights in bfloat16 count among the weights.
        parked: What else is held until the training ends.
        longest: The 0-based step in which tensors are counted.

    Attributes:
        seconds: One time for each step that was timed.
        state: Bytes of all tensors that the training held in that step, by the names of STATE:
            gradients as they were when the weights changed, the optimizer's averages, and the
            most that was kept of a forward pass at once. Empty before that step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        parked: Iterable[Tensor] = (),
        longest: int = 0,
    ) -> None:
        self.seconds: list[float] = []
        self.state: dict[str, int] = {}
        self._model, self._optimizer, self._parked = model, optimizer, tuple(parked)
        self._longest = longest
        device = next(model.parameters()).device
        self._every = 1 if device.type == "cpu" else TIMED
        self._now = time.process_time if device.type == "cpu" else time.perf_counter
        self._synchronize = _waiting_for(device)

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Measure the block, which is the 0-based `step`, where its turn has come."""
        with self._counted() if step == self._longest else nullcontext():
            if step % self._every:
                yield
                return
            self._synchronize()
            start = self._now()
            yield
            self._synchronize()
            self.seconds.append(round(self._now() - start, 6))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        trained = [p for group in self._optimizer.param_groups for p in group["params"]]
        weights = [*held_tensors(self._model), *map(local, trained), *self._parked]
        known = list(weights)

        def count_gradients(*_: Any) -> None:
            gradients = (p.grad for p in (*self._model.parameters(), *trained))
            self.state["gradients"] = storage_bytes(local(g) for g in gradients if g is not None)

        def know_whole(module: nn.Module, *_: Any) -> None:
            known.extend(module.parameters(recurse=False))  # gathered, for this pass alone

        before_step = self._optimizer.register_step_pre_hook(count_gradients)
        after_module = register_module_forward_hook(know_whole)
        try:
            with Saved(known) as saved:
                yield
        finally:
            before_step.remove()
            after_module.remove()
        averages = [local(t) for held in self._optimizer.state.values() for t in held.values()]
        self.state |= {
            "weights": storage_bytes(weights),
            "optimizer": storage_bytes(averages),
            "activations": saved.peak,
        }


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


def cost_figures(
    seconds: float,
    examples: int,
    tokens: int,
    machine: Machine,
    steps: Sequence[float] = (),
    state: Mapping[str, int] | None = None,
    side_by_side: int = 1,
) -> dict[str, Any]:
    """Return the content of a cost file; of a training without a step only its time is known.

    Args:
        seconds: Time of the optimizer steps alone; 0: there were none.
        examples: Texts seen in them.
        tokens: Tokens seen in them.
        machine: What they ran on.
        steps: Seconds of single steps, as a `Meter` takes them.
        state: Bytes of the training's tensors, as a `Meter` counts them.
        side_by_side: Trainings that ran at the same time on this machine, this one included.
    """
    quartiles = np.percentile(steps, (25, 50, 75)).tolist() if steps else [None] * 3
    low, median, high = (q if q is None else round(q, 6) for q in quartiles)
    return {
        "train_seconds": round(seconds, 3),
        "examples_per_second": _rate(examples, seconds),
        "tokens_per_second": _rate(tokens, seconds),
        "step_cpu_seconds": median,
        "step_cpu_seconds_low": low,
        "step_cpu_seconds_high": high,
        "training_state_bytes": sum(state.values()) if state else None,
        **{f"training_state_bytes_{part}": state[part] if state else None for part in STATE},
        "peak_memory_bytes": peak_memory_bytes(machine.device) if seconds else None,
        "side_by_side": side_by_side if seconds else None,
        "device": machine.device.type,
        "processor": processor(),
        "dtype": str(machine.dtype).removeprefix("torch."),
        "threads": machine.threads,
    }


def _rate(amount: int, seconds: float) -> float | None:
    return round(amount / seconds, 3) if seconds else None
