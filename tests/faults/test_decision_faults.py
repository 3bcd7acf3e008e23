"""Costs of mistakes that the data's classes cannot have."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from lora_compare import cli
from small_project import run


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ("{eggs: {spam: 10}}", "'eggs'"),
        ("{ham: {spam: 0}, spam: {ham: 0}}", "No mistake costs anything"),
    ],
)
def test_row_26_costs_that_the_data_cannot_have_stop_what_knows_the_classes(
    trained_project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    costs: str,
    expected: str,
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(trained_project, folder)
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("costs: null", f"costs: {costs}"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    for result in (
        CliRunner().invoke(cli.main, ["check"]),
        run("baseline"),
        run("finetune", "lora"),
        run("evaluate", "lora"),
    ):
        assert result.exit_code == 2, result.output
        assert expected in result.output
        assert "params.yaml: comparison.costs" in result.output
