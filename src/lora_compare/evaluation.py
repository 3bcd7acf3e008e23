"""A classifier over texts: tokens in, probabilities, loss and accuracy out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tiktoken
import torch
from torch import Tensor
from torch.func import functional_call

from lora_compare.batches import Examples, by_length, collate
from lora_compare.gpt import Classifier
from lora_compare.progress import SILENT, Progress
from lora_compare.tokenizer import encode_all

FloatArray = npt.NDArray[np.float64]

TOKEN_BUDGET = 4096
"""Positions of one forward pass: enough to fill the arithmetic units, small in memory."""


@dataclass(frozen=True)
class Padding:
    """How texts of unequal length become one batch.

    Attributes:
        token: Token id on the right of shorter texts.
        length: Tokens that every text is padded to; None: the longest of its batch.
    """

    token: int
    length: int | None = None


@dataclass(frozen=True)
class TextClassifier:
    """Everything that turns a text into probabilities.

    Attributes:
        model: The network with its head.
        encoding: The tokenizer.
        classes: Names of the classes, in the order of the logits.
        max_length: Tokens after which a text is cut.
        padding: How to fill up batches.
    """

    model: Classifier
    encoding: tiktoken.Encoding
    classes: list[str]
    max_length: int
    padding: Padding

    def examples(self, texts: Sequence[str], labels: Sequence[int]) -> tuple[Examples, int]:
        """Return the texts as tokens with their classes, and how many of them were cut."""
        tokens, cut = encode_all(self.encoding, texts, self.max_length)
        return Examples(tokens, np.asarray(labels, dtype=np.int64)), cut

    def probabilities(self, texts: Sequence[str], progress: Progress = SILENT) -> FloatArray:
        """Return the probability of each class for each text, shape (n, n_classes)."""
        examples, _ = self.examples(texts, [0] * len(texts))
        return self.chances(examples, progress)

    def chances(self, examples: Examples, progress: Progress = SILENT) -> FloatArray:
        """Return the probability of each class for each example, shape (n, n_classes)."""
        taken, _ = examples.cut(self.max_length)
        return softmax(predict_logits(self.model, taken, self.padding, progress))


@torch.inference_mode()
def predict_logits(
    model: Classifier,
    examples: Examples,
    padding: Padding,
    progress: Progress = SILENT,
    description: str = "evaluate",
    dtype: torch.dtype | None = None,
) -> FloatArray:
    """Return the logits of every text, shape (n, n_classes), in the examples' order.

    The model is in evaluation mode meanwhile and in its former mode afterwards.

    Args:
        model: The classifier, on the device where it shall run.
        examples: The texts, n of them.
        padding: How to fill up batches.
        progress: Where to report.
        description: What the progress says is being done.
        dtype: Floating-point type to compute in; None: that of the weights.
    """
    device = next(model.parameters()).device
    forward = model if dtype is None else _in_type(model, dtype)
    was_training = model.training
    model.eval()
    logits = np.empty((len(examples), model.n_classes), dtype=np.float64)
    lengths = examples.lengths
    widths = lengths if padding.length is None else np.full_like(lengths, padding.length)
    with progress.task(description, len(examples)) as advance:
        for indices in by_length(widths, TOKEN_BUDGET):
            batch = collate(examples.take(indices), padding.token, padding.length).to(device)
            logits[indices] = forward(batch.tokens, batch.lengths).cpu().double().numpy()
            advance(len(indices))
    model.train(was_training)
    return logits


def _in_type(model: Classifier, dtype: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
    """Return `model` as a function whose floating-point weights are of another type."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    cast = {n: tensor.to(dtype) for n, tensor in tensors.items() if tensor.is_floating_point()}
    return lambda tokens, lengths: functional_call(model, cast, (tokens, lengths))


def softmax(logits: FloatArray) -> FloatArray:
    """Return the probabilities of the classes; both arrays have shape (n, n_classes)."""
    result: FloatArray = torch.from_numpy(logits).softmax(dim=1).numpy()
    return result


def loss_and_accuracy(logits: FloatArray, labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the mean cross-entropy in nats and the fraction of right answers.

    Args:
        logits: Shape (n, n_classes).
        labels: Class indices, shape (n,).
    """
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    return float(loss), float((logits.argmax(axis=1) == labels).mean())
