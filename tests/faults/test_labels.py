"""Labels: what scripts need inside them, and what nobody sees at their ends."""

import json
from pathlib import Path

import pytest

from faults.commands import download, refusal, succeed, write_project


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("\u00a0ham", "begins with NO-BREAK SPACE"),
        ("ham\u202f", "ends with NARROW NO-BREAK SPACE"),
        ("ham\u200c", "ends with ZERO WIDTH NON-JOINER"),
        ("\u200dham", "begins with ZERO WIDTH JOINER"),
        ("ham\u200b", "ends with ZERO WIDTH SPACE"),
        ("\ufeffham", "begins with ZERO WIDTH NO-BREAK SPACE"),
        ("ham\u3164", "ends with HANGUL FILLER"),
        ("ha\u202em", "control characters (RIGHT-TO-LEFT OVERRIDE)"),
        ("ha\u2028m", "control characters (LINE SEPARATOR)"),
        ("ha\u0007m", "control characters (U+0007)"),
        ("ha\ufffem", "control characters (U+FFFE)"),
    ],
)
def test_row_17_what_is_invisible_in_a_label_is_refused_by_its_name(
    tmp_path: Path, label: str, expected: str
) -> None:
    message = download(tmp_path, "m.tsv", f"spam\twin\n{label}\thello\nspam\tprize\n")
    assert "inputs/text/m.tsv:2: a label" in message
    assert expected in message


@pytest.mark.parametrize(
    ("label", "other"),
    [
        (
            "\u0646\u0645\u06cc\u200c\u062f\u0627\u0646\u0645",
            "\u0646\u0645\u06cc\u062f\u0627\u0646\u0645",
        ),
        ("tr\u00e8s\u00a0bien", "tr\u00e8s bien"),
        ("ham", "ha\u00adm"),
        ("\u2764\ufe0f", "\u2764"),
    ],
)
def test_row_17_labels_that_differ_in_what_is_invisible_are_listed(
    tmp_path: Path, label: str, other: str
) -> None:
    message = download(tmp_path, "m.tsv", f"{label}\ta\n{label}\tb\n{other}\tc\nspam\td\n")
    assert f"{label!r} 2 times, {other!r} 1 times" in message


def several(*rows: object) -> str:
    """Return messages as JSONL, each with its labels."""
    lines = [{"label": label, "text": f"message {word(i)}"} for i, label in enumerate(rows)]
    return "\n".join(map(json.dumps, lines))


def word(number: int) -> str:
    return "".join(chr(97 + int(digit)) * 3 for digit in str(number))


ROWS: list[object] = [["a"], ["b"], ["a", "b"], []] * 30


def test_row_17_a_message_without_labels_is_one_with_none(tmp_path: Path) -> None:
    write_project(tmp_path, "m.jsonl", several(*ROWS, None).encode(), balance="none")
    warning = "warning: 31 of 121 rows of inputs/text/m.jsonl have no label"
    for command in ("check", "download"):
        assert warning in succeed(tmp_path, command)
    assert "31 have none" in succeed(tmp_path, "split")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["a", 0.5], "m.jsonl:121: the label is neither text nor a whole number: '0.5'"),
        (["a", None], "m.jsonl:121: no label"),
        (["a", ["b"]], "m.jsonl:121: the label is neither text nor a whole number"),
        (["a", "a"], "m.jsonl:121: the label 'a' stands twice"),
        ("a", "m.jsonl:121: no list of labels, as other rows have: 'a'"),
        ({"a": 1}, "m.jsonl:121: no list of labels, as other rows have"),
    ],
)
def test_row_17_labels_that_are_no_list_of_names_are_named(
    tmp_path: Path, labels: object, expected: str
) -> None:
    assert expected in download(tmp_path, "m.jsonl", several(*ROWS, labels))


def test_row_39_a_separator_that_stands_nowhere_is_refused(tmp_path: Path) -> None:
    content = "label,text\n" + "".join(f"{'ab'[i % 2]},message {word(i)}\n" for i in range(60))
    edits = {"labels_separator": '";"', "balance": "none"}
    write_project(tmp_path, "m.csv", content.encode(), **edits)
    for command in ("check", "download"):
        message = refusal(tmp_path, command)
        assert "No message of inputs/text/m.csv has several labels." in message
        assert "';' stands in no cell, which hold one label at most in each of 60 rows" in message


def test_row_40_a_label_that_only_test_has_is_refused(tmp_path: Path) -> None:
    parts = ["train", "validation", "test"]
    rows = [
        {"label": own, "text": f"message {word(i)}", "part": parts[i // 4 % 3]}
        for i, own in enumerate(ROWS)
    ]
    next(row for row in rows if row["part"] == "test")["label"] = ["a", "new"]
    content = "\n".join(map(json.dumps, rows)).encode()
    given = {"split_column": "part", "train": "null", "validation": "null", "balance": "none"}
    write_project(tmp_path, "m.jsonl", content, **given)
    message = refusal(tmp_path, "check")
    assert "1 of 3 classes are missing in train" in message
    assert "new: 0 in train, 0 in validation, 1 in test" in message


def test_row_26_what_is_of_one_class_a_message_is_refused_with_its_reason(tmp_path: Path) -> None:
    edits = {"class_weights": "balanced", "metric": "recall"}
    write_project(tmp_path, "m.jsonl", several(*ROWS).encode(), **edits)
    for command in ("check", "download"):
        message = refusal(tmp_path, command)
        assert "split.balance: none where a message may have several labels, since" in message
        assert "training.class_weights: none where" in message
        assert "comparison.metric: accuracy or jaccard or micro_f1 or macro_f1 where" in message
