"""The tokenizer against the library that trains it, GPT-2's own files, and broken ones."""

import importlib
import inspect
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
import tiktoken.load
import tiktoken.registry
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer

from lora_compare.errors import CheckpointError, DownloadError
from lora_compare.models.gpt import tokenizer
from lora_compare.project import files

PHRASES = """free prize call now txt won claim ur mobile the a to you me i'll don't they're gonna
£1000 08001950382 15/07 http://x.co/ab meet later lunch? ok!! naïve café Zürich 東京 привет
😀 👩‍👩‍👧 ❤️ e\u0301 \u00a0 <|endoftext|> ... <#> WIN!!! it's we've i'd she'm"""
WORDS = PHRASES.split(" ")
SIZE = 400

TEXTS = [
    " ".join(random.Random(seed).choices(WORDS, k=12)) + "\n" * (seed % 3) for seed in range(400)
]

AWKWARD = [
    "<|endoftext|>",
    "a <|endoftext|>\tb",
    "  leading and trailing  ",
    "\r\n\r\n \t x",
    "\x00\x01\x7f\x85\u2028",
    "👩🏽‍🚀🏴󠁧󠁢󠁳󠁣󠁴󠁿🇩🇪",
    "e\u0301\u0302 ﬁ Ǆ İ",
    "مرحبا שלום नमस्ते 你好 안녕",
    "I'M WE'LL 'twas ''s",
    "1234567890½Ⅷ٣",
    "\ufeffbom \ud7ff\ue000\U0010ffff",
    "a" * 300 + " " * 300 + "b",
]

OFFLINE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def encoding() -> tiktoken.Encoding:
    return tokenizer.train_encoding(TEXTS, SIZE)


@pytest.fixture(scope="module")
def reference() -> ByteLevelBPETokenizer:
    """The training library's ready-made byte-level BPE: its own trainer and its own encoder."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(TEXTS, vocab_size=SIZE - 1, min_frequency=0, show_progress=False)
    return bpe


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request goes to a port where nobody listens, and no encoding is in memory."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, OFFLINE)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(tiktoken.registry.ENCODINGS, "gpt2", raising=False)


@pytest.fixture
def real_cache(assets: Path) -> Path:
    return assets / "tiktoken_cache"


@pytest.mark.parametrize("text", [*AWKWARD, *TEXTS[:20]])
def test_ids_equal_those_of_the_training_library(
    encoding: tiktoken.Encoding, reference: ByteLevelBPETokenizer, text: str
) -> None:
    assert tokenizer.encode(encoding, text) == reference.encode(text).ids


@settings(deadline=None, max_examples=300)
@given(
    text=st.text()
    | st.text(alphabet="aeht '1.\n😀é<|>")
    | st.lists(st.sampled_from(WORDS)).map(" ".join)
)
def test_any_text_has_the_library_s_ids_and_comes_back(
    encoding: tiktoken.Encoding, reference: ByteLevelBPETokenizer, text: str
) -> None:
    ids = tokenizer.encode(encoding, text)
    assert ids == reference.encode(text).ids
    assert encoding.decode(ids) == text
    assert encoding.eot_token not in ids


def test_every_token_of_the_vocabulary_is_the_library_s(
    encoding: tiktoken.Encoding, reference: ByteLevelBPETokenizer
) -> None:
    for rank in range(encoding.n_vocab - 1):
        expected = reference.decode([rank]).encode()
        token = encoding.decode_single_token_bytes(rank)
        # The library shows a part of a character as the replacement character.
        assert token == expected or token.decode(errors="replace").encode() == expected


@pytest.mark.parametrize("size", [257, 258, 300, SIZE])
def test_vocabulary_has_the_asked_size_with_the_special_token_last(size: int) -> None:
    encoding = tokenizer.train_encoding(TEXTS, size)
    assert encoding.n_vocab == size
    assert encoding.eot_token == size - 1
    assert encoding.special_tokens_set == {"<|endoftext|>"}
    assert encoding.name == "gpt2-nano"


def test_small_corpus_gives_fewer_tokens_without_gaps() -> None:
    encoding = tokenizer.train_encoding(["abab"], 1000)
    assert encoding.n_vocab == 256 + 2 + 1
    assert [encoding.decode_single_token_bytes(rank) for rank in (256, 257)] == [b"ab", b"abab"]
    assert tokenizer.train_encoding([], 1000).n_vocab == 257


def test_training_does_not_depend_on_the_order_of_texts(
    encoding: tiktoken.Encoding, tmp_path: Path
) -> None:
    shuffled = random.Random(1).sample(TEXTS, k=len(TEXTS))
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    tokenizer.save_encoding(encoding, paths[0])
    tokenizer.save_encoding(tokenizer.train_encoding(shuffled, SIZE), paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_file_bytes_do_not_depend_on_hash_seed_or_threads(
    encoding: tiktoken.Encoding, tmp_path: Path
) -> None:
    tokenizer.save_encoding(encoding, tmp_path / "tokenizer.json")
    texts = tmp_path / "texts.json"
    files.write_json(texts, TEXTS)
    code = (
        "import json, sys; from pathlib import Path\n"
        "from lora_compare.models.gpt import tokenizer as t;"
        "texts = json.loads(Path(sys.argv[1]).read_text());"
        f"t.save_encoding(t.train_encoding(texts, {SIZE}), Path(sys.argv[2]))"
    )
    for seed, parallel in (("0", "false"), ("1", "true"), ("4294967295", "true")):
        other = tmp_path / f"{seed}.json"
        changes = {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel}
        environment = {**os.environ, **changes}
        command = [sys.executable, "-W", "error", "-c", code, str(texts), str(other)]
        subprocess.run(command, env=environment, check=True)
        assert other.read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_saved_encoding_loads_with_the_same_ids_and_saves_the_same_bytes(
    encoding: tiktoken.Encoding, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save_encoding(encoding, path)
    loaded = tokenizer.load_encoding(path)
    assert (loaded.name, loaded.n_vocab) == (encoding.name, encoding.n_vocab)
    for text in AWKWARD + TEXTS:
        assert tokenizer.encode(loaded, text) == tokenizer.encode(encoding, text)
    tokenizer.save_encoding(loaded, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_stored_bytes_are_shown_as_in_the_library_s_vocabulary(
    encoding: tiktoken.Encoding, reference: ByteLevelBPETokenizer, tmp_path: Path
) -> None:
    tokenizer.save_encoding(encoding, tmp_path / "tokenizer.json")
    stored = files.read_json(tmp_path / "tokenizer.json")
    assert {token: rank for rank, token in enumerate(stored["tokens"])} == reference.get_vocab()


def test_end_of_text_in_a_message_is_ordinary_text(encoding: tiktoken.Encoding) -> None:
    ids = tokenizer.encode(encoding, "<|endoftext|>")
    assert len(ids) > 1
    assert encoding.eot_token not in ids
    assert encoding.decode(ids) == "<|endoftext|>"


@settings(deadline=None, max_examples=100)
@given(
    unit=st.text(min_size=1, max_size=6),
    tail=st.text(max_size=30),
    repeats=st.integers(1_000, 12_000),
    max_length=st.integers(1, 40),
)
def test_cutting_a_long_text_first_keeps_the_first_tokens(
    encoding: tiktoken.Encoding, unit: str, tail: str, repeats: int, max_length: int
) -> None:
    text = unit * repeats + tail
    whole = encoding.encode_ordinary(text)
    assert tokenizer.encode(encoding, text, max_length) == whole[:max_length]


def test_trained_tokens_are_never_longer_than_the_cut_assumes() -> None:
    encoding = tokenizer.train_encoding(["-" * 1024, " " * 1024, "\x00" * 1024], 1000)
    tokens = [encoding.decode_single_token_bytes(rank) for rank in range(encoding.eot_token)]
    assert 64 <= max(map(len, tokens)) <= 128


def test_cut_does_not_reach_back_into_the_longest_token() -> None:
    tokens = [bytes([byte]) for byte in range(256)] + [b"ab"]
    tokens += [b"a" * 2**power for power in range(1, 8)]
    encoding = tokenizer._encoding("long", tokens)
    # The last a is merged with the b first, so the others are one too few for that token.
    text = "a" * 128 + "b"
    assert tokenizer.encode(encoding, text, 1) == encoding.encode_ordinary(text)[:1]
    assert tokenizer.encode(encoding, text, 1) != tokenizer.encode(encoding, text[:-1], 1)


@pytest.mark.parametrize("unit", ["a", " ", "\n", "😀", "ab c1!", "!", "\u00a0", "e\u0301"])
def test_hundred_thousand_characters_take_bounded_time(
    encoding: tiktoken.Encoding, unit: str
) -> None:
    text = (unit * 100_000)[:100_000] + "x"
    start = time.process_time()
    ids = tokenizer.encode(encoding, text, 256)
    assert time.process_time() - start < 2
    assert ids == encoding.encode_ordinary(text)[:256]


def test_spaces_that_overflow_the_matcher_are_cut_first(encoding: tiktoken.Encoding) -> None:
    text = " " * 3_000_000 + "x"
    sequences, truncated = tokenizer.encode_all(encoding, [text], 1024)
    assert (len(sequences[0]), truncated) == (1024, 1)
    assert encoding.decode(tokenizer.encode(encoding, text)) == text


@pytest.mark.parametrize("max_length", [None, 1, 7, 10_000])
def test_encode_all_counts_exactly_the_texts_that_it_cuts(
    encoding: tiktoken.Encoding, max_length: int | None
) -> None:
    texts = [*TEXTS[:50], "<|endoftext|>", "ok", "x" * 100_000]
    lengths = [len(encoding.encode_ordinary(text)) for text in texts]
    sequences, truncated = tokenizer.encode_all(encoding, texts, max_length)
    limit = max_length or max(lengths)
    assert truncated == sum(length > limit for length in lengths)
    assert [len(sequence) for sequence in sequences] == [min(n, limit) for n in lengths]
    assert all(sequence.dtype == np.int64 for sequence in sequences)
    for sequence, text in zip(sequences, texts, strict=True):
        assert sequence.tolist() == tokenizer.encode(encoding, text, max_length)


def test_text_of_exactly_the_limit_is_not_counted_as_cut(encoding: tiktoken.Encoding) -> None:
    length = len(encoding.encode_ordinary(TEXTS[0]))
    assert tokenizer.encode_all(encoding, [TEXTS[0]], length)[1] == 0
    assert tokenizer.encode_all(encoding, [TEXTS[0]], length - 1)[1] == 1


def _without_newline_byte(content: dict[str, Any]) -> None:
    content["tokens"].remove("Ċ")


def _with_repeated_token(content: dict[str, Any]) -> None:
    content["tokens"].append("A")


def _with_unknown_character(content: dict[str, Any]) -> None:
    content["tokens"][300] = "a b"


def _with_long_token(content: dict[str, Any]) -> None:
    content["tokens"][300] = "a" * 129


def _with_number(content: dict[str, Any]) -> None:
    content["tokens"][300] = 7


def _with_empty_token(content: dict[str, Any]) -> None:
    content["tokens"][300] = ""


def _with_no_tokens(content: dict[str, Any]) -> None:
    content["tokens"] = []


def _with_object_of_tokens(content: dict[str, Any]) -> None:
    content["tokens"] = {"a": 0}


def _with_other_pattern(content: dict[str, Any]) -> None:
    content["pattern"] = "("


def _with_other_special(content: dict[str, Any]) -> None:
    content["special"] = "</s>"


def _with_numeric_name(content: dict[str, Any]) -> None:
    content["name"] = 5


def _with_extra_key(content: dict[str, Any]) -> None:
    content["merges"] = []


def _without_name(content: dict[str, Any]) -> None:
    del content["name"]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_without_newline_byte, "none for [10]"),
        (_with_repeated_token, "1 repeated"),
        (_with_unknown_character, "token 300"),
        (_with_long_token, "token 300"),
        (_with_number, "token 300"),
        (_with_empty_token, "token 300"),
        (_with_no_tokens, "tokens: a list"),
        (_with_object_of_tokens, "tokens: a list"),
        (_with_other_pattern, "pattern: "),
        (_with_other_special, "</s>"),
        (_with_numeric_name, "name: a str"),
        (_with_extra_key, "merges"),
        (_without_name, "name, pattern, special, tokens"),
    ],
)
def test_broken_tokenizer_file_is_refused_with_what_is_wrong(
    encoding: tiktoken.Encoding,
    tmp_path: Path,
    spoil: Callable[[dict[str, Any]], None],
    named: str,
) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save_encoding(encoding, path)
    content = files.read_json(path)
    spoil(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        tokenizer.load_encoding(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)
    assert "next:" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[]", b"null", b"\xff\xfe", b"{", b'{"name": "gpt3"}', b"[" * 99_999],
)
def test_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="tokenizer"):
        tokenizer.load_encoding(path)


def test_missing_tokenizer_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.json"):
        tokenizer.load_encoding(tmp_path / "absent.json")


@pytest.mark.usefixtures("no_network")
def test_without_network_the_message_names_files_addresses_and_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(DownloadError) as caught:
        tokenizer.gpt2_encoding()
    message = str(caught.value)
    for url, digest in tokenizer.GPT2_FILES.items():
        assert f"from {url}" in message
        assert str(tmp_path / "empty" / tokenizer.cached_name(url)) in message
        assert digest in message
    assert "set TIKTOKEN_CACHE_DIR" in message


@pytest.mark.usefixtures("no_network")
def test_wrong_bytes_from_the_network_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.load, "read_file", lambda url: b"<html>sign in</html>")
    with pytest.raises(DownloadError, match="Hash mismatch"):
        tokenizer.gpt2_encoding()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"TIKTOKEN_CACHE_DIR": "/a", "DATA_GYM_CACHE_DIR": "/b"}, "/a"),
        ({"DATA_GYM_CACHE_DIR": "/b"}, "/b"),
        ({"TMPDIR": "/c"}, "data-gym-cache"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_message_names_the_folder_where_tiktoken_looks(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def refuse(url: str, digest: str) -> bytes:
        raise OSError("offline")

    monkeypatch.setattr(tiktoken.load, "read_file_cached", refuse)
    with pytest.raises(DownloadError) as caught:
        tokenizer.gpt2_encoding()
    assert caught.value.where.endswith(folder)


def test_named_files_are_those_that_tiktoken_fetches() -> None:
    source = inspect.getsource(importlib.import_module("tiktoken_ext.openai_public").gpt2)
    for url, digest in tokenizer.GPT2_FILES.items():
        assert url in source
        assert digest in source
    assert source.count("https://") == len(tokenizer.GPT2_FILES)


@pytest.mark.real_data
@pytest.mark.usefixtures("no_network")
def test_gpt2_s_encoding_comes_from_the_cache_and_is_stored_as_its_name(
    real_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(real_cache))
    encoding = tokenizer.gpt2_encoding()
    assert tokenizer.encode(encoding, "Every effort moves you") == [6109, 3626, 6100, 345]
    assert tokenizer.encode(encoding, "<|endoftext|>") == [27, 91, 437, 1659, 5239, 91, 29]
    assert encoding.eot_token == 50_256
    tokens = [encoding.decode_single_token_bytes(rank) for rank in range(50_256)]
    assert max(map(len, tokens)) == tokenizer.LONGEST_TOKEN
    tokenizer.save_encoding(encoding, tmp_path / "tokenizer.json")
    assert files.read_json(tmp_path / "tokenizer.json") == {"name": "gpt2"}
    assert tokenizer.load_encoding(tmp_path / "tokenizer.json") is encoding


@pytest.mark.real_data
def test_real_messages_have_the_library_s_ids_and_come_back(real_cache: Path) -> None:
    content = (real_cache.parent / "sms" / "SMSSpamCollection").read_bytes().decode()
    texts = [line.split("\t", 1)[1] for line in content.removesuffix("\n").split("\n")]
    assert len(texts) == 5574
    encoding = tokenizer.train_encoding(texts, 2048)
    assert encoding.n_vocab == 2048
    library = ByteLevelBPETokenizer()
    library.train_from_iterator(texts, vocab_size=2047, min_frequency=0, show_progress=False)
    sequences, truncated = tokenizer.encode_all(encoding, texts, 256)
    for text, sequence in zip(texts, sequences, strict=True):
        ids = library.encode(text).ids
        assert sequence.tolist() == ids[:256]
        assert encoding.decode(ids) == text
    assert truncated == sum(len(library.encode(text).ids) > 256 for text in texts)
