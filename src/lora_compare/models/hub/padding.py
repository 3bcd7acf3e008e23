"""A network of transformers on padded texts, without the work on padding that nothing looks at."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from torch import Tensor, nn

from lora_compare.compute.linear import Adaptable
from lora_compare.models.hub.settings import transformers

WORTHWHILE = 0.9
"""Share of real tokens above which it is quicker to compute with the padding."""


@contextmanager
def on_real_tokens(network: nn.Module, mask: Tensor) -> Iterator[None]:
    """Let a network's linear layers compute on real tokens alone within the block.

    A linear layer looks at one position at a time, and attention is masked where a text ends, so
    what real tokens get is the same. Padding gets zeros instead. For one thread at a time.

    Args:
        network: A network of transformers, with or without adapters.
        mask: Which positions hold real tokens, shape (b, t).

    Checked by tests/unit/models/hub/test_padding.py against the network without it.
    """
    if int(mask.sum()) > WORTHWHILE * mask.numel():
        yield
        return
    rows = mask.flatten().nonzero().flatten()
    # A served network answers in several threads, each with padding of its own.
    thread = get_ident()

    def gather(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor] | None:
        x: Tensor = inputs[0]
        # Other shapes are of pooled states, or of positions that all texts share.
        if x.shape[:-1] != mask.shape or get_ident() != thread:
            return None
        return (x.flatten(0, 1).index_select(0, rows),)

    def scatter(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if inputs[0].shape[:-1] != rows.shape or get_ident() != thread:
            return output
        whole = output.new_zeros(mask.numel(), output.shape[-1]).index_copy(0, rows, output)
        return whole.view(*mask.shape, -1)

    hooks = []
    for layer in _linear_layers(network):
        hooks += [layer.register_forward_pre_hook(gather), layer.register_forward_hook(scatter)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _linear_layers(network: nn.Module) -> Iterator[nn.Module]:
    """Yield every linear layer, an adapted one as a whole."""
    linear = (nn.Linear, transformers().pytorch_utils.Conv1D)
    inside = ""
    for path, module in network.named_modules():
        if inside and path.startswith(inside):
            continue
        is_adapted = isinstance(module, Adaptable)
        if is_adapted:
            inside = f"{path}."
        if is_adapted or isinstance(module, linear):
            yield module
