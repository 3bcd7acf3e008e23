"""A stage's command, run inside the test's own process."""

import importlib.util

import click
from click.testing import CliRunner, Result

from small_project import ROOT


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
