"""Files are written whole or not at all."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compare.project import files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        files.write_with(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_makes_its_folder_and_keeps_newlines(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    files.write_text(path, "one\r\ntwo\nü")
    assert path.read_bytes() == "one\r\ntwo\nü".encode()


def test_json_round_trips_and_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"b": [1, 2.5, None, "ü"], "a": True}
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert path.read_text().index('"b"') < path.read_text().index('"a"')
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"loss": float("nan")})
    assert files.read_json(path) == value


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1)


@given(st.lists(st.tuples(TEXT, st.integers(), st.floats(allow_nan=False)), min_size=1))
def test_csv_is_that_of_pandas(rows: list[tuple[str, int, float]]) -> None:
    names = ("text", "n", "p")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        files.write_csv(path, columns)
        expected = pd.DataFrame(columns, dtype=object).to_csv(index=False, lineterminator="\n")
        assert path.read_bytes().decode() == expected


def test_csv_quotes_a_carriage_return(tmp_path: Path) -> None:
    files.write_csv(tmp_path / "a.csv", {"text": ["a\rb"], "n": [1]})
    assert (tmp_path / "a.csv").read_bytes() == b'text,n\n"a\rb",1\n'


def test_checksums_are_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(path) == abc
    assert files.sha256_of({"a": 1, "b": 2}) == files.sha256_of({"b": 2, "a": 1})
