"""What CONTRIBUTING.md says of adding things, done word for word in a copy of the project."""

import re
from pathlib import Path

import pytest

from dvc_runs import run
from small_project import ROOT, copy_project

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
RECIPES = re.findall(r"\n### (.*?)\n(.*?)(?=\n### |\Z)", PAGE, re.S)


def change(project: Path, diff: str) -> None:
    """Apply a diff without line numbers: what it shows must stand in the file exactly once."""
    header, *lines = diff.splitlines(keepends=True)
    path = project / header.removeprefix("--- ").strip()
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    if not before:
        assert not path.exists()
        path.write_text(after)
        return
    text = "\n" + path.read_text()
    assert text.count("\n" + before) == 1, f"{path}:\n{before}"
    path.write_text(text.replace("\n" + before, "\n" + after)[1:])


def follow(project: Path, recipe: str) -> None:
    for diff in re.findall(r"```diff\n(.*?)```", recipe, re.S):
        change(project, diff)


def show(project: Path, recipe: str) -> None:
    (commands,) = re.findall(r"```sh\n(.*?)```", recipe, re.S)
    source = str(project / "src")
    run(project, "bash", "-euo", "pipefail", "-c", commands, PYTHONPATH=source)


def test_there_is_a_recipe_for_everything_that_the_project_has_several_of() -> None:
    titles = ["A method", "A kind of `trainable`", "A metric", "A stage", "A model"]
    assert [title for title, _ in RECIPES] == titles


def test_every_recipe_finds_its_place_and_the_rules_accept_what_it_adds(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    for _, recipe in RECIPES:
        follow(project, recipe)
    run(project, "ruff", "check", "src", "stages")
    run(project, "ruff", "format", "--check", "src", "stages")


@pytest.mark.slow
def test_every_recipe_works_one_after_the_other(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    for _, recipe in RECIPES:
        follow(project, recipe)
        show(project, recipe)
