"""`lora-compare classify`: texts, lines, tables, and what is refused."""

import gzip
import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from lora_compare import cli
from lora_compare.project.checksums import seal
from lora_compare.project.files import read_json, sha256, write_json
from lora_compare.project.paths import Paths
from lora_compare.project.seeds import save_seeds


def test_classify_prints_label_probability_and_text(inside: Path) -> None:
    result = CliRunner().invoke(cli.main, ["classify", "claim £9 now", "home by 6"])
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.output.splitlines()]
    assert [row[2] for row in rows] == ["claim £9 now", "home by 6"]
    assert all(row[0] in ("ham", "spam") and 0.5 <= float(row[1]) <= 1 for row in rows)


def test_classify_prints_one_line_for_a_text_of_several(inside: Path) -> None:
    result = CliRunner().invoke(cli.main, ["classify", "home\tby 6\r\nlove", "two  spaces"])
    shown = [line.split("\t")[2] for line in result.output.splitlines()]
    # Every other character stays, so that a line can be found again in its file.
    assert shown == ["home by 6 love", "two  spaces"]


def test_classify_reads_lines_and_writes_json(inside: Path, tmp_path: Path) -> None:
    file = tmp_path / "messages.txt"
    file.write_text("claim £9 now\r\n\nhome by 6", encoding="utf-8")
    arguments = ["classify", "--json", "--method", "full"]
    from_file = CliRunner().invoke(cli.main, [*arguments, "--file", str(file)])
    from_stdin = CliRunner().invoke(cli.main, arguments, input=file.read_bytes())
    assert from_file.output == from_stdin.output
    records = [json.loads(line) for line in from_file.output.splitlines()]
    assert [record["text"] for record in records] == ["claim £9 now", "home by 6"]
    for record in records:
        assert sum(record["probabilities"].values()) == pytest.approx(1)
        assert record["probability"] == record["probabilities"][record["label"]]


TABLE = [("home by 6,\n love", "ham"), ('"claim" £9\tnow', "spam"), ("see you", "ham")]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "csv.gz", "zip"])
def test_classify_reads_a_table_as_the_pipeline_does(
    inside: Path, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"table.{suffix}"
    frame = pd.DataFrame([{"id": i, "note": n} for i, (n, _) in enumerate(TABLE)])
    if suffix == "jsonl":
        frame.to_json(file, orient="records", lines=True)
    elif suffix == "parquet":
        frame.to_parquet(file)
    else:
        packing = {"method": "zip", "archive_name": "t.csv"} if suffix == "zip" else "infer"
        frame.to_csv(file, index=False, compression=packing)
    arguments = ["classify", "--json", "--file", str(file), "--text-column", "note"]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["text"] for record in records] == [text for text, _ in TABLE]
    one = CliRunner().invoke(cli.main, ["classify", "--json", TABLE[0][0]])
    assert records[0]["probabilities"] == pytest.approx(json.loads(one.stdout)["probabilities"])


def test_classify_takes_the_column_of_the_project_and_labels_need_not_be_there(
    inside: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.csv").write_text('message\n"two\nlines"\nsee you\n')
    result = CliRunner().invoke(cli.main, ["classify", "--file", str(tmp_path / "m.csv")])
    assert [line.split("\t")[2] for line in result.stdout.splitlines()] == ["two lines", "see you"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("m.csv", b"note,id\nhello,1\n", "--text-column"),
        ("m.csv", b"message,id\nhello,1\n,2\n", "m.csv:3: an empty text"),
        ("m.tsv", b"message\tid\nhello\n", "m.tsv:2: no tab"),
        ("m.csv", b"PK\x03\x04\0xl/workbook", "is an Excel workbook"),
        ("m.txt", b"PK\x03\x04\0xl/workbook", "is an Excel workbook"),
        ("m.txt", gzip.compress(b"hello"), "is packed by gzip"),
        ("missing.csv", None, "The file cannot be read."),
    ],
    ids=["other columns", "empty", "no tab", "xlsx as csv", "xlsx as txt", "gzip", "missing"],
)
def test_classify_refuses_a_table_as_the_pipeline_does(
    inside: Path, tmp_path: Path, name: str, content: bytes | None, expected: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = CliRunner().invoke(cli.main, ["classify", "--file", str(tmp_path / name)])
    assert result.exit_code == 2
    assert expected in result.output
    assert "iconv" not in result.output
    assert "params.yaml" not in result.output


def test_a_column_of_what_is_no_table_is_a_wrong_call(inside: Path, tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("hello\n")
    for arguments in (["hello"], ["--file", str(tmp_path / "m.txt")], []):
        result = CliRunner().invoke(cli.main, ["classify", "--text-column", "x", *arguments])
        assert result.exit_code == 2
        assert "--text-column is of a table" in result.output


def test_classify_gives_the_probabilities_of_the_evaluation(inside: Path) -> None:
    rows = pd.read_csv(inside / "reports/evaluation/lora/predictions-123.csv").head(5)
    assert chances_of_spam(*rows["text"]) == pytest.approx(rows["p_spam"].tolist(), abs=1e-6)


def chances_of_spam(*arguments: str) -> list[float]:
    result = CliRunner().invoke(cli.main, ["classify", "--json", *arguments])
    assert result.exit_code == 0, result.output
    return [json.loads(line)["probabilities"]["spam"] for line in result.output.splitlines()]


@pytest.fixture
def two_seeds(inside: Path) -> Iterator[Path]:
    """The project with another training of lora, of other weights; it is chosen."""
    paths = Paths(inside)
    other = shutil.copytree(paths.trained("lora", 123), paths.trained("lora", 7))
    tensors = load_file(other / "model.safetensors")
    save_file({name: -tensor for name, tensor in tensors.items()}, other / "model.safetensors")
    write_json(other / "config.json", {**read_json(other / "config.json"), "seed": 7})
    seal(other)
    before = (paths.model("lora") / "seeds.json").read_bytes()
    save_seeds(paths.model("lora"), {123: 0.2, 7: 0.1})
    yield inside
    shutil.rmtree(other)
    (paths.model("lora") / "seeds.json").write_bytes(before)
    seal(paths.model("lora"))


def test_classify_uses_the_chosen_seed_and_another_on_request(two_seeds: Path) -> None:
    rows = pd.read_csv(two_seeds / "reports/evaluation/lora/predictions-123.csv").head(5)
    first, chosen = chances_of_spam("--seed", "123", *rows["text"]), chances_of_spam(*rows["text"])
    assert first == pytest.approx(rows["p_spam"].tolist(), abs=1e-6)
    assert chances_of_spam("--seed", "7", *rows["text"]) == chosen
    assert np.abs(np.subtract(chosen, first)).min() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--seed", "8"], "one of its seeds: 123, 7"),
        (["--method", "full", "--seed", "7"], "one of its seeds: 123"),
        (["--method", "tfidf", "--seed", "7"], "tfidf has none"),
    ],
)
def test_a_seed_that_was_not_trained_is_refused_with_those_that_there_are(
    two_seeds: Path, arguments: list[str], expected: str
) -> None:
    for command in (["classify", "hi"], ["export", "--format", "merged"]):
        result = CliRunner().invoke(cli.main, [*command, *arguments])
        assert result.exit_code == 2
        assert expected in result.output
    assert not (two_seeds / "exports").exists()


def test_an_export_is_of_the_chosen_seed_or_of_the_one_that_is_named(two_seeds: Path) -> None:
    for arguments, folder, seed in (
        ([], "lora-peft", 7),
        (["--seed", "123"], "lora-seed-123-peft", 123),
    ):
        result = CliRunner().invoke(cli.main, ["export", "--format", "peft", *arguments])
        assert result.exit_code == 0, result.output
        place = two_seeds / "exports" / folder
        weights = Paths(two_seeds).trained("lora", seed) / "model.safetensors"
        record = read_json(place / "export.json")
        assert (record["seed"], record["method_sha256"]) == (seed, sha256(weights))
        assert f"with the seed {seed} and written" in (place / "README.md").read_text()
    shutil.rmtree(two_seeds / "exports")


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        (["classify", " "], None, "empty text"),
        (["classify", "--file", "missing.txt"], None, "missing.txt"),
        (["classify"], b"ok\ncaf\xe9\n", "standard input:2"),
        (["classify"], b"ok\ncaf\xe9\n", "iconv -f WINDOWS-1252 -t UTF-8 FILE"),
        (["classify"], "caf\xe9".encode("utf-16"), "iconv -f UTF-16 -t UTF-8 FILE"),
        (["classify"], "café\n".encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8 FILE"),
        (["classify", "--method", "nope", "hi"], None, "full, lora"),
    ],
)
def test_classify_refuses_what_it_cannot_read(
    inside: Path, arguments: list[str], stdin: bytes | None, expected: str
) -> None:
    result = CliRunner().invoke(cli.main, arguments, input=stdin)
    assert result.exit_code == 2
    assert expected in result.output


def test_the_command_that_classify_suggests_for_another_encoding_works(
    inside: Path, tmp_path: Path
) -> None:
    for encoding in ("cp1252", "utf-16", "utf-16-le", "utf-16-be"):
        file = tmp_path / f"my {encoding}.txt"
        file.write_bytes("claim £9 café\n".encode(encoding))
        refused = CliRunner().invoke(cli.main, ["classify", "--file", str(file)])
        assert refused.exit_code == 2
        suggested = refused.output.split("next:")[1].strip()
        conversion, _, command = suggested.partition(" | lora-compare ")
        text = subprocess.run(shlex.split(conversion), capture_output=True, check=True).stdout
        result = CliRunner().invoke(cli.main, shlex.split(command), input=text)
        assert result.output.endswith("\tclaim £9 café\n")


def test_classify_by_tfidf_gives_the_probabilities_of_the_baseline(inside: Path) -> None:
    rows = pd.read_csv(inside / "reports/evaluation/tfidf/predictions.csv", keep_default_na=False)
    result = CliRunner().invoke(
        cli.main, ["classify", "--json", "--method", "tfidf", *rows["text"]]
    )
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in result.output.splitlines()]
    assert [answer["label"] for answer in answers] == rows["predicted"].tolist()
    for name in ("ham", "spam"):
        chances = [answer["probabilities"][name] for answer in answers]
        np.testing.assert_allclose(chances, rows[f"p_{name}"], rtol=0, atol=1e-12)
