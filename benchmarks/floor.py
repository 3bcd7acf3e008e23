"""The arithmetic that a step cannot do without, hence a lower bound of its time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CLASSES = 2


@dataclass(frozen=True)
class Layer:
    """A Linear layer and how much of the batch has to go through it.

    Attributes:
        d_in: Inputs.
        d_out: Outputs.
        positions: Tokens that need its output.
        below_is_trained: Whether anything that is trained lies below, so that the gradient of
            its input is needed when only adapters are trained.
    """

    d_in: int
    d_out: int
    positions: int
    below_is_trained: bool = True


def linear_layers(shape: dict[str, int], lengths: Sequence[int]) -> Iterator[Layer]:
    """Yield the Linear layers of a classifier at the last token.

    No other position of the last block needs a query, an output or a feed-forward.

    Args:
        shape: Fields of the network's GPTConfig.
        lengths: Real tokens of each text of the batch.
    """
    d, tokens, texts = shape["n_embd"], sum(lengths), len(lengths)
    for block in range(shape["n_layer"]):
        needed = texts if block == shape["n_layer"] - 1 else tokens
        first = block == 0
        yield Layer(d, d, needed, not first)  # query
        yield Layer(d, d, tokens, not first)  # key
        yield Layer(d, d, tokens, not first)  # value
        yield Layer(d, d, needed)
        yield Layer(d, 4 * d, needed)
        yield Layer(4 * d, d, needed)
    yield Layer(d, CLASSES, texts)


def step_flops(shape: dict[str, int], method: str, lengths: Sequence[int], rank: int) -> int:
    """Return the floating-point operations of one optimizer step on unpadded texts.

    A matrix product of (n, d_in) and (d_in, d_out) is 2 n d_in d_out. A trained weight needs
    three (forward, gradient of its input, gradient of the weight: 6 a token), a frozen one two
    (4 a token), an adapter's weight three again. Attention needs 4 d a pair of positions
    forward and twice that backward. The rest (norms, GELU, softmax, AdamW) counts nothing.

    Args:
        shape: Fields of the network's GPTConfig.
        method: `lora` (on every Linear layer) or `full`.
        lengths: Real tokens of each text of the batch.
        rank: The adapters' rank.

    Checked by tests/unit/test_benchmarks.py.
    """
    total = 3 * attention_flops(shape, lengths)
    for layer in linear_layers(shape, lengths):
        weights = layer.d_in * layer.d_out
        if method == "full":
            total += 6 * weights * layer.positions
            continue
        total += (4 if layer.below_is_trained else 2) * weights * layer.positions
        a, b = rank * layer.d_in, rank * layer.d_out
        total += ((6 if layer.below_is_trained else 4) * a + 6 * b) * layer.positions
    return total


def prediction_flops(shape: dict[str, int], lengths: Sequence[int]) -> int:
    """Return the operations of classifying texts, adapters merged; arguments as above."""
    linear = (2 * x.d_in * x.d_out * x.positions for x in linear_layers(shape, lengths))
    return attention_flops(shape, lengths) + sum(linear)


def attention_flops(shape: dict[str, int], lengths: Sequence[int]) -> int:
    """Return the operations of scores and weighted sums in one forward pass.

    A position attends to itself and to those before it: t (t + 1) / 2 pairs a text, in the
    last block the last token's t.
    """
    pairs = sum(t * (t + 1) // 2 for t in lengths) * (shape["n_layer"] - 1) + sum(lengths)
    return 4 * shape["n_embd"] * pairs
