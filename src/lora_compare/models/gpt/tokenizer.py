"""Text to token ids: GPT-2's byte-level BPE, or one trained on a corpus."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lora_compare.errors import CheckpointError, DataError, DownloadError
from lora_compare.project import files

GPT2 = "gpt2"
"""Name of the encoding that is downloaded, not stored."""

END_OF_TEXT = "<|endoftext|>"
"""The one special token; it has the last id and no text is ever encoded to it."""

PATTERN = r"'(?:[sdmt]|ll|re|ve)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
"""GPT-2's rule for splitting text before merging, with possessive repeats: the same pieces
without the backtracking that overflows the matcher's stack on very long runs."""

LONGEST_TOKEN = 128
"""Most bytes in a token, which is also the length of GPT-2's longest."""

LOOKAHEAD = 4096
"""Characters read past the last one that a kept token can cover, so that the cut does not
change how the kept ones were merged."""

PIECE = 200_000
"""Characters encoded at once; a run of a million spaces would overflow the matcher's stack."""

GPT2_FILES = {
    "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe": (
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
    ),
    "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/encoder.json": (
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
    ),
}
"""Address and SHA-256 of the files from which tiktoken builds GPT-2's encoding."""


def train_encoding(
    texts: Iterable[str], vocabulary_size: int, name: str = "gpt2-nano"
) -> tiktoken.Encoding:
    """Return a byte-level BPE trained on `texts`, in GPT-2's conventions.

    Ids 0 to 255 are the single bytes in GPT-2's order, then the merges by rank, then
    `<|endoftext|>`. The result depends on the texts' words and their counts only, neither on
    the texts' order nor on hash seeds or threads.

    Args:
        texts: The corpus.
        vocabulary_size: Number of tokens, at least 257. A corpus with fewer distinct pairs
            gives fewer: read the result's `n_vocab`.
        name: Name of the encoding; `gpt2` is taken.

    Source: Sennrich et al. 2016, arXiv:1508.07909, section 3.2; Radford et al. 2019,
    "Language Models are Unsupervised Multitask Learners", section 2.2.
    Checked by tests/unit/models/test_tokenizer.py::test_ids_equal_those_of_the_training_library.
    """
    assert vocabulary_size >= 257, "all 256 bytes and the special token need an id"
    assert name != GPT2, "a stored file of this name stands for OpenAI's encoding"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=LONGEST_TOKEN,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    byte_of = {character: byte for byte, character in byte_alphabet().items()}
    return _encoding(
        name, [_as_bytes(token, byte_of) for token in sorted(ids, key=ids.__getitem__)]
    )


def gpt2_encoding() -> tiktoken.Encoding:
    """Return GPT-2's encoding, from tiktoken's cache or else from the network.

    tiktoken verifies the checksum of a cached file and fetches a damaged one again.

    Raises:
        DownloadError: A file is neither cached intact nor to be fetched, or the cache
            cannot be written; the message says which files to put where.
    """
    try:
        return tiktoken.get_encoding(GPT2)
    except (OSError, ValueError) as error:
        folder = cache_folder()
        wanted = [
            f"{folder / cached_name(url)}\n  from {url}\n  with sha256 {digest}"
            for url, digest in GPT2_FILES.items()
        ]
        raise DownloadError(
            "The files of GPT-2's tokenizer are not cached and could not be fetched.",
            where=str(folder),
            expected="\n".join(wanted),
            actual=str(error),
            next="connect to the network and run this again, or set TIKTOKEN_CACHE_DIR to a\n"
            "folder with these two files, or set model.name to gpt2-nano in params.yaml",
        ) from error


def cached_name(url: str) -> str:
    """Return the name under which tiktoken caches the file from `url`."""
    return hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()


def cache_folder() -> Path:
    """Return the folder in which tiktoken looks for its files."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return Path(os.environ[variable])
    return Path(tempfile.gettempdir()) / "data-gym-cache"


def encode(encoding: tiktoken.Encoding, text: str, max_length: int | None = None) -> list[int]:
    """Return the ids of the first `max_length` tokens of `text`.

    `<|endoftext|>` inside a text is text like any other. Of a very long text only the part
    that these tokens can cover is read, so the time is bounded by `max_length`. What is read
    is encoded in pieces of `PIECE` characters; only there can tokens differ from those of
    the whole text.

    Args:
        encoding: A byte-level encoding whose tokens have at most `LONGEST_TOKEN` bytes.
        text: What to encode; no text but the empty one gives no token.
        max_length: Most tokens to return, at least 1; None returns all.
    """
    return _encode_past(encoding, text, max_length)[:max_length]


def encode_all(
    encoding: tiktoken.Encoding, texts: Iterable[str], max_length: int | None = None
) -> tuple[list[NDArray[np.int64]], int]:
    """Return every text's ids as by `encode`, and how many texts were cut.

    Args:
        encoding: As for `encode`.
        texts: Texts of which none is empty.
        max_length: As for `encode`.

    Returns:
        One array of shape (tokens,) for each text, and the number of texts with more than
        `max_length` tokens.
    """
    sequences = []
    truncated = 0
    for text in texts:
        ids = _encode_past(encoding, text, max_length)
        assert ids, "the corpus refuses empty texts"
        truncated += max_length is not None and len(ids) > max_length
        sequences.append(np.array(ids[:max_length], dtype=np.int64))
    return sequences, truncated


def _encode_past(encoding: tiktoken.Encoding, text: str, max_length: int | None) -> list[int]:
    """Return all ids of `text`, or more than `max_length` of which that many are exact."""
    if max_length is not None:
        assert max_length >= 1
        text = text[: max_length * LONGEST_TOKEN + LOOKAHEAD]
    if len(text) <= PIECE:
        return encoding.encode_ordinary(text)
    pieces = (text[start : start + PIECE] for start in range(0, len(text), PIECE))
    return [token for piece in pieces for token in encoding.encode_ordinary(piece)]


def save_encoding(encoding: tiktoken.Encoding, path: Path) -> None:
    """Write `encoding`, from `train_encoding` or `gpt2_encoding`, to `path` as canonical JSON.

    The file holds `name`, `pattern`, `special` and `tokens`: in the order of their ranks, each
    byte shown as one printable character as in GPT-2's vocabulary files (a space is "Ġ").
    GPT-2's own encoding is stored as its name alone.
    """
    if encoding.name == GPT2:
        files.write_json(path, {"name": GPT2})
        return
    alphabet = byte_alphabet()
    tokens = [encoding.decode_single_token_bytes(rank) for rank in range(encoding.eot_token)]
    content = {
        "name": encoding.name,
        "pattern": PATTERN,
        "special": END_OF_TEXT,
        "tokens": ["".join(alphabet[byte] for byte in token) for token in tokens],
    }
    files.write_json(path, content)


def load_encoding(path: Path) -> tiktoken.Encoding:
    """Return the encoding that `save_encoding` wrote to `path`.

    Raises:
        CheckpointError: The file is missing or is not such a file.
        DownloadError: It names GPT-2's encoding, which cannot be fetched.
    """
    try:
        content = files.read_json(path)
    except FileNotFoundError:
        raise _refusal(path, "the file", "nothing") from None
    except DataError as error:
        raise _refusal(path, "JSON", error.actual) from error
    if content == {"name": GPT2}:
        return gpt2_encoding()
    _check_fields(path, content)
    return _encoding(content["name"], _checked_tokens(path, content["tokens"]))


def _check_fields(path: Path, content: Any) -> None:
    """Refuse a stored encoding whose fields, but for the tokens themselves, are wrong."""
    keys = ["name", "pattern", "special", "tokens"]
    if not isinstance(content, dict) or sorted(content) != keys:
        found = ", ".join(sorted(content)) if isinstance(content, dict) else type(content).__name__
        raise _refusal(path, f"an object with the keys {', '.join(keys)}", found)
    for key, only in {"pattern": PATTERN, "special": END_OF_TEXT}.items():
        if content[key] != only:
            raise _refusal(path, f"{key}: {only}", repr(content[key])[:200])
    for key, kind in {"name": str, "tokens": list}.items():
        if not isinstance(content[key], kind) or not content[key]:
            raise _refusal(
                path, f"{key}: a {kind.__name__} that is not empty", repr(content[key])[:200]
            )


def _checked_tokens(path: Path, stored: list[Any]) -> list[bytes]:
    """Return the bytes of the stored tokens; refuse what is no complete byte-level vocabulary."""
    byte_of = {character: byte for byte, character in byte_alphabet().items()}
    for rank, token in enumerate(stored):
        fits = isinstance(token, str) and 0 < len(token) <= LONGEST_TOKEN
        if not fits or not byte_of.keys() >= set(token):
            allowed = f"token {rank}: 1 to {LONGEST_TOKEN} characters of GPT-2's byte alphabet"
            raise _refusal(path, allowed, repr(token)[:200])
    tokens = [_as_bytes(token, byte_of) for token in stored]
    distinct = set(tokens)
    if len(distinct) < len(tokens):
        raise _refusal(path, "distinct tokens", f"{len(tokens) - len(distinct)} repeated")
    missing = [byte for byte in range(256) if bytes([byte]) not in distinct]
    if missing:
        raise _refusal(path, "a token for each of the 256 bytes", f"none for {missing[:10]}")
    return tokens


def _refusal(path: Path, expected: str, actual: str) -> CheckpointError:
    return CheckpointError(
        "The stored tokenizer cannot be used.",
        where=str(path),
        expected=expected,
        actual=actual,
        next="dvc repro --force base_model",
    )


def _encoding(name: str, tokens: Sequence[bytes]) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        name,
        pat_str=PATTERN,
        mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
        special_tokens={END_OF_TEXT: len(tokens)},
        explicit_n_vocab=len(tokens) + 1,
    )


def byte_alphabet() -> dict[int, str]:
    """Return the printable character that stands for each byte, in the order of GPT-2's ids.

    Visible Latin-1 characters stand for themselves, the other bytes for the characters from
    U+0100 on.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    named = [(byte, chr(byte)) for byte in visible]
    return dict(named + [(byte, chr(0x100 + index)) for index, byte in enumerate(hidden)])


def _as_bytes(token: str, byte_of: dict[str, int]) -> bytes:
    return bytes(byte_of[character] for character in token)
