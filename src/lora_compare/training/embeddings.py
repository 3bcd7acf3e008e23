"""Training an embedding only where a text needs it, exactly as if it were trained whole."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_compare.models.batches import Examples
from lora_compare.models.network import Network


class SeenRows(nn.Module):
    """The rows of an embedding that some texts look up, as a smaller embedding of its own.

    Args:
        table: The whole embedding, of vocab_size rows.
        seen: Token ids whose rows are kept, shape (m,), sorted; with them that of padding, where
            `table` has one, whose row gets no gradient.

    Attributes:
        weight: The kept rows, shape (m, d), trained.
    """

    place: Tensor

    def __init__(self, table: nn.Embedding, seen: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(table.weight.detach()[seen])
        place = seen.new_zeros(table.num_embeddings)
        place[seen] = torch.arange(len(seen), device=seen.device)
        self.register_buffer("place", place)
        padding = table.padding_idx
        self.padding_idx = None if padding is None else int(place[padding])

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the rows of `tokens`, which must be among those kept, shape (..., d)."""
        return F.embedding(self.place[tokens], self.weight, self.padding_idx)


class Rest:
    """What AdamW does to rows without a gradient: its weight decay, and nothing else.

    Args:
        parked: The whole table, which is held meanwhile, if there is one.

    Attributes:
        factor: The product of all decays so far.
        parked: What is held of tensors that no model has.
    """

    def __init__(self, *parked: Tensor) -> None:
        self.factor = 1.0
        self.parked = parked

    def decay(self, factor: float) -> None:
        """Take in one step's decay, 1 - learning_rate * weight_decay."""
        self.factor *= factor


@contextmanager
def seen_rows(model: Network, splits: Sequence[Examples], spare: bool = True) -> Iterator[Rest]:
    """Let the token embedding be only the rows that `splits` look up, if it is trained.

    A row that no text looks up has no gradient, and AdamW's moments of it stay zero: all that
    happens to it is weight decay, the same factor for every such row. Leaving these rows
    out of every step spares their gradient and moments, of GPT-2's 50,257 rows most. After the
    block the embedding is whole again, with the rest decayed at once.

    Args:
        model: The classifier.
        splits: Every text that it will see in the block.
        spare: False leaves the embedding whole.

    Yields:
        Takes in each step's decay.

    Checked by tests/unit/training/test_embeddings.py against training the whole embedding.
    """
    path = model.embedding if spare else None
    table = model.get_submodule(path) if path else None
    # An adapted embedding is another kind of module.
    if path is None or not isinstance(table, nn.Embedding) or not table.weight.requires_grad:
        yield Rest()
        return
    rest = Rest(table.weight)
    padding = [i for i in (model.pad, table.padding_idx) if i is not None]
    looked_up = (tokens for split in splits for tokens in split.tokens)
    ids = np.unique(np.concatenate([np.array(padding, dtype=np.int64), *looked_up]))
    seen = torch.from_numpy(ids).to(table.weight.device)
    small = SeenRows(table, seen)
    model.set_submodule(path, small)
    try:
        yield rest
    finally:
        model.set_submodule(path, table)
        with torch.no_grad():
            table.weight.mul_(rest.factor)
            table.weight[seen] = small.weight
