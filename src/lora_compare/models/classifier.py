"""A classifier over texts: tokens in, probabilities, loss and accuracy out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from lora_compare.compute.precision import computing_in
from lora_compare.compute.ranks import ALONE, Ranks
from lora_compare.errors import ParamsError
from lora_compare.models.answers.decision import PLAIN, Decision
from lora_compare.models.answers.targets import (
    ONE_CLASS,
    FloatArray,
    Targets,
    are_right,
    targets_of,
)
from lora_compare.models.batches import (
    Examples,
    IntArray,
    Truncation,
    by_length,
    collate,
    padded,
)
from lora_compare.models.network import Base, Network, Tokenizer
from lora_compare.params import ClassifierParams, TrainingParams
from lora_compare.project.progress import SILENT, Progress

TOKEN_BUDGET = 4096
"""Tokens of one forward pass: enough to fill the arithmetic units, small in memory."""

CUDA_BUDGET = 16_384
"""The same on CUDA, where a pass of few tokens only waits for its launches."""


@dataclass(frozen=True)
class Padding:
    """How texts are padded, where the last position of equally long texts is classified.

    Attributes:
        token: Token id on the right of shorter texts.
        length: Tokens that every text is padded to; None: texts keep their length.
    """

    token: int
    length: int | None = None

    def pad(self, tokens: IntArray) -> IntArray:
        """Return the token ids of a text, no longer than `length`, padded."""
        if self.length is None:
            return tokens
        missing = (0, self.length - len(tokens))
        return np.pad(tokens, missing, constant_values=self.token)


@dataclass(frozen=True)
class TextClassifier:
    """Everything that turns a text into probabilities.

    Attributes:
        model: The network with its head.
        tokenizer: The tokenizer.
        classes: Names of the classes, in the order of the logits.
        max_length: Most tokens of a text, those that the tokenizer puts around it included.
        padding: How texts are padded.
        truncation: Which tokens are kept of a longer text.
        targets: What the logits stand for.
        decision: How its probabilities become answers, of one class a text.
    """

    model: Network
    tokenizer: Tokenizer
    classes: list[str]
    max_length: int
    padding: Padding
    truncation: Truncation = "head"
    targets: Targets = ONE_CLASS
    decision: Decision = PLAIN

    def probabilities(self, texts: Sequence[str], progress: Progress = SILENT) -> FloatArray:
        """Return the probability of each class for each text, shape (n, n_classes).

        It is what `decision` makes of the network's own; its `answers` turn it into classes.
        """
        chances = self.chances(self._tokenized(texts, [0] * len(texts)), progress)
        return self.decision.probabilities(chances)

    def examples(self, texts: Sequence[str], labels: Sequence[int]) -> tuple[Examples, int]:
        """Return texts as tokens with their classes, and how many of them were cut."""
        return self.fit(self._tokenized(texts, labels))

    def _tokenized(self, texts: Sequence[str], labels: Sequence[int]) -> Examples:
        return Examples(self.tokenizer.encode_all(texts), np.asarray(labels, dtype=np.int64))

    def decided_by(self, logits: FloatArray, labels: IntArray) -> "TextClassifier":
        """Return the same with what its answers need that is chosen on validation.

        Args:
            logits: Of the validation split, shape (n, n_classes).
            labels: Its labels.
        """
        targets = self.targets
        return replace(self, targets=targets.fitted(targets.probabilities(logits), labels))

    def fit(self, examples: Examples) -> tuple[Examples, int]:
        """Return whole texts as this classifier takes them, and how many were cut.

        They are cut, the tokenizer's own tokens are put around them, and they are padded.
        """
        taken, cut = examples.cut(self._room, self.truncation)
        prefix, suffix = (np.array(ids, np.int64) for ids in self._around)
        whole = (np.concatenate([prefix, tokens, suffix]) for tokens in taken.tokens)
        return Examples([self.padding.pad(tokens) for tokens in whole], taken.labels), cut

    def is_cut(self, examples: Examples) -> npt.NDArray[np.bool_]:
        """Return whether each of n whole texts is longer than this classifier takes, shape (n,)."""
        return np.asarray(examples.lengths > self._room)

    def lost(self, examples: Examples) -> float:
        """Return the share of all tokens of whole texts, in 0..1, that `fit` takes away."""
        return examples.lost(self._room)

    @property
    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.tokenizer.prefix, self.tokenizer.suffix

    @property
    def _room(self) -> int:
        """Tokens of a text itself that have room."""
        return self.max_length - sum(map(len, self._around))

    def chances(
        self,
        examples: Examples,
        progress: Progress = SILENT,
        dtype: torch.dtype = torch.float32,
    ) -> FloatArray:
        """Return the network's own probability of each class for each example, (n, n_classes).

        Args:
            examples: n whole texts.
            progress: Where to report.
            dtype: Type of the arithmetic.
        """
        taken, _ = self.fit(examples)
        return self.targets.probabilities(predict_logits(self.model, taken, progress, dtype=dtype))


def start(
    base: Base,
    classes: list[str],
    train_examples: Examples,
    classifier: ClassifierParams,
    training: TrainingParams,
    seed: int,
) -> TextClassifier:
    """Return the untuned classifier of a training: the base model under a new head.

    Args:
        base: The network and its tokenizer; the network becomes part of the result.
        classes: Names of the classes.
        train_examples: The training split; position `last_position` pads to its longest text.
        classifier: The head.
        training: Longest text, and what is kept of a longer one.
        seed: Seed of the head's initial weights.
    """
    padded = None
    if classifier.position == "last_position":
        longest = int(train_examples.lengths.max())
        padded = min(longest, longest_text(base, training.max_length))
    length, targets = training.max_length, targets_of(train_examples.labels)
    return untuned(base, classes, classifier, seed, length, padded, training.truncation, targets)


def untuned(
    base: Base,
    classes: list[str],
    classifier: ClassifierParams,
    seed: int,
    max_length: int | None = None,
    padded_length: int | None = None,
    truncation: Truncation = "head",
    targets: Targets = ONE_CLASS,
) -> TextClassifier:
    """Return the base model under a new head: where every method starts.

    Args:
        base: The network and its tokenizer; the network is used, not copied.
        classes: Names of the classes.
        classifier: Position and bias of the head.
        seed: Seed of the head's initial weights.
        max_length: Tokens after which a text is cut; None: the model's context length.
        padded_length: Tokens of every padded text for position `last_position`; also the
            length at which longer texts are cut.
        truncation: Which tokens are kept of a longer text.
        targets: What the logits stand for.

    Raises:
        ParamsError: The model takes no texts of that length, or the head is none of its own.
    """
    return TextClassifier(
        base.new_classifier(len(classes), classifier, seed),
        base.tokenizer,
        classes,
        padded_length or longest_text(base, max_length),
        Padding(base.tokenizer.pad, padded_length),
        truncation,
        targets,
    )


def longest_text(base: Base, max_length: int | None) -> int:
    """Return the tokens after which a text is cut: `max_length`, or all that the model takes.

    Raises:
        ParamsError: The model takes no texts of that length.
    """
    least = 1 + len(base.tokenizer.prefix) + len(base.tokenizer.suffix)
    longest = base.context if max_length is None else max_length
    if least <= longest <= base.context:
        return longest
    raise ParamsError(
        "The model takes no texts of this length.",
        where="params.yaml: training.max_length",
        expected=f"{least} to {base.context}, or null, which is the most",
        actual=f"{longest}",
        next="set training.max_length accordingly",
    )


def predict_logits(
    model: Network,
    examples: Examples,
    progress: Progress = SILENT,
    description: str = "evaluate",
    dtype: torch.dtype = torch.float32,
    ranks: Ranks = ALONE,
    is_padded: bool = False,
) -> FloatArray:
    """Return the logits of every text, shape (n, n_classes), in the examples' order.

    The model is in evaluation mode meanwhile and in its former mode afterwards.

    Args:
        model: The classifier, on the device where it shall run.
        examples: The texts, n of them.
        progress: Where to report.
        description: What the progress says is being done.
        dtype: Type of the arithmetic: `bfloat16`, or any other for that of the weights.
        ranks: Who shares the texts; every rank gets all logits.
        is_padded: Whether to compute as recorded passes do, by `of_padded`.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    logits = torch.zeros((len(examples), model.n_classes), dtype=torch.float64)
    # Whole weights gathered in inference mode could not be used by a training's next step.
    without_gradient = torch.inference_mode() if ranks.is_alone else torch.no_grad()
    with without_gradient, progress.task(description, len(examples)) as advance:
        budget = CUDA_BUDGET if device.type == "cuda" else TOKEN_BUDGET
        for indices in by_length(examples.lengths, budget):
            own = ranks.share(indices)
            # A rank without a text takes part all the same: the others wait for its weights.
            batch = collate(examples.take(own if len(own) else indices[:1]))
            with computing_in(dtype, device):
                if is_padded:
                    tokens, lengths, _ = padded(batch, max(batch.texts.lengths))
                    found = model.of_padded(tokens.to(device), lengths.to(device))
                else:
                    found = model.of_packed(batch.texts.to(device))
            logits[own] = found.cpu().double()[: len(own)]
            advance(len(indices))
    model.train(was_training)
    result: FloatArray = ranks.total(logits).numpy()
    return result


def loss_and_accuracy(logits: FloatArray, labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the mean loss in nats and the fraction of right answers.

    Of several labels a text an answer is right if all of them are, each from a probability of 0.5.

    Args:
        logits: Shape (n, n_classes).
        labels: Of the texts, as in `Examples`.
    """
    targets = targets_of(labels)
    tensors = torch.from_numpy(logits), torch.from_numpy(labels)
    answers = targets.answers(targets.probabilities(logits))
    return float(targets.loss(*tensors, reduction="mean")), float(are_right(answers, labels).mean())
