"""The splits as token ids: the same when read again, and refused where they do not fit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer

from lora_compare.errors import DataError, MissingArtifactError
from lora_compare.models.batches import Examples
from lora_compare.models.gpt.base import GPTTokenizer
from lora_compare.models.gpt.tokenizer import encode_all, gpt2_encoding, train_encoding
from lora_compare.models.hub.tokenizer import wrap
from lora_compare.models.tokens import (
    check_fit,
    measure_tokens,
    read_examples,
    tokenize,
    write_examples,
)
from lora_compare.project.checksums import seal

TEXTS = ["win a prize now", "see you at home", "ok", "Größe 🎉 " * 50]
SPLIT = pd.DataFrame({"Label": [1, 0, 0, 1], "Text": TEXTS})
ENCODING = train_encoding(TEXTS, 270)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "tokens" / "test.safetensors"
    write_examples(path, tokenize(GPTTokenizer(ENCODING), SPLIT))
    seal(path.parent)
    return path


def test_tokens_come_back_as_they_were(stored: Path) -> None:
    examples = read_examples(stored)
    assert [ENCODING.decode(ids.tolist()) for ids in examples.tokens] == TEXTS
    assert {ids.dtype for ids in examples.tokens} == {np.dtype(np.int64)}
    assert examples.labels.tolist() == [1, 0, 0, 1]
    assert examples.labels.flags.writeable  # torch warns of what is not


def test_equal_splits_give_equal_bytes(stored: Path, tmp_path: Path) -> None:
    write_examples(tmp_path / "again", read_examples(stored))
    assert (tmp_path / "again").read_bytes() == stored.read_bytes()


def test_cutting_stored_tokens_is_cutting_while_encoding(stored: Path) -> None:
    longest = max(map(len, read_examples(stored).tokens))
    for length in (1, 5, longest - 1, longest):
        examples, cut = read_examples(stored).cut(length)
        expected, expected_cut = encode_all(ENCODING, TEXTS, length)
        assert [ids.tolist() for ids in examples.tokens] == [ids.tolist() for ids in expected]
        assert cut == expected_cut
        assert examples.labels.tolist() == [1, 0, 0, 1]


def test_tokens_of_another_split_are_refused(stored: Path) -> None:
    examples = read_examples(stored)
    check_fit(stored, examples, SPLIT)
    with pytest.raises(DataError, match=r"(?s)the 3 texts of data/splits/test.csv.*4 texts"):
        check_fit(stored, examples, SPLIT[:3])
    other = SPLIT.assign(Label=[1, 1, 0, 0])
    with pytest.raises(DataError, match=r"(?s)label at 2 of 4.*dvc repro --force base_model"):
        check_fit(stored, examples, other)


def test_a_missing_file_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="dvc repro base_model"):
        read_examples(tmp_path / "train.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros(3, np.int64)}, "4 texts and 3 labels"),
        ({"offsets": np.array([0, 3, 3, 4, 5])}, "do not divide"),
        ({"offsets": np.array([1, 2, 3, 4, 5])}, "do not divide"),
        ({"ids": np.zeros(4, np.float32)}, "float32"),
        ({"more": np.zeros(4, np.float32)}, "more"),
        ({"labels": np.zeros((4, 1), np.int64)}, "labels: not one row of numbers"),
        ({"offsets": np.array([0, 2**63 - 1, -(2**63), -1, 5])}, "do not divide"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(
    stored: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    save_file(load_file(stored) | changes, stored)
    seal(stored.parent)
    with pytest.raises(DataError, match=rf"(?s){message}.*dvc repro --force base_model"):
        read_examples(stored)


def test_a_torn_file_is_refused(stored: Path) -> None:
    stored.write_bytes(stored.read_bytes()[:-1])
    seal(stored.parent)
    with pytest.raises(DataError, match="dvc repro --force base_model"):
        read_examples(stored)


def test_one_text_is_a_split_too(tmp_path: Path) -> None:
    write_examples(tmp_path / "one", Examples([np.array([7, 8])], np.array([1])))
    seal(tmp_path)
    assert [ids.tolist() for ids in read_examples(tmp_path / "one").tokens] == [[7, 8]]


def test_tokens_a_character_are_counted_over_all_splits_by_class() -> None:
    parts = [
        Examples([np.zeros(3, int), np.zeros(5, int)], np.array([0, 1])),
        Examples([np.zeros(1, int)], np.array([0])),
    ]
    texts = [["ten signs.", "five."], ["ok"]]
    assert measure_tokens("gpt2", GPTTokenizer(ENCODING), parts, texts, ["ham", "spam"]) == {
        "tokens_per_character": 9 / 17,
        "classes": {"ham": 4 / 12, "spam": 1.0},
        "warning": None,
    }


@pytest.mark.real_data
def test_gpt2_falls_apart_on_korean_and_not_on_english(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(assets / "tiktoken_cache"))
    texts = ["My parcel has not arrived, please help me.", "택배가 아직 안 왔어요, 도와주세요."]
    split = {"Label": [0, 1], "Text": texts}
    tokenizer = GPTTokenizer(gpt2_encoding())
    tokens = tokenize(tokenizer, split)
    measured = measure_tokens("gpt2-small", tokenizer, [tokens], [texts], ["english", "korean"])
    assert measured["classes"]["english"] < 0.3
    assert measured["classes"]["korean"] > 1.5
    assert "gpt2-small makes" in measured["warning"]
    assert "tokens of a character in korean: it knows this" in measured["warning"]
    short = [text[:9] for text in texts]
    both = measure_tokens("gpt2-small", tokenizer, [tokens], [short], ["a", "b"])
    assert "tokens of a character in b and 1 other class: it" in both["warning"]
    assert "model.name" in measured["warning"]


def test_a_tokenizer_that_reads_most_as_unknown_is_named() -> None:
    transformers = pytest.importorskip("transformers")
    words = {"[UNK]": 0, "my": 1, "parcel": 2, "is": 3, "late": 4}
    pieces = Tokenizer(WordPiece(words, unk_token="[UNK]"))
    pieces.pre_tokenizer = BertPreTokenizer()
    unknown = {"unk_token": "[UNK]"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=pieces, **unknown)
    tokenizer = wrap(fast, pad=0)
    texts = ["my parcel is late", "택배가 아직 안 왔어요"]
    tokens = tokenize(tokenizer, {"Label": [0, 1], "Text": texts})
    found = measure_tokens("bert", tokenizer, [tokens], [texts], ["english", "korean"])
    assert found["classes"] == {"english": 4 / 17, "korean": 4 / 12}
    assert "bert does not know 100% of the tokens in korean: the model" in found["warning"]


def test_each_fold_reads_its_own_tokens_and_none_is_taken_for_one_split(tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    whole = tokenize(GPTTokenizer(ENCODING), SPLIT)
    write_examples(path, whole.take([0, 1, 2]), whole.take([3, 0]))
    seal(tmp_path)
    first, second = (read_examples(path, fold) for fold in (1, 2))
    assert [ENCODING.decode(ids.tolist()) for ids in first.tokens] == TEXTS[:3]
    assert [ENCODING.decode(ids.tolist()) for ids in second.tokens] == [TEXTS[3], TEXTS[0]]
    assert second.labels.tolist() == [1, 1]
    with pytest.raises(DataError, match="does not hold a split as tokens"):
        read_examples(path)


def test_tokens_of_one_split_are_of_no_fold(stored: Path) -> None:
    with pytest.raises(DataError, match="does not hold a split as tokens"):
        read_examples(stored, 1)
