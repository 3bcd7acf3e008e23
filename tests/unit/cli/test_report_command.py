"""`lora-compare report`: the report again, from files alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from comparison_inputs import settings, write_inputs
from lora_compare.cli import main
from lora_compare.report.page import write_comparison
from small_project import environment

METHODS = ("full", "lora")


def outputs(root: Path) -> dict[str, bytes]:
    """Return what the stage compare writes, by its path."""
    made = [p for p in (root / "reports" / "comparison").rglob("*") if p.is_file()]
    made.append(root / "metrics" / "comparison.json")
    return {str(path.relative_to(root)): path.read_bytes() for path in made}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the results of all stages before compare, and the current folder."""
    write_inputs(tmp_path, METHODS, n=60)
    (tmp_path / "params.yaml").write_text(settings(METHODS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["report", *arguments])


def test_it_writes_the_bytes_of_the_stage(project: Path, tmp_path_factory):
    done = report()
    assert done.exit_code == 0, done.output
    again = tmp_path_factory.mktemp("stage")
    paths, params = write_inputs(again, METHODS, n=60)
    write_comparison(paths, params)
    assert outputs(project) == outputs(again)
    folder = "reports/comparison"
    page, markdown = f"{folder}/comparison.html", f"{folder}/comparison.md"
    assert {page, markdown, f"{folder}/plots/loss.svg"} <= {*outputs(project)}
    assert "comparison.html" in done.stdout
    assert report("--quiet").output == ""


def test_a_missing_file_is_named_with_the_way_to_get_it(project: Path):
    (project / "reports" / "evaluation" / "lora" / "predictions-1.csv").unlink()
    done = report()
    assert done.exit_code == 2
    assert "predictions-1.csv is missing" in done.stderr
    assert "the output of the stage evaluate@lora" in done.stderr
    assert "dvc pull" in done.stderr
    assert "dvc repro" in done.stderr
    assert not list(project.rglob("comparison.html"))


def test_a_changed_file_is_refused(project: Path):
    file = project / "data" / "splits" / "train.csv"
    file.write_text(file.read_text() + "0,another\n")
    done = report()
    assert done.exit_code == 2
    assert "train.csv is not what the stage split wrote" in done.stderr


@pytest.mark.slow
def test_neither_torch_nor_mlflow_is_loaded(project: Path):
    script = (
        "import sys; from lora_compare.cli import main\n"
        "try: main(['report', '--quiet'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(sorted({'torch', 'mlflow', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
