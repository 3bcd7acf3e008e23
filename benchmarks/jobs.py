"""What is measured: the implementations, and one process's work as plain values."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

Text = list[int]
"""One message as token ids."""

Task = Literal["train", "predict", "matmul"]

RANK = 16
"""The adapters' rank and, as in the book, their alpha."""

SEED = 123

LEARNING_RATES = {"lora": 8e-4, "full": 5e-5}
WEIGHT_DECAY = 0.1
"""The book's; they do not matter for the time."""


@dataclass(frozen=True)
class Implementation:
    """One way to do the work.

    Attributes:
        family: Whose code it is: `notebook`, `transformers` or `lora-compare`.
        precision: What it computes in.
        padded: Whether every batch is padded to the longest training message, as in the book.
        evaluated: Whether predicting all messages is measured too.
        needs: Packages that it imports beside torch.
    """

    family: str
    precision: Literal["float32", "bfloat16"] = "float32"
    padded: bool = False
    evaluated: bool = False
    needs: tuple[str, ...] = ()


_HUGGING_FACE = ("transformers", "peft")

IMPLEMENTATIONS = {
    "notebook": Implementation("notebook", padded=True, evaluated=True),
    "transformers": Implementation("transformers", evaluated=True, needs=_HUGGING_FACE),
    "transformers-padded": Implementation("transformers", padded=True, needs=_HUGGING_FACE),
    "transformers-bfloat16": Implementation("transformers", "bfloat16", needs=_HUGGING_FACE),
    "lora-compare": Implementation("lora-compare", evaluated=True),
    "lora-compare-bfloat16": Implementation("lora-compare", "bfloat16", evaluated=True),
}
"""The implementations by name, in the order of the tables."""


@dataclass(frozen=True)
class Job:
    """What one process measures.

    Attributes:
        implementation: A name in IMPLEMENTATIONS; of `matmul` without meaning.
        task: Optimizer steps, predictions, or the machine's plain matrix products.
        method: `lora` or `full`.
        shape: Fields of the network's GPTConfig.
        texts: Messages in the order in which they are worked on.
        labels: Their classes, 0 or 1.
        batch_size: Messages an optimizer step.
        padded_length: Tokens of the longest training message.
        warmup: First steps, which are not timed.
        threads: CPU threads.
        device: `cpu`, `cuda` or `mps`.
        rank: Rank and alpha of the adapters.
        vocabulary: Token ids in the whole training split, of which `texts` is a part; empty:
            those in `texts`.
        recorded: Whether lora-compare plays its passes from recordings, on a GPU.
    """

    implementation: str
    task: Task
    method: str
    shape: dict[str, int]
    texts: list[Text]
    labels: list[int]
    batch_size: int
    padded_length: int
    warmup: int
    threads: int
    device: str
    rank: int = RANK
    vocabulary: Sequence[int] = ()
    recorded: bool = False

    @property
    def pad_token(self) -> int:
        """The token id that fills up batches: the vocabulary's last, GPT-2's end of text."""
        return self.shape["vocab_size"] - 1

    @property
    def width(self) -> int | None:
        """Tokens that every batch is padded to; None: the longest of the batch."""
        return self.padded_length if IMPLEMENTATIONS[self.implementation].padded else None

    @property
    def precision(self) -> Literal["float32", "bfloat16"]:
        """What the implementation computes in."""
        return IMPLEMENTATIONS[self.implementation].precision

    def batches(self) -> list[tuple[list[Text], list[int]]]:
        """Return texts and labels of every step, those of the warm-up included."""
        starts = range(0, len(self.texts), self.batch_size)
        ends = [(start, start + self.batch_size) for start in starts]
        return [(self.texts[a:b], self.labels[a:b]) for a, b in ends]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, for the process that does the work."""
        return asdict(self)


@dataclass(frozen=True)
class Contender:
    """An implementation, ready to work.

    Attributes:
        model: Its network.
        step: Does one optimizer step on texts with labels and returns their mean loss.
        predict: Computes the logits of texts, and does nothing with them.
    """

    model: nn.Module
    step: Callable[[list[Text], list[int]], float]
    predict: Callable[[list[Text]], None]
