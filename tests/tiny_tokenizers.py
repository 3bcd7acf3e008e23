"""Tokenizers of real kinds, trained on the spot, for `tiny_models`."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, PreTrainedTokenizerFast

VOCABULARY = 300
"""Tokens at most, but for scripts with many letters."""

Maker = Callable[[Iterable[str]], PreTrainedTokenizerFast]


def trained(empty: PreTrainedTokenizerFast) -> Maker:
    """Return what trains a tokenizer of the kind of `empty`."""
    return lambda texts: empty.train_new_from_iterator(texts, VOCABULARY, show_progress=False)


def with_ends(make: Maker, template: str) -> Maker:
    """Return `make` with special tokens around every text, such as `<s>:0 $A:0`."""

    def made(texts: Iterable[str]) -> PreTrainedTokenizerFast:
        tokenizer = make(texts)
        tokens = [part.removesuffix(":0") for part in template.split() if "$" not in part]
        ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in tokens]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=ids
        )
        return tokenizer

    return made


def _byte_level(texts: Iterable[str], special: list[str], **names: str) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE that, as many on the hub, is of no architecture's own class."""
    backend = Backend(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def modernbert(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE with BERT's special tokens."""
    names = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("unk", "cls", "sep", "pad", "mask")}
    return _byte_level(texts, list(names.values()), **names)


def llama(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE with the special tokens of Llama 3, none of them for padding."""
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    return _byte_level(texts, list(names.values()), **names)


def mistral(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a BPE of words with a mark for the space before them, without a padding token."""
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    backend = Backend(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(special.values()), show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def unigram(kind: Callable[..., PreTrainedTokenizerFast], special: str, **settings: Any) -> Maker:
    """Return what makes a tokenizer of frequent words and of letters."""

    def made(texts: Iterable[str]) -> PreTrainedTokenizerFast:
        words, letters = _vocabulary(texts)
        pieces = [*((f"▁{word}", -2.0) for word in words), *((x, -9.0) for x in ("▁", *letters))]
        return kind(vocab=[*((token, 0.0) for token in special.split()), *pieces], **settings)

    return made


def wordpiece(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return BERT's tokenizer, of frequent words and of letters."""
    words, letters = _vocabulary(text.lower() for text in texts)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *words, *letters, *(f"##{letter}" for letter in letters)])
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})


def _vocabulary(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the most frequent words and the letters; two trainings would differ in ties."""
    words = Counter(word for text in texts for word in text.split())
    common = sorted(words, key=lambda word: (-words[word], word))
    return common[:100], sorted({letter for word in words for letter in word})[:90]
