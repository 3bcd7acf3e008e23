"""Messages with customers, dates and splits of their own, through all stages to the report."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grouped_messages import make_customers
from lora_compare.project.corpus import read_messages, read_split
from lora_compare.project.paths import Paths
from small_project import STAGES, run_stages, write_settings

pytestmark = pytest.mark.slow

COLUMNS = {"text_column": "text", "label_column": "label", "twins": "together", "balance": "cap"}


def write(path: Path, messages: pd.DataFrame) -> None:
    """Write messages as one's own file has them."""
    messages.to_csv(path, index=False, quoting=csv.QUOTE_MINIMAL)


def test_customers_and_dates_reach_the_verdict(tmp_path: Path) -> None:
    messages = make_customers(150)
    columns = {"group_column": "group", "time_column": "time", "cap": 2}
    write_settings(tmp_path, source="inputs/text/tickets.csv", **COLUMNS, **columns)
    write(tmp_path / "inputs" / "text" / "tickets.csv", messages)
    paths = Paths(run_stages(tmp_path, *STAGES))
    raw = read_messages(paths.messages)
    pd.testing.assert_frame_equal(raw, messages[["label", "text", "group", "time"]])
    test, train = (read_split(paths.split(part)) for part in ("test", "train"))
    assert not {*test["Group"]} & {*train["Group"]}
    comparison = json.loads(paths.metrics("comparison").read_text())
    assert comparison["near_duplicate_groups"] == len({*test["Group"]})
    page = paths.report("html").read_text(encoding="utf-8")
    assert "the newest messages are test" in page.replace("The", "the")
    record = next(r for r in comparison["methods"] if r["method"] == "full")
    n, accuracy = len(test["Text"]), record["test_accuracy"]
    assert record["test_accuracy_high"] - record["test_accuracy_low"] > (
        1.9 * 1.9 * np.sqrt(accuracy * (1 - accuracy) / n)
    )


def test_a_file_for_each_split_of_which_test_lacks_a_class(tmp_path: Path) -> None:
    messages = make_customers(150, classes=("a", "b", "c", "d"))[["label", "text"]]
    tested = (messages.index % 4 == 0) & (messages["label"] != "d")
    source = "{train: inputs/text/train.csv, test: inputs/text/test.csv}"
    given = {"train": "null", "validation": 0.2, "cap": 3}
    write_settings(tmp_path, source=source, **COLUMNS, **given)
    write(tmp_path / "inputs" / "text" / "test.csv", messages[tested])
    write(tmp_path / "inputs" / "text" / "train.csv", messages[~tested])
    paths = Paths(run_stages(tmp_path, *STAGES))
    assert sorted(read_split(paths.split("test"))["Text"]) == sorted(messages["text"][tested])
    metrics = json.loads(paths.metrics("full").read_text())
    assert metrics["test"]["macro_f1"] is None
    page = paths.report("html").read_text(encoding="utf-8")
    assert "est has no message of d" in page
    assert "SHA-256 of train" in page
