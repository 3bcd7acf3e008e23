"""Texts of unequal length as one row of tokens, and attention that stays within each text."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lora_compare.models.attention import attention


@dataclass(frozen=True)
class Packed:
    """b texts, one behind the other in one row of n tokens, without padding.

    Attributes:
        tokens: Token ids, shape (n,).
        positions: Place of every token in its own text, from 0, shape (n,).
        last: Index in `tokens` of every text's last token, shape (b,).
        bounds: Index in `tokens` at which every text begins, and n, int32, shape (b + 1,).
        lengths: Tokens of every text; on the host, so that nothing waits for a device to ask.
    """

    tokens: Tensor
    positions: Tensor
    last: Tensor
    bounds: Tensor
    lengths: tuple[int, ...]

    def to(self, device: torch.device) -> "Packed":
        """Return the texts on `device`."""
        tokens, positions, last, bounds = (
            tensor.to(device, non_blocking=True)
            for tensor in (self.tokens, self.positions, self.last, self.bounds)
        )
        return Packed(tokens, positions, last, bounds, self.lengths)

    def first_tokens(self) -> "Packed":
        """Return the texts cut after their first token."""
        starts = self.bounds[:-1].long()
        return Packed(
            self.tokens[starts],
            torch.zeros_like(starts),
            torch.arange(len(starts), device=starts.device),
            torch.arange(len(starts) + 1, dtype=torch.int32, device=starts.device),
            (1,) * len(starts),
        )

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return causal attention within each text.

        Args:
            q: Queries, shape (n, h, d/h).
            k: Keys, shape (n, h, d/h).
            v: Values, shape (n, h, d/h).

        Returns:
            The attended values, shape (n, h, d/h).

        Checked by tests/unit/test_packing.py.
        """
        return self._attend(q, k, v, queries=self.lengths)

    def attend_last(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what the last token of each text attends to: all of its text.

        Args:
            q: Queries of the last tokens, shape (b, h, d/h).
            k: Keys of all tokens, shape (n, h, d/h).
            v: Values of all tokens, shape (n, h, d/h).

        Returns:
            The attended values, shape (b, h, d/h).
        """
        return self._attend(q, k, v, queries=(1,) * len(self.lengths))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, queries: Sequence[int]) -> Tensor:
        """Let the last `queries[i]` tokens of text i, which `q` holds, attend to their past."""
        every = queries == self.lengths
        if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
            # Here, because it imports torch's compiler: a second that a CPU need not wait.
            from torch.nn.attention.varlen import varlen_attn

            bounds, most = self.bounds, max(self.lengths)
            asking = bounds if every else torch.arange(len(bounds), device=q.device).int()
            window = (-1, 0) if every else (-1, -1)
            attended = varlen_attn(q, k, v, asking, bounds, max(queries), most, window_size=window)
            assert isinstance(attended, Tensor)
            return attended
        # On a CPU the kernel for short sequences is several times faster in float32.
        wide = torch.promote_types(q.dtype, torch.float32)
        # Neighbours of equal length share a call.
        runs = [(length, len(list(run))) for length, run in groupby(self.lengths)]
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
            return torch.cat([_within(count, every, *piece) for (_, count), *piece in pieces])


def _within(count: int, causal: bool, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the attention within `count` texts of equal length; shapes as in `Packed`."""
    q, k, v = (z.unflatten(0, (count, -1)) for z in (q, k, v))  # (count, t, h, d/h)
    return attention(q, k, v, is_causal=causal).flatten(0, 1)


def pack(sequences: Sequence[npt.NDArray[np.int64]]) -> Packed:
    """Return token sequences, none of them empty, as one row."""
    lengths = np.array([len(sequence) for sequence in sequences])
    bounds = np.concatenate(([0], lengths.cumsum()))
    tokens = np.concatenate(sequences)
    positions = np.arange(len(tokens)) - np.repeat(bounds[:-1], lengths)
    return Packed(
        torch.from_numpy(tokens),
        torch.from_numpy(positions),
        torch.from_numpy(bounds[1:] - 1),
        torch.from_numpy(bounds.astype(np.int32)),
        tuple(lengths.tolist()),
    )
