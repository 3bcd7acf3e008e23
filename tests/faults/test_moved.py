"""A project that is moved or copied keeps its runs and models, and leaves the old place alone."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_compare.cli.doctor import state
from lora_compare.cli.doctor.findings import Project
from lora_compare.tracking.server import Server
from served_project import write_models
from small_project import environment
from tracked_project import EXPERIMENT, RUNS, Lines, Shown, TrackedProject

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("no_tracking_settings")]

CODE = "from lora_compare.cli import main; main()"

LOAD = """
import sys, mlflow, numpy
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/lora-compare-bundled-gpt2-nano-lora@champion")
print(model.predict(numpy.array(["see you at seven"]))["label"][0])
"""


def command(folder: Path, *arguments: str) -> str:
    """Run Python in `folder`, where it ends well, and return what it printed.

    In a process of its own: MLflow remembers where the files of a run are as long as it lives.
    """
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder with its time and its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A project with models whose runs and models are in its store; only to be copied."""
    folder = tmp_path_factory.mktemp("there") / "ein Projekt ü"
    project = TrackedProject.with_store(folder, empty_store)
    write_models(project.paths)
    command(folder, "-c", CODE, "sync")
    return folder


@pytest.fixture
def original(shown: Path, tmp_path: Path) -> Path:
    """A project at a place where it may be moved from; its store was made there."""
    folder = tmp_path / "original"
    shutil.copytree(shown, folder)
    command(folder, "-c", CODE, "sync")
    return folder


def moved(original: Path, target: Path) -> None:
    original.rename(target)


def copied(original: Path, target: Path) -> None:
    shutil.copytree(original, target)


def copied_and_deleted(original: Path, target: Path) -> None:
    shutil.copytree(original, target)
    (original / "mlflow.db").unlink()


def copied_without_files(original: Path, target: Path) -> None:
    shutil.copytree(original, target, ignore=shutil.ignore_patterns("mlartifacts"))


WAYS = (
    moved,
    pytest.param(copied_without_files, marks=pytest.mark.slow),
    pytest.param(copied, marks=pytest.mark.slow),
    pytest.param(copied_and_deleted, marks=pytest.mark.slow),
)


def at(folder: Path) -> Shown:
    """What the store of the project in `folder` shows."""
    return Shown(f"sqlite:///{folder / 'mlflow.db'}", EXPERIMENT)


@pytest.fixture
def here(original: Path, tmp_path: Path, way: Callable[[Path, Path], None]) -> Path:
    """The new place, to which the project went in one of the ways."""
    target = tmp_path / "anders wo"
    way(original, target)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_row_29_sync_shows_runs_and_models_in_the_new_place_and_says_so(
    original: Path, here: Path, way: Callable[[Path, Path], None]
) -> None:
    before = content(original)

    first, second = (command(here, "-c", CODE, "sync") for _ in range(2))

    assert f"moved or copied from {original};" in first
    assert "moved or copied" not in second
    assert f"published 0, already there {len(RUNS)}" in second
    assert content(original) == before
    assert original.exists() == (way is not moved)
    project = at(here)
    assert project.names() == RUNS
    assert all(run.info.artifact_uri.startswith(here.as_uri()) for run in project.runs())
    versions = project.client().search_model_versions()
    assert len(versions) == 2
    assert all(made.source.startswith(here.as_uri()) for made in versions)
    shutil.rmtree(original, ignore_errors=True)
    assert "metrics.json" in project.files("lora")
    assert command(here, "-c", LOAD, project.uri).strip() in ("ham", "spam")


def run_id(project: Shown, name: str) -> str:
    return str(project.run(name).info.run_id)


@pytest.mark.slow
@pytest.mark.parametrize("way", [moved, copied])
def test_row_29_a_run_in_the_new_place_says_so_and_writes_there_alone(
    original: Path, here: Path, way: Callable[[Path, Path], None]
) -> None:
    before = content(original)
    project = TrackedProject(here)  # the same results, as another run of the pipeline leaves them
    write_models(project.paths)
    lines = Lines()

    project.log("split", "compare", progress=lines)

    said = [line for line in lines.lines if "moved or copied from" in line]
    assert len(said) == 1
    assert str(original) in said[0]
    assert content(original) == before
    assert original.exists() == (way is not moved)
    assert project.names() == RUNS


@pytest.mark.slow
def test_row_29_the_doctor_says_so_and_changes_nothing(original: Path, tmp_path: Path) -> None:
    here = tmp_path / "anders wo"
    copied(original, here)
    store = (here / "mlflow.db").read_bytes()
    finding = state.server(Project(TrackedProject(here).paths))
    assert str(finding.status) == "warning"
    assert f"moved or copied from {original}" in finding.what
    assert finding.remedy == "lora-compare sync"
    assert (here / "mlflow.db").read_bytes() == store
    command(here, "-c", CODE, "sync")
    assert str(state.server(Project(TrackedProject(here).paths)).status) == "ok"


def test_row_29_an_experiment_that_keeps_its_files_elsewhere_on_purpose_keeps_them_there(
    tmp_path: Path, empty_store: Path
) -> None:
    project = TrackedProject.with_store(tmp_path / "project", empty_store)
    large = tmp_path / "large disk" / "mlartifacts" / "a_comparison"
    large.mkdir(parents=True)
    project.client().create_experiment("a comparison", artifact_location=large.as_uri())
    project.sync()
    server = Server.configured(project.paths)
    assert server is not None
    assert server.moved_from() == []
    assert {run.info.artifact_uri.startswith(large.as_uri()) for run in project.runs()} == {True}
    assert not (project.paths.root / "mlartifacts").exists()


@pytest.mark.slow
def test_row_29_files_that_are_gone_are_brought_again_whatever_the_store_says(
    original: Path,
) -> None:
    project = at(original)
    plots = original / "mlartifacts" / "a_comparison" / run_id(project, "lora") / "artifacts"
    history = plots / "history.csv"
    history.write_text("cut o")
    shutil.rmtree(plots / "plots")
    version = project.client().get_model_version("lora-compare-bundled-gpt2-nano-lora", "1")
    shutil.rmtree(Path(version.source.removeprefix("file://")))
    said = command(original, "-c", CODE, "sync")
    assert f"published 1, already there {len(RUNS) - 1}" in said
    assert "registered in MLflow: lora-compare-bundled-gpt2-nano-lora 1" in said
    assert history.read_bytes() == (original / "reports/training/lora/history.csv").read_bytes()
    assert (plots / "plots" / "confusion_lora.svg").is_file()
    assert command(original, "-c", LOAD, project.uri).strip() in ("ham", "spam")
    assert "registered" not in command(original, "-c", CODE, "sync")
