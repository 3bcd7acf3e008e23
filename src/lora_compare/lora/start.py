"""Where the low-rank factors start."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from lora_compare.params import FROM_WEIGHT

Start = Literal[True, "gaussian", "pissa", "olora"]


def start_factors(weight: Tensor, r: int, scale: float, start: Start) -> tuple[Tensor, Tensor]:
    """Return the factors A, shape (r, d_in), and B, shape (d_out, r), before training.

    `pissa` takes the r largest singular values with their vectors, half of each value's root
    on either side; `olora` the first r columns of Q and rows of R. Both are computed in
    float32.

    Args:
        weight: The frozen W, shape (d_out, d_in).
        r: Rank.
        scale: Unitless factor of the update.
        start: The way to start, as in `init_lora_weights`.

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1; Meng et al. 2024, arXiv:2404.02948,
    equations 2 to 4; Büyükakyüz 2024, arXiv:2406.01775, section 3.
    Checked by tests/parity/test_peft.py.
    """
    if start in FROM_WEIGHT:
        a, b = _pissa(weight, r, scale) if start == "pissa" else _olora(weight, r)
        return a.to(weight.dtype).contiguous(), b.to(weight.dtype).contiguous()
    a = weight.new_empty(r, weight.shape[1])
    if start == "gaussian":
        nn.init.normal_(a, std=1 / r)
    else:
        # a = sqrt(5) gives the uniform bound 1/sqrt(d_in) that nn.Linear itself starts with.
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
    return a, weight.new_zeros(weight.shape[0], r)


def start_embedding_factors(table: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Return the factors of an embedding: A zero, B normal, as PEFT and loralib start them.

    Args:
        table: The frozen W, shape (embedding_dim, num_embeddings).
        r: Rank.
    """
    a = table.new_zeros(r, table.shape[1])
    return a, nn.init.normal_(table.new_empty(table.shape[0], r))


def _pissa(weight: Tensor, r: int, scale: float) -> tuple[Tensor, Tensor]:
    u, s, vh = torch.linalg.svd(weight.float(), full_matrices=False)
    root = torch.sqrt(s[:r] / scale)
    return root[:, None] * vh[:r], u[:, :r] * root


def _olora(weight: Tensor, r: int) -> tuple[Tensor, Tensor]:
    q, rest = torch.linalg.qr(weight.float())
    return rest[:r], q[:, :r]
