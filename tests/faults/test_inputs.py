"""Rows, encodings, labels and texts that no model should be trained on unseen."""

import csv
import io
import json
import os
import random
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from safetensors.numpy import load_file

from faults.commands import download, refusal, run, succeed, write_project
from lora_compare.models.gpt.tokenizer import load_encoding
from lora_compare.project.corpus import read_messages

GOOD = "ham\thello\nspam\twin\n"


def test_row_15_the_first_five_broken_lines_are_named_and_all_counted(tmp_path: Path) -> None:
    bad = ["no tab", "ham\ta\tb", "ham\ta\rb", "x", "y", "z"]
    message = download(tmp_path, "m.tsv", "\n".join(["ham\thello", *bad, "spam\twin"]))
    assert "6 lines of inputs/text/m.tsv cannot be used." in message
    for line, what in {2: "no tab", 3: "2 tabs", 4: "a carriage return", 5: "no tab"}.items():
        assert f"inputs/text/m.tsv:{line}: {what}" in message
    assert "inputs/text/m.tsv:6: no tab" in message
    assert "inputs/text/m.tsv:7" not in message
    assert "... and 1 more" in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("m.tsv", "ham\thello\nspam\tw\0n\n", "m.tsv:2: a NUL character"),
        ("m.tsv", "ham\thello\rspam\twin\r", "m.tsv:1: a carriage return"),
        ("m.csv", "label,text\nham,hello\nspam\n", "m.csv:3: 1 fields"),
        ("m.csv", "label,text\nham,a,b\n", "m.csv:2: 3 fields"),
        ("m.csv", 'label,text\nham,"a\nb"\nspam,"never\nclosed\n', "m.csv:4: a quote is never"),
        ("m.csv", 'label,text\nham,"a"b\n', "m.csv:2: "),
        ("m.csv", "label|text\nham|hello\n", "this file seems to use |"),
        ("m.jsonl", '{"label": "ham", "text": "a"}\n{"label": "ham"}\n', "2: no key 'text'"),
        ("m.jsonl", "[1]\n{\n" + "[" * 100_000 + "\n", "3 lines"),
        ("m.parquet", "no parquet", "no readable Parquet file"),
    ],
)
def test_row_15_a_malformed_row_is_refused_with_its_line(
    tmp_path: Path, name: str, content: str, expected: str
) -> None:
    assert expected in download(tmp_path, name, content)


def test_row_15_a_parquet_file_whose_texts_are_not_utf8_is_refused(tmp_path: Path) -> None:
    texts = pa.StringArray.from_buffers(
        1, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")
    )
    parquet.write_table(pa.table({"label": ["ham"], "text": texts}), tmp_path / "m.parquet")
    message = download(tmp_path, "m.parquet", (tmp_path / "m.parquet").read_bytes())
    assert "Invalid UTF8 sequence" in message
    frame = pd.DataFrame({"label": ["ham"], "text": ["hello"], "other": [1]})
    content = frame.to_parquet(index=False).replace(b"other", b"\xff\xff\xff\xff\xff")
    assert "no readable Parquet file" in download(tmp_path, "m.parquet", content)


def test_row_15_no_row_is_merged_or_dropped(tmp_path: Path) -> None:
    texts = ['"open', 'shut"', '"both"', "''", "a,b", "\x0b\x0c\u2028x", "\\t \\n \\", "NA", "null"]
    rows = [("spam" if i % 2 else "ham", text) for i, text in enumerate(texts)]
    tsv = "".join(f"{label}\t{text}\r\n" for label, text in rows)
    csv_file = io.StringIO()
    writer = csv.writer(csv_file, lineterminator="\n")
    writer.writerows([("label", "text"), *rows, ("ham", 'two\nlines, "quoted"\r and a tab\t')])
    jsonl = "".join(json.dumps({"label": a, "text": b}) + "\n" for a, b in rows)
    for name, content, more in (
        ("m.tsv", tsv, []),
        ("m.csv", csv_file.getvalue(), ['two\nlines, "quoted"\r and a tab\t']),
        ("m.jsonl", jsonl, []),
    ):
        # With a byte order mark, which is counted and is no part of the first row.
        write_project(tmp_path, name, b"\xef\xbb\xbf" + content.encode())
        succeed(tmp_path, "download")
        kept = read_messages(tmp_path / "data/raw/messages.tsv")
        assert kept["text"].tolist() == [*texts, *more]
        provenance = json.loads((tmp_path / "data/raw/provenance.json").read_text())
        assert provenance["normalized"]["byte_order_marks"] == 1


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", ["tsv", "csv"])
def test_row_16_another_encoding_is_named_and_the_suggestion_works(
    tmp_path: Path, encoding: str, suffix: str
) -> None:
    text = "ham\thello\nspam\twin £5, café\n" * 9
    if suffix == "csv":
        text = "label,text\n" + text.replace(", ", " ").replace("\t", ",")
    message = download(tmp_path, f"m.{suffix}", text.encode(encoding))
    assert f"inputs/text/m.{suffix} is not UTF-8" in message
    if encoding == "cp1252":
        line = 3 if suffix == "csv" else 2
        assert f"byte 0xa3 at offset {text.index('£')}, line {line}" in message
        assert "looks like CP1252" in message
    else:
        assert "looks like UTF-16" in message
    suggested = re.search(r"iconv -f \S+ -t UTF-8", message)
    assert suggested is not None
    source = f"inputs/text/m.{suffix}"
    command = [*shlex.split(suggested.group()), source]
    converted = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
    (tmp_path / source).write_bytes(converted)
    succeed(tmp_path, "download")
    assert "win £5" in (tmp_path / "data/raw/messages.tsv").read_text(encoding="utf-8")


def test_row_17_missing_labels_and_empty_texts_are_listed_and_counted(tmp_path: Path) -> None:
    rows = ["label,text", "ham,hello", ",no label", "spam,", 'spam,"  "', "  ,x", "ham,", ",y"]
    message = download(tmp_path, "m.csv", "\n".join(rows))
    assert "6 lines of inputs/text/m.csv cannot be used." in message
    for line, what in {3: "no label", 4: "an empty text", 5: "a text of white space only"}.items():
        assert f"inputs/text/m.csv:{line}: {what}" in message
    assert "inputs/text/m.csv:6: a label of spaces only" in message
    assert "... and 1 more" in message


@pytest.mark.parametrize("other", ["Ham", "ham ", "HAM", "\uff48am"])
def test_row_17_labels_that_differ_in_writing_only_are_listed_with_counts(
    tmp_path: Path, other: str
) -> None:
    message = download(tmp_path, "m.tsv", f"ham\ta\nham\tb\n{other}\tc\nspam\td\n")
    assert f"'ham' 2 times, {other!r} 1 times" in message


def test_row_17_a_label_that_is_neither_text_nor_a_whole_number_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"label": [0.5, None], "text": ["a", None]})
    frame.to_parquet(tmp_path / "m.parquet")
    message = download(tmp_path, "m.parquet", (tmp_path / "m.parquet").read_bytes())
    assert "m.parquet: row 1: the label is neither text nor a whole number" in message
    assert "m.parquet: row 2: " in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("ham\thello\nham\twin\n", ["has 1 class.", "'ham' 2 times", "2 to 1000 classes"]),
        ("", ["has 0 classes", "no messages"]),
        ("\n".join(f"{i}\tx" for i in range(1001)), ["has 1001 classes", "'0' 1 times"]),
    ],
)
def test_row_18_too_few_or_too_many_classes_are_refused_with_counts(
    tmp_path: Path, content: str, expected: list[str]
) -> None:
    message = download(tmp_path, "m.tsv", content)
    assert all(part in message for part in expected)


@pytest.mark.parametrize("balance", ["undersample", "none"])
def test_row_18_a_class_too_small_for_every_split_is_refused_with_counts(
    tmp_path: Path, balance: str
) -> None:
    rows = [f"ham\tmessage {i}" for i in range(40)] + ["spam\twin", "spam\tprize", "spam\twin"]
    write_project(tmp_path, "m.tsv", "\n".join(rows).encode(), balance=balance)
    succeed(tmp_path, "download")
    message = refusal(tmp_path, "split")
    assert "A class is too small to be in every split." in message
    # A repeated message counts once.
    assert "spam: 2 messages, none in" in message


@pytest.mark.parametrize("deduplicate", ["exact", "none"])
def test_row_18_a_class_of_near_duplicates_is_refused_with_counts(
    tmp_path: Path, deduplicate: str
) -> None:
    words = ["mum", "train", "dinner", "garden", "football", "homework", "birthday", "kettle"]
    rows = [f"ham\t{' '.join(random.Random(i).choices(words, k=9))}" for i in range(80)]
    rows += [f"spam\tYour code is {i}" for i in range(40)]
    changes = {"twins": "together", "balance": "train", "deduplicate": deduplicate}
    write_project(tmp_path, "m.tsv", "\n".join(rows).encode(), **changes)
    succeed(tmp_path, "download")
    message = refusal(tmp_path, "split")
    assert "Groups of near-duplicates are too large to stay whole." in message
    assert "spam: 40 of 40 messages are one group; 40 of 28 in train, 0 of 4 in vali" in message
    assert "split.twins: apart" in message


def test_row_18_an_identifier_as_label_is_named_in_a_few_lines(tmp_path: Path) -> None:
    rows = [f"{i % 330}\tmessage {i}" for i in range(400)]
    write_project(tmp_path, "m.tsv", "\n".join(rows).encode())
    said = succeed(tmp_path, "download")
    assert "... and 325 more classes" in said
    assert "warning: 330 classes for 400 messages look like an identifier" in said
    message = refusal(tmp_path, "split")
    assert "... and 325 more classes" in message
    assert "look like an identifier" in message
    assert len(message.splitlines()) < 15
    assert message == refusal(tmp_path, "check")


def test_row_18_labels_of_several_classes_are_named(tmp_path: Path) -> None:
    labels = ["0", "0,1", "1", "1,0", "2", "0,2"]
    rows = [f"{label}\tmessage {i} of {label}" for i in range(20) for label in labels]
    write_project(tmp_path, "m.tsv", "\n".join(rows).encode())
    for command in ("download", "check"):
        said = succeed(tmp_path, command)
        assert "warning: labels such as '0,1' look like several" in said
        assert "data.labels_separator says what stands between labels" in said
    lines = [json.dumps({"text": f"message {i}", "label": ["jf"[i % 2]]}) for i in range(9)]
    message = download(tmp_path, "m.jsonl", "\n".join(lines))
    assert "the lists hold one label at most in each of 9 rows" in message


def test_row_18_what_undersampling_leaves_out_is_said_with_the_rarest_class(tmp_path: Path) -> None:
    rows = [f"{'rare' if i < 12 else 'common'}\tmessage number {i}" for i in range(512)]
    write_project(tmp_path, "m.tsv", "\n".join(rows).encode())
    succeed(tmp_path, "download")
    warning = "warning: split.balance: undersample leaves out 488 of 512 messages, since 'rare'"
    for command in ("split", "check"):
        assert warning in succeed(tmp_path, command)


@pytest.fixture(scope="module")
def long_messages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project with very long messages and ones that hold the special token, evaluated."""
    folder = tmp_path_factory.mktemp("long")
    rows = [f"ham\tsee <|endoftext|> you at {i}" for i in range(30)]
    rows += [f"spam\twin {i} " + "prize now! " * (9_100 if i % 3 == 0 else 1) for i in range(30)]
    write_project(folder, "m.tsv", "\n".join(rows).encode(), weights="random")
    started = time.monotonic()
    for stage in ("download", "split", "base_model"):
        succeed(folder, stage)
    said = succeed(folder, "finetune", "lora")
    succeed(folder, "evaluate", "lora")
    # A hang, not a speed: a message of 100,000 characters once took as long as a corpus.
    assert time.monotonic() - started < 120
    return folder, said


@pytest.mark.slow
def test_row_19_the_special_token_in_a_message_is_text(long_messages: tuple[Path, str]) -> None:
    folder, _ = long_messages
    encoding = load_encoding(folder / "models/base/tokenizer.json")
    for name in ("train", "validation", "test"):
        arrays = load_file(folder / f"data/tokens/{name}.safetensors")
        ids = arrays["ids"].tolist()
        assert encoding.eot_token not in ids
        texts = pd.read_csv(folder / f"data/splits/{name}.csv", keep_default_na=False)["Text"]
        assert "<|endoftext|>" in "".join(texts)
        assert encoding.decode(ids) == "".join(texts)


def test_row_19_long_messages_are_cut_and_counted(long_messages: tuple[Path, str]) -> None:
    folder, said = long_messages
    metrics: dict[str, Any] = json.loads((folder / "metrics/lora.json").read_text())
    cut = {}
    for name in ("train", "validation", "test"):
        texts = pd.read_csv(folder / f"data/splits/{name}.csv", keep_default_na=False)["Text"]
        cut[name] = int((texts.str.len() > 100_000).sum())
    assert sum(cut.values()) == 10
    assert metrics["truncated"] == cut
    assert f"{cut['train'] + cut['validation']} messages were cut at 1024 tokens" in said


@pytest.mark.parametrize("deduplicate", ["none", "exact"])
def test_row_20_repeats_and_contradictions_are_counted_and_removed(
    tmp_path: Path, deduplicate: str
) -> None:
    rows = [f"{label}\t{label} message {i}" for label in ("ham", "spam") for i in range(40)]
    repeated = rows[:30] + rows[:30]
    contradictions = [f"spam\tham message {i}" for i in range(30, 33)]
    content = "\n".join(rows + repeated + contradictions).encode()
    write_project(tmp_path, "m.tsv", content, deduplicate=deduplicate)
    succeed(tmp_path, "download")
    said = succeed(tmp_path, "split")
    metrics = json.loads((tmp_path / "metrics/split.json").read_text())
    assert "texts that stand under two labels: 3" in said
    assert metrics["conflicting_texts"] == 3
    frames = {name: pd.read_csv(tmp_path / f"data/splits/{name}.csv") for name in ("train", "test")}
    twins = int(frames["test"]["Text"].isin(frames["train"]["Text"]).sum())
    assert metrics["test_rows_with_twin_in_train"]["exact"] == twins
    assert f"twin in train: {twins} word for word" in said
    assert (twins == 0) == (deduplicate == "exact")
    removed = metrics["duplicates_removed"]
    assert removed == (63 if deduplicate == "exact" else 0)
    assert f"{removed} exact duplicates removed" in said


def test_row_15_a_pipe_as_a_source_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    write_project(tmp_path, "m.tsv", b"")
    (tmp_path / "inputs/text/m.tsv").unlink()
    os.mkfifo(tmp_path / "inputs/text/m.tsv")
    result = run(tmp_path, "download")
    assert result.exit_code == 2
    assert "cannot be read" in result.output
