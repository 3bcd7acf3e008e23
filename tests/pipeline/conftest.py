"""A project with results, made once for all tests that start from one."""

from pathlib import Path

import pytest

from dvc_runs import dvc
from small_project import commit, copy_project


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project whose pipeline has run, its own text kept by DVC, all committed; to copy."""
    folder = copy_project(tmp_path_factory.mktemp("results") / "project")
    dvc(folder, "add", "inputs/messages.csv")
    dvc(folder, "repro")
    commit(folder, "results")
    return folder
