"""transformers' fast tokenizers as this project's: texts alone, what goes around them apart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_compare.errors import CheckpointError
from lora_compare.models.batches import IntArray
from lora_compare.models.hub.settings import OTHER_MODEL

PROBES = ("a", "no 7, b")
"""Texts by which is found what a tokenizer puts around a text."""


@dataclass(frozen=True)
class HubTokenizer:
    """A fast tokenizer of transformers.

    Attributes:
        fast: The tokenizer itself.
        prefix: Ids that it puts before every text.
        suffix: Ids that it puts behind every text.
        pad: Id that fills up shorter texts of a batch.
    """

    fast: Any
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    pad: int

    def encode_all(self, texts: Iterable[str]) -> list[IntArray]:
        """Return the ids of every text, without prefix and suffix, at least one each.

        A special token inside a text is text like any other; where the vocabulary leaves it no
        other spelling, it is left out. A text of which nothing is left is the unknown token.

        Checked by tests/unit/models/hub/test_hub_tokenizer.py against transformers.
        """
        special = self._never_text()
        nothing = [self.pad if self.fast.unk_token_id is None else self.fast.unk_token_id]
        found = _ids(self.fast, list(texts), add_special_tokens=False, split_special_tokens=True)
        kept = ([token for token in ids if token not in special] for ids in found)
        return [np.array(ids or nothing, dtype=np.int64) for ids in kept]

    def _never_text(self) -> set[int]:
        """Return the ids that mean something to the network; the unknown token stands for text."""
        names = ("bos", "eos", "cls", "sep", "pad", "mask")
        ids = {getattr(self.fast, f"{name}_token_id") for name in names}
        return {token for token in ids if token is not None}


def wrap(fast: Any, pad: int) -> HubTokenizer:
    """Return a fast tokenizer with what it puts around texts.

    Args:
        fast: The tokenizer.
        pad: As for `HubTokenizer`.

    Raises:
        CheckpointError: It does more to a text than to put something around it.
    """
    around = {_around(*_ids(fast, [text]), *_ids(fast, [text], False)) for text in PROBES}
    found = around.pop()
    if found is None or around:
        raise CheckpointError(
            "The model's tokenizer does not just put the same tokens around every text.",
            where=str(fast.name_or_path),
            expected="the tokens of the text, and perhaps some before and behind",
            actual=", ".join(str(fast.convert_ids_to_tokens(_ids(fast, [t])[0])) for t in PROBES),
            next=OTHER_MODEL,
        )
    return HubTokenizer(fast, *found, pad)


def _ids(
    fast: Any, texts: list[str], add_special_tokens: bool = True, split_special_tokens: bool = False
) -> list[list[int]]:
    if not texts:
        return []
    found: list[list[int]] = fast(
        texts,
        add_special_tokens=add_special_tokens,
        split_special_tokens=split_special_tokens,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # that a text is longer than the model takes: it is cut later
    )["input_ids"]
    return found


def _around(
    whole: Sequence[int], text: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return what stands before and behind a text's ids, if they stand there as they are."""
    for start in range(len(whole) - len(text) + 1):
        if list(whole[start : start + len(text)]) == list(text):
            return tuple(whole[:start]), tuple(whole[start + len(text) :])
    return None


def choose_pad(fast: Any, config: Any, rows: int) -> int:
    """Return the id that fills up batches, and make it the tokenizer's and the config's, in place.

    It is the config's, on which the network's pooling and positions rest; else the tokenizer's;
    else, as is usual for models that were never padded, the end of a text.

    Args:
        fast: The tokenizer.
        config: The network's config.
        rows: Rows of its token embedding.

    Raises:
        CheckpointError: There is none of them.
    """
    known = (config.pad_token_id, fast.pad_token_id, fast.eos_token_id)
    pad = next((token for token in known if token is not None and 0 <= token < rows), None)
    token = None if pad is None else fast.convert_ids_to_tokens(pad)
    if pad is None or token is None:
        raise CheckpointError(
            "The model has no token to pad texts with.",
            where=str(fast.name_or_path),
            expected="pad_token_id in its config, or pad_token or eos_token in its tokenizer",
            actual=f"the ids {', '.join(map(str, known))}; the embedding has {rows} rows",
            next=f"name one of its tokens as pad_token in tokenizer_config.json, or {OTHER_MODEL}",
        )
    fast.pad_token = token
    config.pad_token_id = pad
    return int(pad)
