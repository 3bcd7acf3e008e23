"""Training with compiled code."""

import torch

from lora_compare.errors import ParamsError
from lora_compare.models.network import GPT, Block


def compile_blocks(gpt: GPT) -> None:
    """Let training compute the feed-forward part of every block with compiled code, in place.

    One compilation serves all blocks and all numbers of tokens; it happens in the first steps.
    Attention stays as it is: its loop over the texts would be compiled for every batch anew.
    Evaluations, which are short, run as before.

    Args:
        gpt: The network.

    Raises:
        ParamsError: This machine lacks what torch compiles with.

    Checked by tests/unit/training/test_compilation.py.
    """
    _try_out(next(gpt.parameters()).device)
    compiled = torch.compile(Block.feed_forward, dynamic=True)
    for block in gpt.h:
        assert isinstance(block, Block)
        block.compiled = compiled


def _try_out(device: torch.device) -> None:
    """Compile one sum, so that a missing compiler shows before the training."""
    from torch._dynamo.exc import BackendCompilerFailed

    try:
        torch.compile(torch.add)(torch.ones(2, device=device), 1)
    except BackendCompilerFailed as error:
        raise ParamsError(
            "Nothing can be compiled here.",
            where="training.compile",
            expected="a C++ compiler and Python's headers (on Debian and Ubuntu: g++, python3-dev)",
            actual=str(error).strip().splitlines()[0],
            next="install them, or set training.compile: false in params.yaml",
        ) from error
