"""The files between the stages give back what was written, in the same bytes everywhere."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_compare.errors import DataError, MissingArtifactError
from lora_compare.project import corpus
from lora_compare.project.checksums import seal

AWKWARD = [
    "NA",
    "null",
    "nan",
    "",
    '"',
    '""',
    "a,b",
    "a\rb",
    "a\r\nb",
    "\n",
    "\t",
    "\\t",
    "\\",
    " x ",
    "\ufeff",
    "é😀",
]
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.lists(st.one_of(st.text(CHARACTERS), st.sampled_from(AWKWARD)), max_size=8)


def check_messages(texts: list[str]) -> None:
    frame = corpus.make_corpus([f"class {i % 3}" for i in range(len(texts))], texts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "messages.tsv"
        corpus.write_messages(path, frame)
        seal(path.parent)
        assert path.read_bytes().count(b"\n") == len(texts) + 1
        assert b"\r" not in path.read_bytes()
        pd.testing.assert_frame_equal(corpus.read_messages(path), frame)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXTS)
def test_messages_come_back_as_they_were(texts: list[str]) -> None:
    check_messages(texts)


def test_awkward_messages_come_back_as_they_were() -> None:
    check_messages(AWKWARD)


def check_split(texts: list[str]) -> None:
    frame = corpus.make_split([i % 3 for i in range(len(texts))], texts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.csv"
        corpus.write_split(path, frame)
        seal(path.parent)
        assert corpus.read_split(path) == frame.to_dict("list")


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXTS)
def test_splits_come_back_as_they_were(texts: list[str]) -> None:
    check_split(texts)


def test_awkward_splits_come_back_as_they_were() -> None:
    check_split(AWKWARD)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(CHARACTERS.filter(lambda c: c != "\r")), max_size=8))
def test_split_files_are_those_of_pandas(texts: list[str]) -> None:
    frame = corpus.make_split([0] * len(texts), texts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.csv"
        corpus.write_split(path, frame)
        assert path.read_bytes() == frame.to_csv(index=None).encode()


def test_texts_that_pandas_takes_for_missing_stay_texts(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("Label,Text\n0,NA\n1,null\n0,\n")
    seal(tmp_path)
    assert list(corpus.read_split(tmp_path / "test.csv")["Text"]) == ["NA", "null", ""]


def test_bytes_do_not_depend_on_the_locale(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from lora_compare.project import corpus\n"
        "folder, texts = pathlib.Path(sys.argv[1]), ['\\u00e9\\r\\U0001f600']\n"
        "corpus.write_messages(folder / 'm', corpus.make_corpus(['a'], texts))\n"
        "corpus.write_split(folder / 's', corpus.make_split([0], texts))\n"
    )
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={"PATH": os.environ["PATH"], **environment},
        check=True,
    )
    assert (tmp_path / "m").read_bytes() == "label\ttext\na\té\\r😀\n".encode()
    assert (tmp_path / "s").read_bytes() == 'Label,Text\n0,"é\r😀"\n'.encode()


@pytest.mark.parametrize(
    "content",
    [b"", b"label\ttext", b"label\ttext\na", b"text\tlabel\n", b"label\ttext\na\tb\tc\n", b"\xff"],
)
def test_damaged_messages_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "messages.tsv").write_bytes(content)
    seal(tmp_path)
    with pytest.raises(DataError, match="dvc repro --force download"):
        corpus.read_messages(tmp_path / "messages.tsv")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Text,Label\na,0\n",
        b"Label,Text\nx,y\n",
        b"Label,Text,Fold\n0,y,first\n",
        b"Label,Text,Fold,Group\n0,y,1,g\n",
        b'Label,Text\n0,"y\n',
        b"Label,Text\n0\n",
        b"\xff",
    ],
)
def test_damaged_split_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    seal(tmp_path)
    with pytest.raises(DataError, match="dvc repro --force split"):
        corpus.read_split(tmp_path / "train.csv")


def test_missing_files_name_their_stage(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="dvc repro download"):
        corpus.read_messages(tmp_path / "messages.tsv")
    with pytest.raises(MissingArtifactError, match="dvc repro split"):
        corpus.read_split(tmp_path / "train.csv")
    with pytest.raises(MissingArtifactError, match="dvc repro split"):
        corpus.read_classes(tmp_path / "classes.json")


def test_classes_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text('["ham", "spam"]')
    seal(path.parent)
    assert corpus.read_classes(path) == ["ham", "spam"]
    for content in ("[1]", "{}", "["):
        path.write_text(content)
        seal(path.parent)
        with pytest.raises(DataError, match="damaged"):
            corpus.read_classes(path)


def test_classes_are_counted_by_name() -> None:
    frame = corpus.make_corpus(["b", "a", "b"], ["x", "y", "z"])
    assert list(corpus.count_classes(frame).items()) == [("a", 1), ("b", 2)]


@pytest.mark.real_data
def test_real_file_is_written_as_it_is(assets: Path, tmp_path: Path) -> None:
    content = (assets / "sms" / "SMSSpamCollection").read_bytes()
    rows = [line.split("\t") for line in content.decode().split("\n")[:-1]]
    frame = corpus.make_corpus([row[0] for row in rows], [row[1] for row in rows])
    corpus.write_messages(tmp_path / "m", frame)
    seal(tmp_path)
    # The file holds no backslash-escapable character but the backslash itself.
    expected = b"label\ttext\n" + content.replace(b"\\", b"\\\\")
    assert (
        hashlib.sha256((tmp_path / "m").read_bytes()).digest() == hashlib.sha256(expected).digest()
    )
    assert len(corpus.read_messages(tmp_path / "m")) == 5574


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "2", "0", "11", "1"], ["0", "1", "2", "10", "11"]),
        (["1", "-1", "0"], ["-1", "0", "1"]),
        (["10.0", "9.5", "01", "1"], ["01", "1", "9.5", "10.0"]),
        (["spam", "10", "9"], ["10", "9", "spam"]),
        (["spam", "ham"], ["ham", "spam"]),
    ],
)
def test_classes_that_are_numbers_come_by_their_size(names: list[str], expected: list[str]) -> None:
    assert corpus.class_order(names) == expected
    counts = corpus.count_classes(corpus.make_corpus(names, ["text"] * len(names)))
    assert list(counts) == expected


def test_each_fold_reads_its_own_messages(tmp_path: Path) -> None:
    frame = corpus.make_split([0, 1, 0], ["a", 'b "c"', "d\ne"], ["x", "", "x"])
    frame[corpus.FOLD] = [1, 2, 2]
    corpus.write_split(tmp_path / "train.csv", frame)
    seal(tmp_path)
    assert (tmp_path / "train.csv").read_text() == frame.to_csv(index=False)
    assert corpus.read_split(tmp_path / "train.csv") == frame.to_dict("list")
    second = {"Label": [1, 0], "Text": ['b "c"', "d\ne"], "Group": ["", "x"], "Fold": [2, 2]}
    assert corpus.read_split(tmp_path / "train.csv", 2) == second
