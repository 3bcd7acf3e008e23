"""The README's results are those of the metrics in git."""

import json
import subprocess
from pathlib import Path

import pytest

from lora_compare.errors import DataError
from lora_compare.markdown import render_results, write_results
from small_project import ROOT


def committed(path: str) -> str:
    """Return the last committed content of a file; a run of the pipeline may have changed it."""
    command = ["git", "show", f"HEAD:{path}"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_the_readme_shows_the_results_of_the_metrics_in_git() -> None:
    comparison = json.loads(committed("metrics/comparison.json"))
    assert render_results(comparison) in committed("README.md")


def test_results_replace_what_stands_between_the_marks(tmp_path: Path) -> None:
    comparison = json.loads(committed("metrics/comparison.json"))
    path = tmp_path / "a.md"
    path.write_text("# A\n\n<!-- results -->\nold\n<!-- /results -->\n\nend\n")
    write_results(path, comparison)
    first = path.read_text()
    write_results(path, comparison)
    assert path.read_text() == first
    assert "old" not in first
    assert first.startswith("# A\n\n<!-- results -->\n**")
    assert first.endswith("|\n<!-- /results -->\n\nend\n")


def test_a_file_without_marks_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# A\n")
    with pytest.raises(DataError, match="no place for results"):
        write_results(path, {})
    assert path.read_text() == "# A\n"
