"""The messages that every implementation works on, as tokens in one order."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tiktoken

from benchmarks.jobs import SEED, Text
from lora_compare.data.sources import load_corpus
from lora_compare.data.splits import split
from lora_compare.errors import DownloadError
from lora_compare.models.batches import Examples, epoch_order
from lora_compare.models.gpt.base import GPTTokenizer
from lora_compare.models.gpt.network import CONFIGS
from lora_compare.models.gpt.tokenizer import encode_all, gpt2_encoding, train_encoding
from lora_compare.params import DataParams, SplitParams
from lora_compare.project.corpus import make_corpus
from lora_compare.project.paths import SPLITS, Paths

SMS = Path("sms") / "SMSSpamCollection"
"""The real collection's place in $LORA_COMPARE_ASSETS."""

NANO_VOCABULARY = CONFIGS["gpt2-nano"].vocab_size


@dataclass(frozen=True)
class Workload:
    """Balanced, split and tokenised messages.

    Attributes:
        train: The training split in the order of the first epoch.
        labels: Its classes.
        everything: All splits' messages, to predict, cut at `padded_length` as in the book.
        padded_length: Tokens of the longest training message.
        description: Where the messages come from and how long they are.
    """

    train: list[Text]
    labels: list[int]
    everything: list[Text]
    padded_length: int
    description: dict[str, Any]


def make_workload(messages: Path | None, model: str, batch_size: int) -> Workload:
    """Return the work: one's own messages, the SMS Spam Collection or the bundled corpus.

    Balanced and split as the book does; one's own file, which may have line breaks, as the
    pipeline does. More than two classes become two: the network's head has two outputs.

    Args:
        messages: A file that the pipeline reads; None: the SMS Spam Collection in
            $LORA_COMPARE_ASSETS, or else the corpus that ships with the project.
        model: The network's name; `gpt2-nano` has a tokenizer of its own.
        batch_size: Messages a step, for the share of padding.

    Raises:
        DataError: The file cannot be used.
    """
    source, name = _choose_source(messages)
    frames = _split(source, own=messages is not None)
    encoding, tokenizer = _choose_encoding(model, frames["unused"]["Text"].tolist())
    limit = CONFIGS[model].context_length
    texts = {s: _tokens(encoding, frames[s]["Text"].tolist(), limit) for s in SPLITS}
    order = epoch_order(len(texts["train"]), SEED, 0)
    train = [texts["train"][i] for i in order]
    labels = [min(1, int(label)) for label in frames["train"]["Label"].to_numpy()[order]]
    lengths = np.array([len(text) for text in train])
    longest = int(lengths.max())
    return Workload(
        train,
        labels,
        [text[:longest] for s in SPLITS for text in texts[s]],
        longest,
        {"source": name, "tokenizer": tokenizer, **length_figures(lengths.tolist(), batch_size)},
    )


def bundled_splits() -> tuple[dict[str, Examples], tiktoken.Encoding]:
    """Return the bundled corpus in the book's split, and the tokenizer, which needs no network."""
    frames = _split("bundled", own=False)
    encoding, _ = _trained(frames["unused"]["Text"].tolist())
    tokenizer = GPTTokenizer(encoding)
    return {
        name: Examples(
            tokenizer.encode_all(frames[name]["Text"].tolist()),
            frames[name]["Label"].to_numpy(dtype=np.int64),
        )
        for name in SPLITS
    }, encoding


def _split(source: str, own: bool) -> Mapping[str, pd.DataFrame]:
    data = DataParams(source=source, text_column="text", label_column="label")
    corpus, _ = load_corpus(data, Paths(Path.cwd()))
    settings = SplitParams(
        mode="stratified" if own else "appendix_e",
        deduplicate="exact" if own else "none",
        balance="undersample",
        train=0.7,
        validation=0.1,
        seed=SEED,
    )
    return split(make_corpus(corpus["label"], corpus["text"]), settings)[0]


def length_figures(lengths: Sequence[int], batch_size: int) -> dict[str, Any]:
    """Return how long messages are, and the share of padding in their batches.

    Args:
        lengths: Tokens of every message in the order of the batches.
        batch_size: Messages a batch.
    """
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    filled = sum(max(batch) * len(batch) for batch in batches)
    return {
        "messages": len(lengths),
        "mean_tokens": sum(lengths) / len(lengths),
        "longest_tokens": max(lengths),
        "padding_to_longest_of_all": 1 - sum(lengths) / (len(lengths) * max(lengths)),
        "padding_to_longest_of_batch": 1 - sum(lengths) / filled,
    }


def random_texts(n: int, length: int, vocabulary: int) -> list[Text]:
    """Return `n` messages of exactly `length` random tokens, none of which is padding."""
    drawn = np.random.default_rng(SEED).integers(0, vocabulary - 1, (n, length))
    texts: list[Text] = drawn.tolist()
    return texts


def _choose_source(messages: Path | None) -> tuple[str, str]:
    """Return what `load_corpus` shall open, and what to call it."""
    if messages is not None:
        return str(messages.resolve()), messages.name
    assets = os.environ.get("LORA_COMPARE_ASSETS")
    if assets and (Path(assets) / SMS).is_file():
        # tiktoken reads its own variable; what the user set is left as it is.
        os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(Path(assets) / "tiktoken_cache"))
        return str(Path(assets).resolve() / SMS), "SMS Spam Collection"
    return "bundled", "bundled corpus"


def _choose_encoding(model: str, texts: list[str]) -> tuple[tiktoken.Encoding, str]:
    """Return GPT-2's encoding where it is to be had, else one trained on unused messages."""
    if model == "gpt2-nano":
        return _trained(texts)
    try:
        return gpt2_encoding(), "GPT-2's"
    except DownloadError:
        return _trained(texts)


def _trained(texts: list[str]) -> tuple[tiktoken.Encoding, str]:
    encoding = train_encoding(texts, NANO_VOCABULARY)
    return encoding, f"trained on the unused messages, {encoding.n_vocab:,} tokens"


def _tokens(encoding: tiktoken.Encoding, texts: list[str], limit: int) -> list[Text]:
    return [ids.tolist() for ids in encode_all(encoding, texts, limit)[0]]
