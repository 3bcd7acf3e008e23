"""Labels: what scripts need inside them, and what nobody sees at their ends."""

from pathlib import Path

import pytest

from faults.commands import download


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
