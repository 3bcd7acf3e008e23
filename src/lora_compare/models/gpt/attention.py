"""Multi-head attention, and which positions see which."""

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_compare.compute.linear import project
from lora_compare.models.batches import Packed

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Returns what queries attend to, in their shape; all are of shape (..., t, h, d/h)."""


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return causal attention within each row of a batch; all have shape (b, t, h, d/h)."""
    return attention(q, k, v, is_causal=True)


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """Return softmax(q k^T / sqrt(d/h)) v for each row of a batch and each head.

    Args:
        q: Queries, shape (b, t, h, d/h).
        k: Keys, shape (b, s, h, d/h).
        v: Values, shape (b, s, h, d/h).
        mask: True where a query sees a key, shape (t, s); None: everywhere.
        is_causal: Whether query i sees the keys up to i alone; t equals s then.

    Returns:
        The attended values, shape (b, t, h, d/h).

    Source: Vaswani et al. 2017, arXiv:1706.03762, equation 1.
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)
    return y.transpose(1, 2)


def within_texts(texts: Packed) -> Attention:
    """Return causal attention within each of b packed texts of n tokens in all.

    Queries, keys and values have shape (n, h, d/h).

    Checked by tests/unit/models/test_packing.py.
    """
    return lambda q, k, v: _packed(texts, q, k, v, texts.lengths)


def of_last_tokens(texts: Packed) -> Attention:
    """Return the attention of each text's last token, which is to all of its text.

    Queries have shape (b, h, d/h), keys and values (n, h, d/h).
    """
    return lambda q, k, v: _packed(texts, q, k, v, (1,) * len(texts.lengths))


def _packed(texts: Packed, q: Tensor, k: Tensor, v: Tensor, queries: Sequence[int]) -> Tensor:
    """Let the last `queries[i]` tokens of text i, which `q` holds, attend to their past."""
    every = queries == texts.lengths
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        # Here, because it imports torch's compiler: a second that a CPU need not wait.
        from torch.nn.attention.varlen import varlen_attn

        bounds, most = texts.bounds, max(texts.lengths)
        asking = bounds if every else torch.arange(len(bounds), device=q.device).int()
        window = (-1, 0) if every else (-1, -1)
        attended = varlen_attn(q, k, v, asking, bounds, max(queries), most, window_size=window)
        assert isinstance(attended, Tensor)
        return attended
    # On a CPU the kernel for short sequences is several times faster in float32.
    wide = torch.promote_types(q.dtype, torch.float32)
    # Neighbours of equal length share a call.
    runs = [(length, len(list(run))) for length, run in groupby(texts.lengths)]
    rows = [count * (length if every else 1) for length, count in runs]
    columns = [count * length for length, count in runs]
    pieces = zip(
        runs,
        q.to(wide).split(rows),
        k.to(wide).split(columns),
        v.to(wide).split(columns),
        strict=True,
    )
    with torch.autocast(q.device.type, enabled=False):
        return torch.cat([_equally_long(count, every, *piece) for (_, count), *piece in pieces])


def _equally_long(count: int, causal: bool, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the attention within `count` texts of equal length; shapes as in `Packed`."""
    q, k, v = (z.unflatten(0, (count, -1)) for z in (q, k, v))  # (count, t, h, d/h)
    return attention(q, k, v, is_causal=causal).flatten(0, 1)


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a position sees itself and the positions before it.

    Args:
        n_embd: Width d of the residual stream.
        n_head: Heads h; divides n_embd.
    """

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.q_proj = nn.Linear(n_embd, n_embd)
        self.k_proj = nn.Linear(n_embd, n_embd)
        self.v_proj = nn.Linear(n_embd, n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)

    def forward(self, x: Tensor, attend: Attention, rows: Tensor | None = None) -> Tensor:
        """Return the attended values.

        Args:
            x: Normalised residual stream, shape (..., t, d).
            attend: Which positions see which.
            rows: Indices of those positions of x, shape (n, d), whose values are wanted; None:
                of all.

        Returns:
            What the block adds to the residual stream at the wanted positions, as x in shape.

        Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.
        """
        if rows is None:
            projected = project(x, (self.q_proj, self.k_proj, self.v_proj))
        else:
            projected = (self.q_proj(x[rows]), *project(x, (self.k_proj, self.v_proj)))
        q, k, v = (z.unflatten(-1, (self.n_head, -1)) for z in projected)  # (..., t, h, d/h)
        y: Tensor = self.c_proj(attend(q, k, v).flatten(-2))
        return y
