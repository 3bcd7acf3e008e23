"""A stage's command, run inside the test's own process."""

import importlib.util
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from small_project import ROOT, small_params, write_messages


def command(stage: str) -> click.Command:
    """Return the command of stages/`stage`.py."""
    spec = importlib.util.spec_from_file_location(f"stage_{stage}", ROOT / "stages" / f"{stage}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: click.Command = module.main
    return main


def run(stage: str, *arguments: str) -> Result:
    """Run a stage in the current folder."""
    return CliRunner().invoke(command(stage), list(arguments))


def make_project(folder: Path, *stages: str) -> Path:
    """Write a small project to `folder` and run stages in it, without tracking."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(small_params())
    write_messages(folder / "inputs" / "messages.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LORA_COMPARE_TRACKING", "off")
        for stage in stages:
            result = run(*stage.split("@"))
            assert result.exit_code == 0, result.output + repr(result.exception)
    return folder
