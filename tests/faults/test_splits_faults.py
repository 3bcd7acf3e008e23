"""Splits, groups and dates of one's own data that contradict themselves, at check and as stages."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from faults.commands import refusal, succeed, write_project

ROW = {"label": "ham", "text": "", "who": "", "day": "", "part": "train"}


def rows(n: int = 120) -> list[dict[str, Any]]:
    """Return messages of 30 people, 4 each, over 120 days, with splits in the order of these."""
    parts = ["train"] * 84 + ["validation"] * 12 + ["test"] * 24
    return [
        {
            "label": ("ham", "spam")[i % 2],
            "text": f"{i:b} ".replace("0", "o").replace("1", "i") * 3 + str(i),
            "who": f"p{i // 4}",
            "day": f"2026-{1 + i // 28:02}-{1 + i % 28:02}",
            "part": parts[i],
        }
        for i in range(n)
    ]


def project(folder: Path, messages: list[dict[str, Any]], **edits: str) -> Path:
    """Write a project with these messages."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, [*messages[0]])
    writer.writeheader()
    writer.writerows(messages)
    return write_project(folder, "m.csv", buffer.getvalue().encode(), **edits)


GIVEN = {"split_column": "part", "train": "null", "validation": "null", "balance": "none"}
GROUPS = {"group_column": "who", "balance": "none"}
DATES = {"time_column": "day", "balance": "none"}


def refused(folder: Path, messages: list[dict[str, Any]], edits: dict[str, str]) -> str:
    """Return the refusal of the stage split, which check must give word for word beforehand."""
    project(folder, messages, **edits)
    said = refusal(folder, "check")
    succeed(folder, "download")
    assert refusal(folder, "split").strip() == said.strip()
    return said


@pytest.mark.parametrize("edits", [GIVEN, GROUPS, DATES, GROUPS | DATES, GROUPS | GIVEN])
def test_row_40_what_does_not_contradict_itself_is_split(
    tmp_path: Path, edits: dict[str, str]
) -> None:
    project(tmp_path, rows(), **edits)
    said = succeed(tmp_path, "check")
    succeed(tmp_path, "download")
    done = succeed(tmp_path, "split")
    (sizes,) = [line for line in said.splitlines() if line.startswith("to be split into about ")]
    assert done.startswith(sizes.removeprefix("to be split into about "))


def test_row_40_a_group_in_two_given_splits_is_named(tmp_path: Path) -> None:
    messages = rows()
    messages[0]["who"] = messages[119]["who"] = "anna"
    said = refused(tmp_path, messages, GIVEN | GROUPS)
    assert "1 of 31 groups, of 2 messages, are in several splits" in said
    assert "'anna': 1 train, 1 test" in said


def test_row_40_other_values_of_a_split_are_listed(tmp_path: Path) -> None:
    messages = [{**row, "part": row["part"].replace("validation", "dev")} for row in rows()]
    project(tmp_path, messages, **GIVEN)
    for command in ("check", "download"):
        assert "'dev' 12 times" in refusal(tmp_path, command)


def test_row_40_settings_that_contradict_the_data_are_named_at_once(tmp_path: Path) -> None:
    edits = {"split_column": "part", "time_column": "day", "balance": "undersample"}
    project(tmp_path, rows(), **edits)
    for command in ("check", "download", "split"):
        said = refusal(tmp_path, command)
        for key in ("data.time_column", "split.train", "split.balance"):
            assert f"{key}: data.split_column gives" in said or f"{key}: undersample" in said


@pytest.mark.parametrize("edits", [GROUPS, GROUPS | DATES])
def test_row_40_a_group_as_large_as_the_data_is_refused(
    tmp_path: Path, edits: dict[str, str]
) -> None:
    said = refused(tmp_path, [{**row, "who": "all"} for row in rows()], edits)
    assert "60 of 60 messages are one group" in said or "96 messages are left out" in said


def test_row_40_dates_that_cannot_be_read_are_named_by_line(tmp_path: Path) -> None:
    messages = rows()
    for place, day in ((0, "01/02/2026"), (5, ""), (7, "2026-13-01")):
        messages[place]["day"] = day
    project(tmp_path, messages, **DATES)
    for command in ("check", "download"):
        said = refusal(tmp_path, command)
        assert "3 lines of inputs/text/m.csv cannot be used" in said
        assert "inputs/text/m.csv:2: no date that can be read: '01/02/2026'" in said
        assert "inputs/text/m.csv:7: no date that can be read: empty" in said


def test_row_40_one_date_only_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, [{**row, "day": "2026-03-05"} for row in rows()], DATES)
    assert "all messages have one date" in said


@pytest.mark.parametrize("edits", [GIVEN, DATES])
def test_row_40_a_label_that_only_test_has_is_refused(
    tmp_path: Path, edits: dict[str, str]
) -> None:
    messages = rows()
    for row in messages[110:]:
        row["label"] = "complaint"
    said = refused(tmp_path, messages, edits)
    assert "complaint: 0 in train, 0 in validation, 10 in test" in said


def test_row_40_a_class_missing_in_train_is_refused_though_validation_has_it(
    tmp_path: Path,
) -> None:
    messages = rows()
    for row in messages[90:100]:
        row["label"] = "complaint"
    said = refused(tmp_path, messages, GIVEN)
    assert "complaint: 0 in train, 6 in validation, 4 in test" in said


def test_row_40_given_splits_without_train_are_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, [{**row, "part": "test"} for row in rows()], GIVEN)
    assert "0 train, 0 validation, 120 test" in said


def test_row_40_a_missing_validation_is_refused_with_the_setting(tmp_path: Path) -> None:
    messages = [{**row, "part": row["part"].replace("validation", "train")} for row in rows()]
    said = refused(tmp_path, messages, GIVEN)
    assert "set split.validation, such as 0.1" in said


def test_row_40_the_same_message_in_two_given_splits_is_counted_and_leaves_train(
    tmp_path: Path,
) -> None:
    messages = rows()
    messages[0]["text"] = messages[119]["text"]
    project(tmp_path, messages, **GIVEN)
    assert "texts in two of them: 1 of train in test, which were removed" in succeed(
        tmp_path, "check"
    )
    succeed(tmp_path, "download")
    said = succeed(tmp_path, "split")
    assert said.startswith("83 train, 12 validation, 24 test")
    assert "texts in two of them: 1 of train in test, which were removed" in said


FOLDS = {"folds": "3", "train": "null", "validation": "0.2", "seeds": "[1, 2, 3]"}


def test_row_40_folds_deal_what_does_not_contradict_itself(tmp_path: Path) -> None:
    project(tmp_path, rows(), **GROUPS | FOLDS)
    said = succeed(tmp_path, "check")
    succeed(tmp_path, "download")
    done = succeed(tmp_path, "split")
    for told in (said, done):
        assert "120 test" in told
        assert "3 folds: every message is tested once" in told


def test_row_40_folds_of_what_is_dealt_already_are_refused_with_all_reasons(tmp_path: Path) -> None:
    edits = FOLDS | {"split_column": "part", "time_column": "day", "balance": "undersample"}
    project(tmp_path, rows(), **{**edits, "seeds": "[1, 2]"})
    for command in ("check", "download", "split"):
        said = refusal(tmp_path, command)
        assert "split.folds: data.split_column says which messages are test" in said
        assert "split.folds: data.time_column says which messages are test" in said
        assert "split.balance: undersample cuts test" in said
        assert "training.seeds: 3 folds need 3 seeds, one each, not 2" in said


def test_row_40_a_class_of_fewer_groups_than_folds_is_refused(tmp_path: Path) -> None:
    messages = [{**row, "who": f"{row['label']}{i % 4}"} for i, row in enumerate(rows())]
    said = refused(tmp_path, messages, GROUPS | FOLDS)
    assert "2 of 2 classes have fewer groups than there are folds" in said
    assert "ham: 2 groups of 60 messages" in said


def test_row_40_a_group_as_large_as_a_class_is_refused_in_folds(tmp_path: Path) -> None:
    messages = [
        {**row, "who": "all" if row["label"] == "spam" and i > 9 else f"p{i}"}
        for i, row in enumerate(rows())
    ]
    said = refused(tmp_path, messages, GROUPS | FOLDS)
    assert "spam: 55 of 60 messages are one group" in said
