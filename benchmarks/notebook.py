"""The published notebook's formulation, written plainly: the yardstick for results and for speed.

Batches are padded to the longest training text with no mask, every position goes through every
layer, the last position's logits classify, and LoRA is a separate sum beside each Linear layer.
"""

import math

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Causal attention with an explicit mask and softmax."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.future: Tensor
        future = torch.triu(torch.ones(context, context, dtype=torch.bool), diagonal=1)
        self.register_buffer("future", future)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended values; both have shape (b, t, d)."""
        b, t, d = x.shape
        q, k, v = (
            layer(x).view(b, t, self.heads, self.size).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(2, 3) / math.sqrt(self.size)
        weights = torch.softmax(scores.masked_fill(self.future[:t, :t], -torch.inf), dim=-1)
        y: Tensor = self.out((weights @ v).transpose(1, 2).reshape(b, t, d))
        return y


class Norm(nn.Module):
    """Layer normalisation from mean and variance."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` normalised along its last axis, in its shape."""
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return self.scale * (x - mean) / torch.sqrt(variance + 1e-5) + self.shift


class Gelu(nn.Module):
    """GPT-2's approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return GELU of every element of `x`, in its shape."""
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + torch.tanh(inner))


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads, context)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2, self.gelu = Norm(width), Norm(width), Gelu()

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual stream after the block; both have shape (b, t, d)."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.down(self.gelu(self.up(self.norm2(x))))
        return y


class NotebookGPT(nn.Module):
    """The network with its classification head; returns logits at every position."""

    def __init__(
        self, vocabulary: int, context: int, layers: int, heads: int, width: int, classes: int
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads, context) for _ in range(layers)))
        self.norm, self.head = Norm(width), nn.Linear(width, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits of shape (b, t, classes) for token ids of shape (b, t)."""
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


class LinearWithLoRA(nn.Module):
    """A Linear layer and, beside it, x A B scaled by alpha over rank."""

    def __init__(self, linear: nn.Linear, a: Tensor, b: Tensor, alpha: float) -> None:
        super().__init__()
        self.linear = linear
        self.a, self.b = nn.Parameter(a.clone()), nn.Parameter(b.clone())
        self.scale = alpha / a.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (..., d_out), of inputs of shape (..., d_in)."""
        y: Tensor = self.linear(x) + self.scale * (x @ self.a @ self.b)
        return y


NAMES = {
    "attn.q_proj": "attention.query",
    "attn.k_proj": "attention.key",
    "attn.v_proj": "attention.value",
    "attn.c_proj": "attention.out",
    "mlp.c_fc": "up",
    "mlp.c_proj": "down",
    "ln_1": "norm1",
    "ln_2": "norm2",
}


def notebook_name(name: str) -> str:
    """Return this formulation's name of a parameter or module of `Classifier`."""
    if name.startswith("score"):
        return name.replace("score", "head")
    name = name.removeprefix("gpt.").replace("wte", "tokens").replace("wpe", "positions")
    name = name.replace("ln_f", "norm").replace("h.", "blocks.", 1)
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    if "norm" in name:
        name = name.replace(".weight", ".scale").replace(".bias", ".shift")
    return name
