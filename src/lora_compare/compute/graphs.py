"""Work that a GPU repeats without waiting for Python: CUDA graphs, one for each shape of inputs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from lora_compare.compute.seeding import random_states, restore_random_states

Work = Callable[..., Tensor]
"""Computes a loss of shape () from tensors, and adds its gradients to those of parameters."""

Play = Callable[[], None]
"""Does recorded work again with what its tensors hold by then."""

Capture = Callable[[Callable[[], Tensor]], tuple[Play, Tensor]]
"""Records work without doing it: how to play it, and where each play leaves the loss."""


class CudaGraphs:
    """Records what work launches on the current GPU, a `Capture`.

    The graphs share the memory of what they compute on the way: they play one after the other, and
    what one leaves is taken before the next. They have a stream of their own: with a graph that
    ends, torch frees the memory that cuBLAS works in on the graph's stream, and torch's default
    stream for recording would be that of other trainings, too.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs;
    `CUDAGraph::reset` in PyTorch's aten/src/ATen/cuda/CUDAGraph.cpp.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Play, Tensor]:
        """Record `work`, which is not done by that."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            loss = work()
        return graph.replay, loss


@dataclass(frozen=True)
class _Recording:
    inputs: Sequence[Tensor]
    play: Play
    loss: Tensor


class Recorded:
    """Work that is recorded at the first call with inputs of new shapes, and played from then on.

    A small step is hundreds of short kernels, between which a GPU waits for Python to launch the
    next; a recording is launched whole. Its kernels, and so its numbers, are those of `work`.

    Args:
        work: What to record. It must not look at a tensor's values, nor keep any of its tensors.
            Work that draws random numbers, for dropout, is done every time: a recording's draws
            would depend on when it was recorded.
        parameters: Whose gradients it adds to. They stay where they are in memory, and so do their
            gradients, of which all recordings share one set.
        capture: How to record; None: as CUDA graphs.

    Checked by tests/unit/compute/test_graphs.py, and on a GPU by tests/gpu.
    """

    def __init__(
        self, work: Work, parameters: Sequence[nn.Parameter], capture: Capture | None = None
    ) -> None:
        self._work, self._parameters = work, parameters
        self._capture = capture or CudaGraphs()
        self._gradients: list[Tensor | None] = []
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}
        self._draws = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the loss, and add its gradients; parameters without any begin at zero.

        Args:
            inputs: What `work` takes, on any device.
        """
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self._recordings and not self._draws:
            self._record(shapes, inputs)
        if self._draws:
            return self.unrecorded(*inputs)
        recording = self._recordings[shapes]
        self._share_gradients()
        for held, given in zip(recording.inputs, inputs, strict=True):
            held.copy_(given, non_blocking=True)
        recording.play()
        return recording.loss.clone()

    def unrecorded(self, *inputs: Tensor) -> Tensor:
        """Do the work itself, which draws of dropout what a recording would."""
        device = self._parameters[0].device
        return self._work(*(tensor.to(device) for tensor in inputs))

    def close(self) -> None:
        """Forget the recordings, once the GPU has played what it was given of them.

        A graph that ended later, with the garbage, would do so amid another training.
        """
        if self._recordings and self._parameters[0].is_cuda:
            torch.cuda.synchronize(self._parameters[0].device)
        self._recordings.clear()

    def _record(self, shapes: tuple[torch.Size, ...], inputs: Sequence[Tensor]) -> None:
        device = self._parameters[0].device
        held = [tensor.to(device, copy=True) for tensor in inputs]
        states = random_states()
        self._do_once(held)
        drawn = random_states()
        self._draws = any(not torch.equal(states[name], drawn[name]) for name in states)
        # What the first time drew of dropout, a training that goes on here would not have drawn.
        restore_random_states(states)
        if not self._draws:
            self._share_gradients()
            play, loss = self._capture(partial(self._work, *held))
            self._recordings[shapes] = _Recording(held, play, loss)

    def _do_once(self, held: Sequence[Tensor]) -> None:
        """Do the work outside a recording, for what libraries do the first time, to no effect."""
        kept = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        with _beside(self._parameters[0].device):
            self._work(*held)
        if not self._gradients:
            self._gradients = [parameter.grad for parameter in self._parameters]
        for parameter, gradient in zip(self._parameters, kept, strict=True):
            parameter.grad = gradient

    def _share_gradients(self) -> None:
        """Let parameters have the gradients that recordings add to, at zero if they had none."""
        pairs = zip(self._parameters, self._gradients, strict=True)
        new = [(p, g) for p, g in pairs if g is not None and p.grad is not g]
        if new:
            torch._foreach_zero_([gradient for _, gradient in new])
        for parameter, gradient in new:
            parameter.grad = gradient


@contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """Work on another stream of a GPU than the current, on which nothing can be recorded."""
    if device.type != "cuda":
        yield
        return
    here, beside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    beside.wait_stream(here)
    with torch.cuda.stream(beside):
        yield
    here.wait_stream(beside)
