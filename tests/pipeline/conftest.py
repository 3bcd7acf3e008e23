"""Projects with results, made once for all tests that start from one."""

import shutil
from pathlib import Path

import pytest

from conftest import make_once
from dvc_runs import dvc
from small_project import commit, copy_project


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project whose pipeline has run, its own text kept by DVC, all committed; to copy."""

    def make(folder: Path) -> None:
        copy_project(folder)
        dvc(folder, "add", "inputs/text/messages.csv")
        dvc(folder, "repro")
        commit(folder, "results")

    return make_once(tmp_path_factory, "results", make)


@pytest.fixture(scope="module")
def project(trained_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project after all its stages."""
    folder = tmp_path_factory.mktemp("copy") / trained_project.name
    return shutil.copytree(trained_project, folder)


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the current folder; nothing is tracked."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    return project
