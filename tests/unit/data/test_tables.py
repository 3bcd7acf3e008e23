"""No row of a source file is lost, merged or read differently than it stands there."""

import csv
import io
import json
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_compare.data import tables
from lora_compare.data.headers import Columns
from lora_compare.data.messages import make_messages
from lora_compare.data.tables import Table, read_table
from lora_compare.errors import DataError

COLUMNS = Columns(text="text", label="label")
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def rows(content: bytes | str, suffix: str = ".tsv", columns: Columns = COLUMNS) -> list[Any]:
    encoded = content.encode() if isinstance(content, str) else content
    table = read_table(encoded, suffix, f"file{suffix}", columns)
    return list(zip(table.labels, table.texts, strict=True))


def refused(content: bytes | str, suffix: str = ".tsv", columns: Columns = COLUMNS) -> str:
    encoded = content.encode() if isinstance(content, str) else content
    with pytest.raises(DataError) as error:
        make_messages(read_table(encoded, suffix, f"file{suffix}", columns))
    return str(error.value)


GOOD = [("ham", "hello"), ("spam", "win")]


@pytest.mark.parametrize(
    "content",
    [
        "ham\thello\nspam\twin\n",
        "ham\thello\nspam\twin",
        "ham\thello\r\nspam\twin\r\n",
        "\ufeffham\thello\nspam\twin\n",
        "ham\thello\n\nspam\twin\n\n",
        "label\ttext\nham\thello\nspam\twin\n",
        "text\tid\tlabel\nhello\t1\tham\nwin\t2\tspam\n",
        "\ufefflabel\ttext\nham\thello\nspam\twin\n",
    ],
)
def test_tsv_with_and_without_header(content: str) -> None:
    assert rows(content) == GOOD


def test_what_was_unified_is_counted() -> None:
    table = read_table(b"\xef\xbb\xbfham\thello\r\n\r\nspam\twin\n", ".tsv", "f", COLUMNS)
    assert table.normalized == {"byte_order_marks": 1, "crlf_line_ends": 2, "blank_lines": 1}
    assert table.places == [1, 3]


@pytest.mark.parametrize("text", ['"open', 'shut"', '"both"', '""', "a,b", "'", "\x0b\x0c\u2028x"])
def test_quotes_and_odd_breaks_in_a_tsv_are_data(text: str) -> None:
    assert rows(f"ham\t{text}\nspam\twin\n") == [("ham", text), ("spam", "win")]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=6))
def test_csv_reads_what_pandas_writes(pairs: list[tuple[str, str]]) -> None:
    frame = pd.DataFrame(pairs, columns=["label", "text"], dtype="str")
    content = frame.to_csv(index=False, quoting=csv.QUOTE_ALL)
    assert rows(content, ".csv") == pairs


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=6))
def test_jsonl_reads_what_json_writes(pairs: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"label": label, "text": text}) for label, text in pairs]
    assert rows("\n".join(lines), ".jsonl") == pairs


@pytest.mark.parametrize("categorical", [True, False])
def test_parquet_reads_what_pandas_writes(categorical: bool) -> None:
    frame = pd.DataFrame({"text": ["hello", "win\t\n"], "n": [1, 2], "label": ["ham", "spam"]})
    if categorical:
        frame["label"] = frame["label"].astype("category")
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    assert rows(buffer.getvalue(), ".parquet") == [("ham", "hello"), ("spam", "win\t\n")]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_other_column_names(suffix: str) -> None:
    frame = pd.DataFrame({"v1": ["ham", "spam"], "v2": ["hello", "win"]})
    buffer = io.BytesIO()
    if suffix == ".parquet":
        frame.to_parquet(buffer)
    elif suffix == ".csv":
        frame.to_csv(buffer, index=False)
    else:
        frame.to_json(buffer, orient="records", lines=True)
    assert rows(buffer.getvalue(), suffix, Columns(text="v2", label="v1")) == GOOD
    assert "'v1', 'v2'" in refused(buffer.getvalue(), suffix)


@pytest.mark.parametrize(
    ("values", "expected"), [([0, 1], ["0", "1"]), ([False, True], ["false", "true"])]
)
def test_numbers_and_booleans_become_labels(values: list[Any], expected: list[str]) -> None:
    table = Table("f", labels=values, texts=["a", "b"], places=[1, 2])
    assert list(make_messages(table)["label"]) == expected


def test_field_longer_than_the_csv_module_allows() -> None:
    limit = csv.field_size_limit()
    long = "x" * (limit + 1)
    assert rows(f"label,text\nham,{long}\n", ".csv") == [("ham", long)]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("content", "suffix", "expected"),
    [
        ("ham\thello\nspam\tw\0n\n", ".tsv", "file.tsv:2: a NUL character"),
        ("ham\thello\rspam\twin\r", ".tsv", "file.tsv:1: a carriage return"),
        ("ham\thello\n\twin\n", ".tsv", "file.tsv:2: no label"),
        ("ham\thello\nspam\t\n", ".tsv", "file.tsv:2: an empty text"),
        ("ham\thello\nspam\t \n", ".tsv", "file.tsv:2: a text of white space only"),
        ("ham\thello\n \twin\n", ".tsv", "file.tsv:2: a label of spaces only"),
        ("ham\thello\nHam\thi\nspam\twin\n", ".tsv", "'ham' 1 times, 'Ham' 1 times"),
        ("ham\thello\nham \thi\nspam\twin\n", ".tsv", "'ham' 1 times, 'ham ' 1 times"),
        ("ham\thello\nham\twin\n", ".tsv", "1 class"),
        ("", ".tsv", "0 classes"),
        ("\n".join(f"{i}\tx" for i in range(1001)), ".tsv", "1001 classes"),
        ("Label\tText\nham\thello\nspam\twin\n", ".tsv", "no column 'label'"),
        ("label\ttext\tlabel\nham\thello\tx\n", ".tsv", "one column each"),
        ("label,text\nham,hello\nspam\n", ".csv", "file.csv:3: 1 fields"),
        ("label,text\nham,a,b\n", ".csv", "file.csv:2: 3 fields"),
        ('label,text\nham,"a\nb"\nspam,"never\nclosed\n', ".csv", "file.csv:4: a quote is never"),
        ('label,text\nham,"a"b\n', ".csv", "file.csv:2"),
        ("kind;words\nham;hello\n", ".csv", "'kind', 'words'"),
        ("label|text\nham|hello\n", ".csv", "this file seems to use |"),
        ("label\ttext\nham\thello\n", ".csv", "ends in .tsv: this file seems to use tabs"),
        ("label,text\nham,hello\n", ".tsv", "ends in .csv: this file seems to use commas"),
        (
            '{"label": "ham", "text": "a"}\n{"label": "ham"}\n',
            ".jsonl",
            "file.jsonl:2: no key 'text'",
        ),
        ('{"label": "ham", "text": 5}', ".jsonl", "file.jsonl:1: the text is no string"),
        ('{"label": null, "text": "a"}', ".jsonl", "file.jsonl:1: no label"),
        ('{"label": 0.5, "text": "a"}', ".jsonl", "neither text nor a whole number"),
        ('{"label": "ham", "text": "\\ud800"}', ".jsonl", "half a surrogate pair"),
        ('{"label": "ham", "text": "a\\u0000"}', ".jsonl", "a NUL character"),
        ('{"label": "h\\nam", "text": "a"}', ".jsonl", "control characters"),
        ("[1]\n{\n" + "[" * 100_000 + "\n", ".jsonl", "3 lines"),
        ("not parquet", ".parquet", "no readable Parquet"),
    ],
)
def test_broken_files_are_refused(content: str, suffix: str, expected: str) -> None:
    assert expected in refused(content, suffix)


def test_header_of_other_case_is_no_message() -> None:
    assert "data.text_column" in refused("LABEL\tTEXT\nham\thello\n")


def test_offset_counts_the_byte_order_mark() -> None:
    content = b"\xef\xbb\xbfham\t\xa3\n"
    assert "byte 0xa3 at offset 7" in refused(content)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_utf16_is_recognized(encoding: str, suffix: str) -> None:
    message = refused("ham\thello é\nspam\twin\n".encode(encoding), suffix)
    assert "UTF-16" in message
    assert "iconv" in message


def test_parquet_rows_are_counted_from_one() -> None:
    buffer = io.BytesIO()
    pd.DataFrame({"text": ["hello", None], "label": ["ham", "spam"]}).to_parquet(buffer)
    assert "file.parquet: row 2: no text" in refused(buffer.getvalue(), ".parquet")


def test_large_parquet_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    pd.DataFrame({"text": ["a" * 1000], "label": ["ham"]}).to_parquet(buffer)
    monkeypatch.setattr(tables, "MAX_BYTES", 100)
    assert "too large" in refused(buffer.getvalue(), ".parquet")


def test_text_column_that_is_the_label_column_is_refused() -> None:
    assert "one column each" in refused("a,b\n1,2\n", ".csv", Columns(text="a", label="a"))
