"""The README's results are those of the metrics in git."""

import html
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from comparison_inputs import write_inputs
from lora_compare.comparison.evidence import load_evidence
from lora_compare.comparison.verdict import compare
from lora_compare.errors import DataError
from lora_compare.report.markdown import render_results, table, write_results
from small_project import ROOT


def committed(path: str) -> str:
    """Return the last committed content of a file; a run of the pipeline may have changed it."""
    command = ["git", "show", f"HEAD:{path}"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_the_readme_shows_the_results_of_the_metrics_in_git() -> None:
    comparison = json.loads(committed("metrics/comparison.json"))
    assert render_results(comparison) in committed("README.md")


def test_results_replace_what_stands_between_the_marks(tmp_path: Path) -> None:
    paths, params = write_inputs(tmp_path, n=40)
    comparison = compare(load_evidence(paths, params), np.arange(40), params)
    path = tmp_path / "a.md"
    path.write_text("# A\n\n<!-- results -->\nyesterday\n<!-- /results -->\n\nend\n")
    write_results(path, comparison)
    first = path.read_text()
    write_results(path, comparison)
    assert path.read_text() == first
    assert "yesterday" not in first
    assert first.startswith("# A\n\n<!-- results -->\nBefore the verdict:\n\n- The base model is")
    assert "\n\n**Use " in first
    assert first.endswith("|\n<!-- /results -->\n\nend\n")


def test_a_file_without_marks_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# A\n")
    with pytest.raises(DataError, match="no place for results"):
        write_results(path, {})
    assert path.read_text() == "# A\n"


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a | b \\| c\n| d | e |",
        "[prize](http://evil.example) ![](x.png) `code` **bold**",
        "see https://evil.example or www.evil.example, mail me@evil.example",
        "\u202egnirts desrever\u2066",
        "&lt;b&gt; &#60;",
    ],
)
def test_a_cell_holds_nothing_that_markdown_acts_on(text: str) -> None:
    lines = table(("message",), [[text]]).splitlines()
    assert len(lines) == 3
    assert lines[2].count("|") == 2
    inner = lines[2].strip("| ")
    assert not re.search(r"[<>\[\]`*@\\\u202e\u2066]|://|www\.|&(?!#\d+;)", inner)
    upright = re.sub("[\u202e\u2066]", "\N{REPLACEMENT CHARACTER}", text)
    assert html.unescape(inner) == " ".join(upright.split())
