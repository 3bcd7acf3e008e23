"""Which counterpart a classifier has, by the kind of its model."""

from collections.abc import Mapping

from torch import Tensor

from lora_compare.exchange.counterpart import Counterpart
from lora_compare.exchange.gpt import GPTCounterpart
from lora_compare.models.classifier import TextClassifier


def counterpart_of(classifier: TextClassifier, base: Mapping[str, Tensor]) -> Counterpart:
    """Return transformers' view of a classifier.

    Args:
        classifier: The classifier.
        base: The base's weights before fine-tuning and quantisation, by name.
    """
    return GPTCounterpart(classifier, base)
