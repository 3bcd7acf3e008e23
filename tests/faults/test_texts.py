"""Texts in which no rule of European prose holds: the pipeline ends with figures."""

import csv
import io
import json
import math
from pathlib import Path
from random import Random

import pytest

from faults.commands import succeed, write_project
from small_project import STAGES

DICE = Random(1)
SIGNS = {
    "digits": ("01234", "56789"),
    "emoji": ("😀😃😄😁🙂😊😎", "😢😭😞😔😟😡😱"),
    "no spaces": ("山川田日月木水火土", "人口手目足心言語学"),
    "one character": ("".join(map(chr, range(0x4E00, 0x4E28))), "".join(map(chr, range(913, 953)))),
}
"""Characters of the texts of two classes."""


def texts_of(kind: str, characters: str) -> list[str]:
    if kind == "one character":
        return list(characters)
    between = "" if kind == "no spaces" else " "
    return [between.join(DICE.choices(characters, k=6)) for _ in range(40)]


def table(rows: list[tuple[str, str]]) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows([("label", "text"), *rows])
    return file.getvalue().encode()


CORPORA = {
    kind: [(label, text) for label, c in zip("ab", pair, strict=True) for text in texts_of(kind, c)]
    for kind, pair in SIGNS.items()
} | {"equal in a class": [("a", "ok")] * 40 + [("b", f"message {i}") for i in range(40)]}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CORPORA)
def test_row_38_any_text_is_compared_to_the_end(kind: str, tmp_path: Path) -> None:
    # To drop repeats would leave one text of a class whose texts are equal.
    write_project(tmp_path, "m.csv", table(CORPORA[kind]), deduplicate="none")
    for stage in STAGES:
        succeed(tmp_path, *stage.split("@"))
    comparison = json.loads((tmp_path / "metrics/comparison.json").read_text())
    records = [*comparison["methods"], *comparison["baselines"]]
    assert [record["method"] for record in records] == ["full", "lora", "tfidf", "untuned"]
    for record in records:
        assert math.isfinite(record["test_accuracy"] + record["test_log_loss"])
    answer = succeed(tmp_path, "classify", CORPORA[kind][0][1])
    assert answer.split("\t")[0] in ("a", "b")


LABELS = {
    "Persian with a non-joiner": "\u0646\u0645\u06cc\u200c\u062f\u0627\u0646\u0645",
    "French with a no-break space": "tr\u00e8s\u00a0bien",
    "French with a narrow one": "lequel\u202f?",
    "an emoji of two that are joined": "\U0001f469\u200d\U0001f4bb",
    "a heart with its selector": "\u2764\ufe0f",
    "a flag that ends with a tag": "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e007f",
    "an emoji that is newer than Python 3.11": "\U0001fa77",
    "Hebrew with a mark of direction": "\u05d0\u200f!\u05d1",
}


@pytest.mark.slow
def test_row_17_labels_of_any_script_come_out_as_they_went_in(tmp_path: Path) -> None:
    rows = [(label, f"{name} {i}") for i in range(30) for name, label in LABELS.items()]
    write_project(tmp_path, "m.csv", table(rows))
    for stage in STAGES:
        succeed(tmp_path, *stage.split("@"))
    classes = json.loads((tmp_path / "data/splits/classes.json").read_text(encoding="utf-8"))
    assert classes == sorted(LABELS.values())
    report = (tmp_path / "reports/comparison/comparison.html").read_text(encoding="utf-8")
    answers = succeed(tmp_path, "classify", "--json", *LABELS)
    for label, answer in zip(LABELS.values(), answers.splitlines(), strict=True):
        assert label in report
        assert label in json.loads(answer)["probabilities"]
