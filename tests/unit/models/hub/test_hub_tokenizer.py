"""A tokenizer of transformers: texts without what goes around them, cut as transformers cuts."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

from transformers import AutoConfig, AutoTokenizer

from lora_compare.models.batches import Examples
from lora_compare.models.classifier import Padding, TextClassifier
from lora_compare.models.hub.tokenizer import HubTokenizer, choose_pad, wrap
from tiny_models import ARCHITECTURES, make_model, sample_texts

EVERY = [
    pytest.param(name, marks=[] if name in ("bert", "t5", "llama") else [pytest.mark.slow])
    for name in ARCHITECTURES
]
TEXTS = [*sample_texts(8), "£9 now", "word " * 60, " two  spaces\n"]


@cache
def folder(architecture: str, root: Path) -> Path:
    return make_model(root / architecture, architecture)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


def load(architecture: str, root: Path) -> tuple[Any, HubTokenizer]:
    theirs = AutoTokenizer.from_pretrained(folder(architecture, root))
    config = AutoConfig.from_pretrained(folder(architecture, root))
    return theirs, wrap(theirs, choose_pad(theirs, config, config.vocab_size))


def fitted(tokenizer: HubTokenizer, length: int, truncation: Any) -> list[list[int]]:
    tokens = tokenizer.encode_all(TEXTS)
    examples = Examples(tokens, np.zeros(len(tokens), np.int64))
    classifier = TextClassifier(
        None,  # type: ignore[arg-type]  # the network has no part in it
        tokenizer,
        ["a"],
        length,
        Padding(tokenizer.pad),
        truncation,
    )
    return [ids.tolist() for ids in classifier.fit(examples)[0].tokens]


@pytest.mark.parametrize("architecture", EVERY)
@pytest.mark.parametrize(("truncation", "side"), [("head", "right"), ("tail", "left")])
def test_texts_are_cut_as_transformers_cuts_them(
    architecture: str, truncation: str, side: str, root: Path
) -> None:
    theirs, ours = load(architecture, root)
    for length in (4, 9, 64):
        theirs.truncation_side = side
        expected = theirs(TEXTS, truncation=True, max_length=length)["input_ids"]
        assert fitted(ours, length, truncation) == expected


def test_of_head_and_tail_a_quarter_is_the_head(root: Path) -> None:
    _, ours = load("bert", root)
    (prefix,), (suffix,) = ours.prefix, ours.suffix
    whole = ours.encode_all(TEXTS)
    found = fitted(ours, 14, "head_tail")
    for text, ids in zip(whole, found, strict=True):
        kept = text if len(text) <= 12 else [*text[:3], *text[-9:]]
        assert ids == [prefix, *kept, suffix]
    assert max(map(len, found)) == 14


@pytest.mark.parametrize("architecture", EVERY)
def test_special_tokens_in_a_text_mean_nothing(architecture: str, root: Path) -> None:
    theirs, ours = load(architecture, root)
    named = {theirs.pad_token, theirs.eos_token, theirs.bos_token, theirs.sep_token} - {None}
    special = set(theirs.convert_tokens_to_ids(sorted(named)))
    assert special
    for token in named:
        (ids,) = ours.encode_all([f"see {token} you"])
        assert not special & set(ids.tolist()), token
        assert len(ids) >= 2


def test_a_text_of_which_nothing_is_left_is_the_unknown_token(root: Path) -> None:
    theirs, ours = load("bert", root)
    assert theirs("\u200b", add_special_tokens=False)["input_ids"] == []
    (ids,) = ours.encode_all(["\u200b"])
    assert ids.tolist() == [theirs.unk_token_id]
