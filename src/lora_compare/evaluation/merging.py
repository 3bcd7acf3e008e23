"""What merging an adapter into its base changes in the answers."""

import torch

from lora_compare import lora
from lora_compare.models.answers.targets import FloatArray
from lora_compare.models.batches import Examples
from lora_compare.models.classifier import TextClassifier, predict_logits

MERGE_CHECKED = 64
"""Texts on which the error of merging is measured."""


def merge_error(classifier: TextClassifier, texts: Examples) -> dict[str, float]:
    """Merge the adapter, and return how much that changes the logits, by arithmetic.

    Each figure is the largest absolute difference between the logits of the adapted model and
    of the merged one, whose weights are float32.

    Args:
        classifier: A classifier with an active adapter; afterwards it is merged for good.
        texts: Whole texts to compare on; the first `MERGE_CHECKED` are taken.
    """
    examples, _ = classifier.fit(texts.take(range(min(MERGE_CHECKED, len(texts)))))
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}

    def logits() -> dict[str, FloatArray]:
        return {
            name: predict_logits(classifier.model, examples, dtype=dtype)
            for name, dtype in dtypes.items()
        }

    adapted = logits()
    lora.merge_and_unload(classifier.model)
    merged = logits()
    return {name: float(abs(adapted[name] - merged[name]).max()) for name in dtypes}
