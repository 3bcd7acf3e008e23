"""Files that are not what their names or first lines say."""

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest

from faults.commands import download, refusal, succeed, write_project
from lora_compare.data import archives, tables
from lora_compare.project.corpus import read_messages

ROWS = [("spam" if i % 2 else "ham", f"message {i}, of many") for i in range(9)]


def as_csv(delimiter: str = ",", header: tuple[str, str] = ("label", "text")) -> bytes:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows([header, *ROWS])
    return file.getvalue().encode()


TSV = "".join(f"{label}\t{text}\n" for label, text in ROWS)
JSONL = "".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in ROWS)


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, TSV)
    return buffer.getvalue()


def taken(folder: Path, name: str, content: bytes) -> tuple[str, list[tuple[str, str]]]:
    """Return what the stage download says of a file, and the messages that it takes."""
    write_project(folder, name, content)
    said = succeed(folder, "download")
    kept = read_messages(folder / "data/raw/messages.tsv")
    return said, list(zip(kept["label"], kept["text"], strict=True))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv.gz", gzip.compress(as_csv())),
        ("m.tsv.gz", gzip.compress(TSV.encode())),
        ("m.JSONL.GZ", gzip.compress(JSONL.encode())),
        ("m.csv", gzip.compress(as_csv())),
        ("m.csv.gz", as_csv()),
        ("SMSSpamCollection.gz", gzip.compress(TSV.encode())),
    ],
    ids=["csv.gz", "tsv.gz", "capitals", "named csv", "unpacked named gz", "no suffix"],
)
def test_row_39_gzip_is_known_by_its_bytes(tmp_path: Path, name: str, content: bytes) -> None:
    assert taken(tmp_path, name, content)[1] == ROWS


def test_row_39_gzip_in_a_zip_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m.tsv.gz", gzip.compress(TSV.encode()))
    assert taken(tmp_path, "m.zip", buffer.getvalue())[1] == ROWS


@pytest.mark.parametrize("cut", [9, 60])
def test_row_39_damaged_gzip_is_refused(tmp_path: Path, cut: int) -> None:
    message = download(tmp_path, "m.csv.gz", gzip.compress(as_csv())[:cut])
    assert "inputs/text/m.csv.gz is no readable gzip file." in message


def test_row_24_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (archives, tables):
        monkeypatch.setattr(module, "MAX_BYTES", 2**20)
    message = download(tmp_path, "m.csv.gz", gzip.compress(b"x" * 2**23))
    assert "inputs/text/m.csv.gz is too large." in message


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "zip"])
@pytest.mark.parametrize(
    ("content", "what", "then"),
    [
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook", "CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an Excel workbook", "CSV UTF-8"),
        (zipped("a.tsv"), "a zip archive", "ends in .zip"),
        (b"PAR1" + bytes(99) + b"PAR1", "a Parquet file", "ends in .parquet"),
        (b"\xfd7zXZ\0" + bytes(99), "packed by xz", "unpack it"),
        (b"SQLite format 3\0" + bytes(99), "an SQLite database", "as .csv"),
    ],
    ids=["xlsx", "xls", "zip", "parquet", "xz", "sqlite"],
)
def test_row_39_another_kind_of_file_is_named(
    tmp_path: Path, suffix: str, content: bytes, what: str, then: str
) -> None:
    if f".{suffix}" not in then:
        message = download(tmp_path, f"m.{suffix}", content)
        assert f"inputs/text/m.{suffix} is {what}" in message
        assert then in message
        assert "iconv" not in message


@pytest.mark.parametrize("name", ["m.xlsx", "m.xls", "m.ods"])
def test_row_39_a_spreadsheet_is_told_how_to_become_a_table(tmp_path: Path, name: str) -> None:
    assert "save the sheet as CSV" in download(tmp_path, name, zipped("xl/workbook.xml"))


def test_row_39_a_label_that_begins_as_a_parquet_file_is_a_label(tmp_path: Path) -> None:
    write_project(tmp_path, "m.tsv", b"PAR1\thello\nspam\twin\n")
    succeed(tmp_path, "download")


def test_row_39_semicolons_are_recognized_and_said(tmp_path: Path) -> None:
    said, rows = taken(tmp_path, "m.csv", as_csv(";"))
    assert rows == ROWS
    assert "inputs/text/m.csv: read with ; between its cells" in said
    # A comma in another column's name is no separator.
    content = as_csv(";").replace(b"label;text", b"label;text;a,b").replace(b"\r\n", b";1\r\n")
    content = content.replace(b"a,b;1", b"a,b")
    assert taken(tmp_path, "m.csv", content)[1] == ROWS


@pytest.mark.parametrize(
    "header", ["category\tmessage", "text\tlabels", "id\tcategory\tmessage", "class\tlabel"]
)
def test_row_39_a_first_line_that_looks_like_a_header_is_named(tmp_path: Path, header: str) -> None:
    more = "7\t" * (header.count("\t") - 1)
    lines = "".join(f"{more}{line}\n" for line in TSV.splitlines())
    message = download(tmp_path, "m.tsv", f"{header}\n{lines}")
    assert "The first line of inputs/text/m.tsv looks like a header." in message
    assert "where:    inputs/text/m.tsv:1" in message
    assert ", ".join(map(repr, header.split("\t"))) in message
    assert "data.text_column" in message


@pytest.mark.parametrize("first", ["ham\tcategory", "other\thello\nother\tagain"])
def test_row_39_a_first_line_that_is_a_message_is_kept(tmp_path: Path, first: str) -> None:
    _, rows = taken(tmp_path, "m.tsv", f"{first}\n{TSV}".encode())
    assert len(rows) == len(ROWS) + first.count("\n") + 1


@pytest.mark.parametrize(("name", "mark"), [("m.csv", ","), ("m.tsv", "\t")])
def test_row_39_rows_with_more_cells_are_counted_and_said(
    tmp_path: Path, name: str, mark: str
) -> None:
    lines = [mark.join(("label", "text"))]
    lines += [mark.join((f"class {i % 2}", f"text {i}")) for i in range(9)]
    lines[2] += f"{mark} and a stray cell"
    lines[5] += mark * 2
    said, rows = taken(tmp_path, name, "\n".join(lines).encode())
    assert rows == [(f"class {i % 2}", f"text {i}") for i in range(9)]
    assert f"warning: 2 of 9 rows of inputs/text/{name} have more cells than the header" in said
    assert f"inputs/text/{name}:3" in said
    provenance = json.loads((tmp_path / "data/raw/provenance.json").read_text())
    assert provenance["normalized"]["rows_with_more_cells"] == 2


@pytest.mark.parametrize(("name", "mark"), [("m.csv", ","), ("m.tsv", "\t")])
def test_row_39_a_row_whose_label_a_separator_has_moved_is_refused(
    tmp_path: Path, name: str, mark: str
) -> None:
    rows = [("text", "label"), *((text.replace(",", ""), label) for label, text in ROWS)]
    lines = [mark.join(row) for row in rows]
    lines[3] = mark.join(("hello", " you", "ham"))
    message = download(tmp_path, name, "\n".join(lines))
    assert f"1 line of inputs/text/{name} cannot be used." in message
    assert f"inputs/text/{name}:4: " in message


def test_row_39_a_header_with_fewer_cells_than_every_row_is_refused(tmp_path: Path) -> None:
    write_project(tmp_path, "m.csv", b"label,text\n1,ham,hello\n2,spam,win\n")
    assert "2 lines of inputs/text/m.csv cannot be used." in refusal(tmp_path, "download")
