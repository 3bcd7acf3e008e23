"""The same stages on a Dask cluster and on a Ray one: the same bytes, and no open door."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from clusters import Cluster, dask_cluster, ray_cluster, wait_until
from lora_compare.project.files import read_json
from small_project import ROOT, environment, run_stages, write_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SETTINGS = {"seeds": "[1, 2, 3]", "lora_dropout": 0.1}
STAGES = ("finetune@full", "finetune@lora", "evaluate@full", "evaluate@lora", "compare")


def run_on(cluster: Cluster, project: Path, *stages: str) -> str:
    """Run stages in processes of their own, and return what they said."""
    said = ""
    for stage in stages:
        name, *method = stage.split("@")
        done = subprocess.run(
            [sys.executable, str(ROOT / "stages" / f"{name}.py"), *method],
            cwd=project,
            env=environment(**cluster.variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        said += done.stdout
    return said


def results(project: Path) -> dict[str, bytes]:
    """Return the bytes of all that depends on no time: models, histories, answers, metrics."""
    folders = ("models", "reports/evaluation", "reports/training", "metrics")
    found = [path for name in folders for path in (project / name).rglob("*") if path.is_file()]
    timed = ("cost.json", "comparison.json", "summary.json", "SHA256SUMS", "provenance.json")
    kept = [path for path in found if not path.name.endswith(timed)]
    return {str(path.relative_to(project)): path.read_bytes() for path in kept}


@pytest.fixture(scope="module")
def here(trained_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose methods were trained and compared by processes of this machine."""
    folder = untrained(trained_project, tmp_path_factory.mktemp("here") / "project")
    write_settings(folder, **SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_COMPARE_PROCESSES", "2")
        return run_stages(folder, *STAGES)


@pytest.fixture(scope="module", params=["dask", "ray"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    found: AbstractContextManager[Cluster]
    found = dask_cluster(folder) if request.param == "dask" else ray_cluster()
    with found as running:
        yield running


def untrained(project: Path, new: Path) -> Path:
    """Copy a project without what its trainings have left."""
    shutil.copytree(project, new)
    for name in ("models/full", "models/lora", "reports", ".checkpoints"):
        shutil.rmtree(new / name)
    for name in ("evaluation/untuned", "evaluation/tfidf", "tuning", "base"):
        shutil.copytree(project / "reports" / name, new / "reports" / name)
    return new


def test_a_comparison_has_the_bytes_of_one_made_here(
    here: Path, cluster: Cluster, tmp_path: Path
) -> None:
    project = untrained(here, tmp_path / "project")
    said = run_on(cluster, project, *STAGES)
    assert f"finetune lora: 3 trainings, {cluster.engine.capitalize()} at {cluster.address}" in said
    assert "finetune lora, seed 3: 11/11" in said
    assert results(project) == results(here)
    assert set(read_json(project / "metrics" / "summary.json")) == set(
        read_json(here / "metrics" / "summary.json")
    )
    assert not list((project / ".checkpoints").rglob("*.safetensors.tmp"))


def test_what_is_finished_is_not_trained_again(
    here: Path, cluster: Cluster, tmp_path: Path
) -> None:
    project = shutil.copytree(here, tmp_path / "project")
    write_settings(project, **{**SETTINGS, "seeds": "[4, 1, 2]"})
    said = run_on(cluster, project, "finetune@lora")
    assert "finetune lora: 1 training" in said
    one = "models/lora/seed-1/model.safetensors"
    assert results(project)[one] == results(here)[one]


def test_no_port_is_open_but_on_loopback(here: Path, tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "cluster") as cluster:
        for variables, where in (
            ({"LORA_COMPARE_TRACKING": "off", "LORA_COMPARE_PROCESSES": "2"}, "here"),
            (cluster.variables, "there"),
        ):
            project = untrained(here, tmp_path / where)
            write_settings(project, **SETTINGS, epochs=5)
            assert listeners_while_training(project, variables) == set()
        addresses = {connection for p in cluster.processes() for connection in listening(p)}
        assert addresses == {"127.0.0.1"}


def listeners_while_training(project: Path, variables: dict[str, str]) -> set[str]:
    """Return the addresses on which the stage and its processes listen when all of them work."""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "stages" / "finetune.py"), "lora"],
        cwd=project,
        env=environment(**variables),
        stderr=subprocess.DEVNULL,
    ) as stage:
        wait_until(lambda: list(project.glob(".checkpoints/finetune@lora/seed-*")))
        family = [psutil.Process(stage.pid), *psutil.Process(stage.pid).children(recursive=True)]
        found = {address for process in family for address in listening(process)}
        assert stage.wait() == 0
    return found


def listening(process: psutil.Process) -> list[str]:
    connections = process.net_connections()
    return [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
