"""torch's optimizers without torch's compiler, which they import at their first use."""

from inspect import unwrap
from typing import Any

import torch


class Uncompiled(torch.optim.Optimizer):
    """An optimizer whose parameter groups are made and cleared without torch's compiler.

    torch wraps these methods so that a compiled training leaves them out. Nothing here is
    compiled, and the wrapper imports the compiler: a second of every stage that trains.
    """

    add_param_group: Any = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad: Any = unwrap(torch.optim.Optimizer.zero_grad)


class AdamW(Uncompiled, torch.optim.AdamW):
    """torch's AdamW, bit for bit.

    Checked by tests/unit/test_optimizers.py::test_steps_equal_those_of_torchs_adamw.
    """

    step: Any = torch.no_grad()(unwrap(torch.optim.AdamW.step))
