"""Trainings on a cluster: a worker dies, is another one, or the scheduler is not there."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent

import pytest

from clusters import Cluster, dask_cluster, free_port, ray_cluster, wait_until
from faults.test_several_trainings import IN_A_WORKER
from faults.test_training_faults import checkpoints, go_on, outputs, trained_anew, untrained
from lora_compare.compute.parallel import choose_cluster
from lora_compare.errors import ClusterError, UserError
from small_project import ROOT, started, write_settings

SEEDS = {"seeds": "[1, 2]", "checkpoint_every": 0, "lora_dropout": 0.1, "epochs": 4}


@pytest.fixture(scope="module")
def undisturbed(trained_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose adapter was trained with two seeds in processes of this machine."""
    folder = tmp_path_factory.mktemp("undisturbed") / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_COMPARE_PROCESSES", "2")
        return trained_anew(trained_project, folder, ["lora"], **SEEDS)


@pytest.fixture
def project(undisturbed: Path, tmp_path: Path) -> Path:
    """The project as it was before it was trained."""
    return untrained(undisturbed, tmp_path / "project")


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dask_cluster(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ray() -> Iterator[Cluster]:
    with ray_cluster() as cluster:
        yield cluster


@pytest.fixture(params=["dask", "ray"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    found: Cluster = request.getfixturevalue(request.param)
    return found


@contextmanager
def finetuning(
    project: Path, variables: dict[str, str], begun: int = 1
) -> "Iterator[subprocess.Popen[str]]":
    """Train on a cluster, in the block from the time when so many trainings have a checkpoint."""
    command = sys.executable, str(ROOT / "stages" / "finetune.py"), "lora"
    with started(project, *command, **variables) as stage:
        try:
            wait_until(lambda: len(checkpoints(project, "lora")) >= begun or stage.poll())
            yield stage
        finally:
            stage.kill()


def failed(project: Path, variables: dict[str, str]) -> str:
    """Train, and return what is said when that has failed."""
    with finetuning(project, variables, begun=100) as stage:
        output, _ = stage.communicate()
    assert stage.returncode == 2, output
    assert "Traceback" not in output
    assert outputs(project, "lora") == {}
    return output


def goes_on(project: Path, undisturbed: Path) -> None:
    """Train again on this machine: with the checkpoints of the cluster, to the same bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_COMPARE_PROCESSES", "1")
        assert "go on after step" in go_on(project, "lora")
    assert outputs(project, "lora") == outputs(undisturbed, "lora")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_row_35_a_killed_worker_is_survived(
    undisturbed: Path, project: Path, cluster: Cluster
) -> None:
    with finetuning(project, cluster.variables, begun=2) as stage:
        cluster.working()[0].kill()
        output, _ = stage.communicate()
    assert stage.returncode == 0, output
    again = r"finetune lora, seed \d: its worker \(.+\) is gone; it is trained again \(.+\)"
    assert re.search(again, output), output
    assert outputs(project, "lora") == outputs(undisturbed, "lora")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_row_35_a_signal_ends_all_with_their_checkpoints(
    signum: signal.Signals, code: int, undisturbed: Path, project: Path, cluster: Cluster
) -> None:
    with finetuning(project, cluster.variables, begun=2) as stage:
        os.killpg(stage.pid, signum) if signum == signal.SIGINT else stage.send_signal(signum)
        output, _ = stage.communicate()
    assert stage.returncode == code, output
    folder = project / ".checkpoints" / "finetune@lora"
    where = f"its trainings are kept in {folder}; dvc repro goes on from there"
    assert f"finetune@lora: ended by {signum.name}; {where}" in output
    assert "Traceback" not in output
    goes_on(project, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_row_35_no_worker_goes_on_for_a_stage_that_is_killed(
    project: Path, cluster: Cluster
) -> None:
    write_settings(project, **{**SEEDS, "epochs": 1000})
    with finetuning(project, cluster.variables, begun=2):
        assert not is_idle(cluster)
    wait_until(lambda: is_idle(cluster), 60)


def is_idle(cluster: Cluster) -> bool:
    """Return whether none of its workers does a task, whoever may still want it."""
    if cluster.engine == "ray":
        return not cluster.working()
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        counts = client.run(lambda dask_worker: dask_worker.state.executing_count)
    return len(counts) == 2 and not any(counts.values())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_row_35_a_worker_with_another_torch_is_refused_by_name(
    project: Path, tmp_path: Path
) -> None:
    other = "import torch; torch.__version__ = '2.99.0'"
    with dask_cluster(tmp_path / "cluster", "--preload", other, workers=1) as cluster:
        output = failed(project, cluster.variables)
    assert "A worker would train something else." in output
    assert re.search(r"where: +worker tcp://127.0.0.1:\d+", output)
    assert re.search(r"actual: +torch was 2\.1.*, is 2\.99\.0", output)
    assert "install the same there" in output


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_row_35_a_worker_without_the_package_is_refused(project: Path, tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['lora_compare'] = None"
    with dask_cluster(tmp_path / "cluster", "--preload", hidden, workers=1) as cluster:
        output = failed(project, cluster.variables)
    assert "A worker cannot run this project's code." in output
    assert "ModuleNotFoundError" in output


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_row_35_a_worker_of_several_threads_is_refused(project: Path, tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "cluster", "--nthreads", "2", workers=1) as cluster:
        output = failed(project, cluster.variables)
    assert re.search(r"actual: +2 threads", output)
    assert "--nthreads 1" in output


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_row_35_a_training_that_fails_on_a_worker_fails_alone(
    undisturbed: Path, project: Path, tmp_path: Path
) -> None:
    deed = "next(arguments[0].parameters()).data.fill_(float('inf'))"
    sabotage = tmp_path / "sabotage.py"
    prelude = IN_A_WORKER.format(module="ranks.one", steps=2, seeds=(1,), deed=deed)
    # A worker of a cluster says where checkpoints go.
    prelude = prelude.replace("(job, tell)", "(job, tell, kept)")
    once = "import sys\nif 'lora_compare.training.remote' not in sys.modules:\n"
    sabotage.write_text(once + indent(prelude + "import lora_compare.training.remote\n", "    "))
    with dask_cluster(tmp_path / "cluster", "--preload", str(sabotage)) as cluster:
        output = failed(project, cluster.variables)
    assert "finetune lora, seed 1: The loss is nan. The others go on." in output
    assert re.search(r"kept: .+the last good checkpoint\n +and, finished: seed 2", output)
    goes_on(project, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_row_35_a_scheduler_that_dies_ends_the_stage_and_what_is_kept_goes_on(
    undisturbed: Path, project: Path, tmp_path: Path
) -> None:
    with (
        dask_cluster(tmp_path / "cluster") as cluster,
        finetuning(project, cluster.variables, begun=2) as stage,
    ):
        cluster.head.kill()
        start = time.monotonic()
        output, _ = stage.communicate()
        seconds = time.monotonic() - start
    assert stage.returncode == 2, output
    assert "The Dask scheduler is gone." in output
    assert "Traceback" not in output
    assert seconds < 120
    goes_on(project, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "variable", "address"),
    [
        ("dask", "DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:{port}"),
        ("ray", "RAY_ADDRESS", "127.0.0.1:{port}"),
    ],
)
def test_row_35_an_unreachable_scheduler_is_an_error_in_seconds(
    engine: str, variable: str, address: str, project: Path
) -> None:
    address = address.format(port=free_port())
    start = time.monotonic()
    output = failed(
        project,
        {"LORA_COMPARE_TRACKING": "off", "LORA_COMPARE_BACKEND": engine, variable: address},
    )
    assert time.monotonic() - start < 120  # most of it starts Python, where others use the cores
    assert "does not answer" in output
    assert re.search(rf"where: +{variable}={address}\n", output)
    assert re.search(r"next: +start it", output)


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_row_35_a_library_that_is_missing_is_named(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_COMPARE_BACKEND", engine)
    monkeypatch.setitem(sys.modules, {"dask": "distributed", "ray": "ray"}[engine], None)
    monkeypatch.delitem(sys.modules, f"lora_compare.compute.engines.{engine}", raising=False)
    with pytest.raises(ClusterError, match=f"{engine} is not installed") as error:
        choose_cluster()
    assert f'pip install -e ".[{engine}]"' in error.value.next


def test_row_35_an_engine_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_COMPARE_BACKEND", "spark")
    with pytest.raises(UserError, match="LORA_COMPARE_BACKEND") as error:
        choose_cluster()
    assert error.value.actual == "spark"
    assert "loky" in error.value.expected
    monkeypatch.setenv("LORA_COMPARE_BACKEND", "loky")
    assert choose_cluster() is None
