"""A million messages, and a thousand classes, which are made here and not kept."""

import csv
from pathlib import Path

import pytest

from benchmarks.growth import Point, run_stage, stage_names, write_project
from benchmarks.messages import generate
from lora_compare.project.files import read_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.long
def test_a_million_messages_pass_in_four_gigabytes(tmp_path: Path) -> None:
    point = Point(messages=1_000_000)
    write_project(tmp_path, point)
    for stage in ("download", "split", "base_model", "baseline"):
        assert run_stage(tmp_path, point, stage)["peak_memory_bytes"] < 4e9, stage
    found = read_json(tmp_path / "metrics" / "split.json")
    dealt = sum(part["n"] for part in found["splits"].values())
    assert dealt + found["duplicates_removed"] == point.messages
    # Copies that nobody has marked: a sketch may miss one in a hundred thousand.
    assert found["near_duplicates"]["messages"] > 0.1 * point.messages
    twins = found["test_rows_with_twin_in_train"]
    assert (twins["exact"], twins["normalized"]) == (0, 0)
    assert twins["near"] < found["splits"]["test"]["n"] / 10_000
    assert read_json(tmp_path / "metrics" / "baseline.json")["tfidf"]["test"]["accuracy"] > 0.9


def test_a_thousand_classes_go_through_every_stage(tmp_path: Path) -> None:
    point = Point(messages=16_000)
    methods = write_project(tmp_path, point)["methods"]
    source = tmp_path / "inputs" / "text" / "messages.csv"
    header = source.read_text(encoding="utf-8").splitlines()[0].split(",")
    with source.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *generate(point.messages, classes=1_000)])
    for stage in stage_names([*methods]):
        run_stage(tmp_path, point, stage)
    comparison = read_json(tmp_path / "metrics" / "comparison.json")
    assert len(read_json(tmp_path / "metrics" / "split.json")["classes"]) == 1_000
    # A message names its class in one word.
    tfidf = next(b for b in comparison["baselines"] if b["method"] == "tfidf")
    assert tfidf["test_accuracy"] > 0.9
    assert comparison["recommendation"]["method"] == "full"
    page = (tmp_path / "reports" / "comparison" / "comparison.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("lora_1", "TF-IDF"))
