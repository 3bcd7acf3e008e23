"""What all tests share: the real files, where they are, and a tracking store."""

import fcntl
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer

# What a helper's assertion compares is shown as a test's is.
pytest.register_assert_rewrite("dvc_runs", "interchange", "mlflow_servers", "tracked_project")

# As many workers as cores run at once: one thread each. Set before anything imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder with the real files; the test is skipped where there is none."""
    folder = os.environ.get("LORA_COMPARE_ASSETS")
    if not folder:
        pytest.skip("LORA_COMPARE_ASSETS names no folder with the SMS Spam Collection")
    return Path(folder)


# Random examples are the same in every run of the suite; `make fuzz` draws others every time.
# An example that takes long has hung: these machines are slow now and then.
PATIENCE = timedelta(seconds=20)
settings.register_profile("suite", derandomize=True, deadline=PATIENCE, database=None)
settings.register_profile(
    "thorough",
    max_examples=10_000,
    deadline=PATIENCE,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder `name` that `make` has filled, once for all workers of this run."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, started = shared / name, shared / f"{name} started"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            make(started)
            started.rename(folder)
    return folder


@pytest.fixture(scope="session")
def trained_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project after all its stages; to copy, not to change."""
    from small_project import STAGES, make_project

    name = "project with ünicode"
    return make_once(tmp_path_factory, name, lambda folder: make_project(folder, *STAGES))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> "Iterator[HTTPServer]":
    """A server on loopback that answers as the test says, and many requests at once."""
    from pytest_httpserver import HTTPServer

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with HTTPServer(host="127.0.0.1", threaded=True) as server:
        yield server


@pytest.fixture
def no_tracking_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine decides where runs go."""
    from lora_compare.tracking.server import PATIENCE

    ours = ("LORA_COMPARE_TRACKING", "DVC_ROOT", "DVC_EXP_NAME")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI", *ours):
        # Set first: what a test leaves there, as mlflow.set_tracking_uri does, goes with it.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in PATIENCE.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh SQLite store of MLflow to copy, which takes seconds to make."""
    from tracked_project import store_client

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    store_client(f"sqlite:///{path}")
    return path
