"""Which counterpart a classifier has, by the kind of its model."""

from collections.abc import Mapping

from torch import Tensor

from lora_compare.exchange.counterpart import Counterpart
from lora_compare.exchange.gpt import GPTCounterpart
from lora_compare.models.classifier import TextClassifier
from lora_compare.models.gpt.network import Classifier


def counterpart_of(classifier: TextClassifier, base: Mapping[str, Tensor]) -> Counterpart:
    """Return transformers' view of a classifier.

    Args:
        classifier: The classifier.
        base: The base's weights before fine-tuning and quantisation, by name.
    """
    if isinstance(classifier.model, Classifier):
        return GPTCounterpart(classifier, base)
    # Here, because GPT-2 needs nothing of transformers.
    from lora_compare.exchange.hub import HubCounterpart

    return HubCounterpart(classifier, base)
