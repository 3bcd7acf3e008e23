"""The splits as token ids: the same when read again, and refused where they do not fit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from lora_compare.errors import DataError, MissingArtifactError
from lora_compare.models.batches import Examples
from lora_compare.models.gpt.base import GPTTokenizer
from lora_compare.models.gpt.tokenizer import encode_all, train_encoding
from lora_compare.models.tokens import check_fit, read_examples, tokenize, write_examples
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
