"""What every kind of model is to its users: a base, its tokenizer, and a classifier on it.

`models.gpt` and `models.hub` are the kinds there are; training, evaluation, comparison and report
know neither.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from lora_compare.models.batches import IntArray, Packed
from lora_compare.params import ClassifierParams, LoraParams, customary


class Tokenizer(Protocol):
    """Text to token ids."""

    @property
    def prefix(self) -> tuple[int, ...]:
        """Ids that the model wants before every text; they count as part of its length."""
        ...

    @property
    def suffix(self) -> tuple[int, ...]:
        """Ids that it wants behind every text."""
        ...

    @property
    def pad(self) -> int:
        """Id that fills up shorter texts of a batch."""
        ...

    @property
    def unknown(self) -> int | None:
        """Id of what it has no token for; None: it has one for every text."""
        ...

    def encode_all(self, texts: Iterable[str]) -> list[IntArray]:
        """Return the ids of every text, without prefix and suffix, at least one each.

        A special token inside a text is text like any other.

        Args:
            texts: Texts of which none is empty.
        """
        ...


class Network(nn.Module, ABC):
    """A classifier: tokens in, logits out.

    Attributes:
        n_classes: Classes to tell apart.
        model_type: What transformers calls the architecture.
        position: As in params.yaml, whose hidden state is classified.
        bias: As in params.yaml, whether the head has a bias.
        head: Dotted paths of the modules that are new, not the base's.
        adapts_head: Whether LoRA on all linear layers is on the head, too. Otherwise the head is
            trained in full beside every adapter, as in PEFT.
        embedding: Dotted path of the token embedding; None where more than looking tokens up
            depends on it.
        pad: Id that `of_packed` looks up beside the texts' own, where it fills up batches; None:
            it looks up no other.
    """

    n_classes: int
    model_type: str
    position: str
    bias: bool
    head: tuple[str, ...]
    adapts_head: bool = False
    embedding: str | None = None
    pad: int | None = None

    @abstractmethod
    def of_packed(self, texts: Packed) -> Tensor:
        """Return the logits of b texts, shape (b, n_classes), prefix and suffix among their tokens.

        A text's logits depend neither on the other texts nor on their number or order.
        """

    @abstractmethod
    def of_padded(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits of b texts, shape (b, n_classes), by steps that shapes alone decide.

        Args:
            tokens: Token ids, shape (b, t), prefix and suffix among them, on the right any others.
            lengths: Tokens of each text, shape (b,), each from 1 to t.
        """

    @abstractmethod
    def top(self, blocks: int) -> list[nn.Module]:
        """Return the head, and with any blocks the last `blocks` and what is between them and it.

        Args:
            blocks: How many; a network of fewer gives all that it has.
        """

    @property
    @abstractmethod
    def output(self) -> nn.Module:
        """The head's last layer, whose weight has a row for each class."""

    @property
    @abstractmethod
    def checkpointing(self) -> bool:
        """Whether training keeps each block's input alone and computes the rest anew."""

    @checkpointing.setter
    @abstractmethod
    def checkpointing(self, on: bool) -> None: ...

    @abstractmethod
    def compile_blocks(self) -> None:
        """Let training compute the feed-forward part of every block with compiled code, in place.

        Raises:
            ParamsError: That helps no network of this kind.
        """

    @abstractmethod
    def aliases(self, path: str) -> Sequence[str]:
        """Return other dotted paths under which an adapter's settings may name a module.

        Args:
            path: The module's own.
        """

    def customary(self, settings: LoraParams) -> LoraParams:
        """Return an adapter's settings with what they leave to the architecture."""
        return customary(settings, self.model_type, () if self.adapts_head else self.head)

    def head_modules(self) -> tuple[nn.Module, ...]:
        """Return the modules of the head."""
        return tuple(self.get_submodule(path) for path in self.head)


@dataclass(frozen=True)
class Base(ABC):
    """A model before any fine-tuning, with its tokenizer.

    Attributes:
        network: The network below the head.
        tokenizer: Its tokenizer.
        description: What is known of it: name, weights, parameters, source, and what its kind
            adds. As config.json in the folder of `models.base.save_base` it also has the kind,
            the width, the context and the sha256 of the weights.
        kind: Which package of `models` it is of.
    """

    network: nn.Module
    tokenizer: Tokenizer
    description: dict[str, Any]
    kind: ClassVar[str]

    @property
    @abstractmethod
    def width(self) -> int:
        """Width of the residual stream."""

    @property
    @abstractmethod
    def context(self) -> int:
        """Longest text in tokens, prefix and suffix included."""

    @property
    @abstractmethod
    def remarks(self) -> list[str]:
        """What whoever has it made should read."""

    @abstractmethod
    def new_classifier(self, n_classes: int, head: ClassifierParams, seed: int) -> Network:
        """Return a classifier of the network, which is used and not copied, under a new head.

        Args:
            n_classes: Classes to tell apart.
            head: Position and bias of the head.
            seed: Seed of the head's initial weights.

        Raises:
            ParamsError: This network cannot have such a head.
        """

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """Return the network's tensors by name, not copied, no two sharing memory."""

    @abstractmethod
    def save_tokenizer(self, folder: Path) -> None:
        """Write all but the network's weights and the description to `folder`."""
