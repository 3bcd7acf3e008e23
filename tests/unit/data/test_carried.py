"""Groups, dates and splits come from every kind of file; what cannot be one is named by row."""

import io
import json
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from lora_compare.data.carried import as_group, as_time, read_carried
from lora_compare.data.headers import Columns
from lora_compare.data.sources import load_corpus
from lora_compare.data.tables import read_table
from lora_compare.errors import DataError
from lora_compare.params import DataParams
from lora_compare.project.paths import Paths

CARRIED = {"group": "who", "time": "day", "split": "part"}
COLUMNS = Columns("text", "label", CARRIED)
ROWS = [
    {"who": "anna", "text": "hi", "part": "train", "label": "ham", "day": "2026-03-05"},
    {"who": "", "text": "win", "part": "test", "label": "spam", "day": "2026-03-06T01:30:00+02:00"},
]
READ = {
    "group": ["anna", ""],
    "time": ["2026-03-05T00:00:00", "2026-03-05T23:30:00"],
    "split": ["train", "test"],
}


def encode(suffix: str, rows: list[dict[str, Any]]) -> bytes:
    """Return a file of these rows."""
    if suffix == ".jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if suffix == ".parquet":
        buffer = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(rows), buffer)
        return buffer.getvalue()
    separator = "\t" if suffix == ".tsv" else ","
    lines = [separator.join(rows[0]), *(separator.join(row.values()) for row in rows)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_of_file_carries_them(suffix: str) -> None:
    table = read_table(encode(suffix, ROWS), suffix, f"file{suffix}", COLUMNS)
    assert (table.labels, table.texts) == (["ham", "spam"], ["hi", "win"])
    assert read_carried(table) == READ
    assert "1 of 2 rows of " in table.warnings[-1]


def refused(rows: list[dict[str, Any]], suffix: str = ".csv", columns: Columns = COLUMNS) -> str:
    with pytest.raises(DataError) as error:
        read_carried(read_table(encode(suffix, rows), suffix, f"file{suffix}", columns))
    return str(error.value)


def test_dates_that_cannot_be_read_are_named_with_their_lines() -> None:
    days = ["2026-03-05", "5.3.2026", "", "2026-02-30", "soon", "12", "x", "y"]
    message = refused([{**ROWS[0], "day": day} for day in days])
    assert "7 lines of file.csv cannot be used" in message
    assert "file.csv:3: no date that can be read: '5.3.2026'" in message
    assert "file.csv:4: no date that can be read: empty" in message
    assert "... and 2 more" in message
    assert "data.time_column" in message


def test_other_values_of_the_splits_are_listed_with_their_counts() -> None:
    parts = ["train", "dev", "Test", "dev", "test", ""]
    message = refused([{**ROWS[0], "part": part} for part in parts])
    assert "'dev' 2 times, 'Test' 1 times, '' 1 times" in message
    assert "train, validation or test" in message


def test_groups_that_are_no_names_are_named_with_their_lines() -> None:
    rows = [{**ROWS[0], "who": who} for who in ("a", 7, None, 1.5, ["b"])]
    message = refused(rows, ".jsonl")
    assert "2 lines of file.jsonl cannot be used" in message
    assert "file.jsonl:4: the group is neither text nor a whole number: '1.5'" in message


def test_a_column_that_is_not_there_is_named_with_its_setting() -> None:
    rows = [{key: value for key, value in ROWS[0].items() if key != "who"}]
    for suffix in (".csv", ".tsv", ".parquet"):
        message = refused(rows, suffix)
        assert f"file{suffix} has no column 'who'" in message
        assert "data.group_column" in message
    assert "no key 'who'" in refused(rows, ".jsonl")


def test_a_file_without_a_header_has_no_other_column() -> None:
    with pytest.raises(DataError, match="put a line of names above the file's messages"):
        read_table(b"ham\thi\nspam\twin\n", ".tsv", "f.tsv", Columns("text", "label", CARRIED))


def test_one_column_is_not_two_things() -> None:
    columns = Columns("text", "label", {"group": "label"})
    assert "the text, the label and the group need one column each" in refused(
        ROWS, ".csv", columns
    )
    with pytest.raises(DataError, match="need one column each"):
        read_table(encode(".jsonl", ROWS), ".jsonl", "f", columns)


@settings(max_examples=60, deadline=None)
@given(st.datetimes(timezones=st.none() | st.timezones()))
def test_dates_are_those_of_pandas(moment: datetime) -> None:
    text = moment.isoformat()
    try:
        expected = pd.Timestamp(text)
        aware = expected.tz_localize("UTC") if expected.tz is None else expected
        wanted = aware.tz_convert("UTC").tz_localize(None)
    except (pd.errors.OutOfBoundsDatetime, OverflowError, ValueError):
        return
    assert pd.Timestamp(as_time(text)) == wanted
    assert as_time(moment) == as_time(text)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.datetimes(timezones=st.just(timezone(timedelta(hours=-3)))), min_size=2))
def test_dates_sort_as_text_as_in_time(moments: list[datetime]) -> None:
    try:
        found = [as_time(moment) for moment in moments]
    except ValueError:  # beyond the year 9999 in UTC
        return
    order = sorted(range(len(moments)), key=lambda i: (moments[i], i))
    assert sorted(range(len(moments)), key=lambda i: (found[i], i)) == order


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_700_000_000, "2023-11-14T22:13:20"),
        ("1700000000", "2023-11-14T22:13:20"),
        (1_700_000_000_123, "2023-11-14T22:13:20.123000"),
        ("20260305", "2026-03-05T00:00:00"),
        (20260305, "2026-03-05T00:00:00"),
        (date(2026, 3, 5), "2026-03-05T00:00:00"),
        (" 2026-03-05 14:22 ", "2026-03-05T14:22:00"),
        ("2026-03-05T14:22:01Z", "2026-03-05T14:22:01"),
        (pd.Timestamp("2026-03-05 14:22:01.000000001", tz="Asia/Seoul"), "2026-03-05T05:22:01"),
    ],
)
def test_dates_have_several_forms(value: Any, expected: str) -> None:
    assert as_time(value).startswith(expected)


@pytest.mark.parametrize("value", [None, "", True, 1.5, 12, "05/03/2026", "9999-12-31T23:00-05:00"])
def test_what_is_no_date_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="no date that can be read"):
        as_time(value)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_message_without_a_group_stands_alone(value: Any) -> None:
    assert as_group(value) == ""


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_a_group_that_no_file_can_hold_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be kept"):
        as_group(value)


def test_a_file_for_each_split(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label,text\nham,hi\nspam,win\n")
    (tmp_path / "b.jsonl").write_text('{"label": "ham", "text": "yo"}\n')
    source = {"test": "b.jsonl", "train": "a.csv"}
    data = DataParams(source=source, text_column="text", label_column="label")
    messages, facts = load_corpus(data, Paths(tmp_path))
    assert messages["split"] == ["train", "train", "test"]
    assert messages["text"] == ["hi", "win", "yo"]
    assert facts["source"] == "train: a.csv, test: b.jsonl"
    assert [*facts["files"]] == ["train", "test"]
    assert facts["classes"] == {"ham": 2, "spam": 1}


def test_a_bad_row_of_one_of_several_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label,text\nham,hi\nspam,win\n")
    (tmp_path / "b.csv").write_text("label,text\nham,\n")
    source = {"train": "a.csv", "test": "b.csv"}
    data = DataParams(source=source, text_column="text", label_column="label")
    with pytest.raises(DataError, match=r"b\.csv:2: an empty text"):
        load_corpus(data, Paths(tmp_path))
