"""GPT-2's network and its classification head, with separate query, key and value layers."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_compare.models.batches import Packed
from lora_compare.models.gpt.attention import (
    Attention,
    CausalSelfAttention,
    causal,
    of_last_tokens,
    within_texts,
)
from lora_compare.models.network import Network
from lora_compare.params import CONFIGS, GPTConfig, gpt2_paths

__all__ = ["CONFIGS", "GPT", "MLP", "Block", "Classifier", "GPTConfig", "Position", "initialise"]

Position = Literal["last_token", "last_position", "first", "mean"]


class MLP(nn.Module):
    """The feed-forward part of a block: four times as wide inside, GELU between.

    Args:
        config: The network's shape.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the block adds to the residual stream.

        Args:
            x: Normalised residual stream, shape (b, t, d); so is the result.
        """
        # GPT-2 was trained with the tanh form; the exact GELU would shift every activation.
        y: Tensor = self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))
        return y


class Block(nn.Module):
    """One transformer block with the norms in front (pre-norm).

    Args:
        config: The network's shape.

    Attributes:
        compiled: What training computes in place of `feed_forward`; None: that itself.
    """

    compiled: Callable[["Block", Tensor], Tensor] | None = None

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = CausalSelfAttention(config.n_embd, config.n_head)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, attend: Attention, rows: Tensor | None = None) -> Tensor:
        """Return the residual stream after the block.

        Args:
            x: Residual stream, shape (..., t, d).
            attend: As for `CausalSelfAttention`.
            rows: As for `CausalSelfAttention`.

        Returns:
            The residual stream at the wanted positions, as x in shape.
        """
        attended = self.attn(self.ln_1(x), attend, rows)
        x = (x if rows is None else x[rows]) + attended
        if self.compiled is not None and torch.is_grad_enabled():
            return self.compiled(self, x)
        return self.feed_forward(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Return the block's result for a residual stream with the attended values in it.

        Args:
            x: Residual stream, shape (..., t, d); so is the result.
        """
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y


class GPT(nn.Module):
    """A GPT-2 language model whose output layer is the token embedding, transposed.

    The names of its parameters are GPT-2's own, but for `c_attn`, which is split into
    `q_proj`, `k_proj` and `v_proj`.

    Args:
        config: The network's shape.

    Attributes:
        checkpointing: Whether training keeps the input of each block alone.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.context_length, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the final hidden states.

        Args:
            tokens: Token ids, shape (b, t) with t at most the context length. Padding goes
                to the right: attention is causal, so no real token ever sees it.

        Returns:
            Normalised hidden states, shape (b, t, d).

        Checked by tests/parity/test_gpt2_models.py against transformers.
        """
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = self._run(block, x, causal)
        y: Tensor = self.ln_f(x)
        return y

    def of_packed(self, texts: Packed, only_last: bool = False) -> Tensor:
        """Return the final hidden states of packed texts.

        Args:
            texts: b texts of n tokens in all.
            only_last: Return those of every text's last token alone. They are all that the
                last block's queries and feed-forward part then work on.

        Returns:
            Normalised hidden states, shape (n, d), or (b, d) of the last tokens.

        Checked by tests/unit/models/test_packing.py.
        """
        x = self.wte(texts.tokens) + self.wpe(texts.positions)
        within = within_texts(texts)
        *blocks, top = self.h
        for block in blocks:
            x = self._run(block, x, within)
        wanted = (of_last_tokens(texts), texts.last) if only_last else (within,)
        x = self._run(top, x, *wanted)
        y: Tensor = self.ln_f(x)
        return y

    def _run(self, block: nn.Module, *inputs: Any) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            # Here, because it imports torch's compiler: a second that few need to wait.
            from torch.utils.checkpoint import checkpoint

            return checkpoint(block, *inputs, use_reentrant=False)  # type: ignore[no-any-return]
        y: Tensor = block(*inputs)
        return y

    def next_token_logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the next token, shape (..., vocab_size) for (..., d)."""
        return F.linear(hidden, self.wte.weight)


class Classifier(Network):
    """A GPT that classifies a text by the hidden state at one position.

    Args:
        gpt: The network below the head.
        n_classes: Classes to tell apart.
        position: Whose hidden state is classified: the text's `last_token`, the batch's
            `last_position` (padding included, as in the book), the `first` token, or the
            `mean` over the text's tokens.
        bias: Whether the head has a bias.
    """

    model_type = "gpt2"
    head = ("score",)
    adapts_head = True  # as in the book
    embedding = "gpt.wte"

    def __init__(self, gpt: GPT, n_classes: int, position: Position, bias: bool = True) -> None:
        super().__init__()
        self.gpt = gpt
        self.position: Position = position
        self.n_classes = n_classes
        self.bias = bias
        self.score = nn.Linear(gpt.config.n_embd, n_classes, bias=bias)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits of the classes.

        Args:
            tokens: Token ids padded on the right, shape (b, t).
            lengths: Real tokens of each text, shape (b,), each from 1 to t.

        Returns:
            Logits, shape (b, n_classes).
        """
        logits: Tensor = self.score(self._pool(self.gpt(tokens), lengths))
        return logits

    def of_packed(self, texts: Packed) -> Tensor:
        """Return the logits of b packed texts, shape (b, n_classes).

        For `last_position` the texts hold their padding themselves.

        Checked by tests/unit/models/test_packing.py against `forward`.
        """
        if self.position == "mean":
            hidden = self.gpt.of_packed(texts)
            pooled = torch.stack([h.mean(dim=0) for h in hidden.split(texts.lengths)])
        else:
            # Attention looks back only: to the first token, the others do not exist.
            seen = texts.first_tokens() if self.position == "first" else texts
            pooled = self.gpt.of_packed(seen, only_last=True)
        return self._classified(pooled)

    def of_padded(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return what `forward` does, under autocast with the head in full precision."""
        return self._classified(self._pool(self.gpt(tokens), lengths))

    def _classified(self, pooled: Tensor) -> Tensor:
        with torch.autocast(pooled.device.type, enabled=False):  # bfloat16 has too few digits
            logits: Tensor = self.score(pooled)
        return logits

    def top(self, blocks: int) -> list[nn.Module]:
        """Return the head, and with any blocks the last `blocks` and the final norm."""
        # The book trains the final norm together with the last block.
        above = [self.gpt.ln_f, *list(self.gpt.h)[-blocks:]] if blocks else []
        return [self.score, *above]

    @property
    def output(self) -> nn.Module:
        """The head."""
        return self.score

    @property
    def checkpointing(self) -> bool:
        """Whether training keeps each block's input alone and computes the rest anew."""
        return self.gpt.checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        self.gpt.checkpointing = on

    def compile_blocks(self) -> None:
        """Let training compute the feed-forward part of every block with compiled code, in place.

        Attention's loop over the texts would be compiled for every batch anew.

        Checked by tests/unit/training/test_finetuning.py.
        """
        compiled = torch.compile(Block.feed_forward, dynamic=True)
        for block in self.gpt.h:
            assert isinstance(block, Block)
            block.compiled = compiled

    def aliases(self, path: str) -> list[str]:
        """Return the dotted path that a module has in transformers, if any."""
        return gpt2_paths(path)

    def _pool(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        if self.position == "last_token":
            return hidden[torch.arange(hidden.shape[0], device=hidden.device), lengths - 1]
        if self.position == "last_position":
            return hidden[:, -1]
        if self.position == "first":
            return hidden[:, 0]
        real = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]  # (b, t)
        return (hidden * real[..., None]).sum(dim=1) / lengths[:, None]


def initialise(gpt: GPT) -> GPT:
    """Give `gpt` GPT-2's random initial weights, in place, and return it.

    Weights are normal with standard deviation 0.02, biases zero; the layers that write to
    the residual stream are smaller by the root of their number.

    Source: Radford et al. 2019, section 2.3.
    """
    for name, parameter in gpt.named_parameters():
        if ".ln_" in name or name.startswith("ln_f"):
            continue
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            residual = name.endswith("c_proj.weight")
            scale = 1 / math.sqrt(2 * gpt.config.n_layer) if residual else 1.0
            nn.init.normal_(parameter, std=0.02 * scale)
    return gpt
