"""MLflow's client for one experiment, silent and under a lock; the only user of MLflow."""

import json
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lora_compare.errors import StorageError
from lora_compare.project.progress import without_warnings
from lora_compare.tracking.figures import Point
from lora_compare.tracking.runs import Data
from lora_compare.tracking.server import ARTIFACTS, BUSY_SECONDS, SQLITE, Server, set_patience

KEY = "lora_compare.key"
"""The tag by which a run is found."""

LOCK_SECONDS = 120.0
"""How long to wait for another process that writes to the store: on a busy machine the first start
of one takes half a minute."""

LOCATIONS = (
    *("experiments.artifact_location", "runs.artifact_uri", "logged_models.artifact_location"),
    *("model_versions.source", "model_versions.storage_location"),
)
"""Where MLflow's tables hold places of files, which no interface of MLflow's can change."""

POINTS_PER_BATCH, PAIRS_PER_BATCH = 800, 90
"""Below MLflow's limits of 1,000 values, 100 parameters and 100 tags in one request."""


class Store:
    """One experiment in a tracking store.

    Args:
        client: MLflow's client.
        experiment: Id of the experiment.
        thorough: Whether a server too is asked for the files that it is said to have.
    """

    def __init__(self, client: Any, experiment: str, thorough: bool = False) -> None:
        self._client, self._thorough = client, thorough
        self.experiment = experiment

    @property
    def client(self) -> Any:
        """MLflow's client, for what the registry asks of it."""
        return self._client

    def tags(self) -> dict[str, str]:
        """Return the tags of the experiment itself."""
        return dict(self._client.get_experiment(self.experiment).tags)

    def tag(self, name: str, value: str) -> None:
        """Give the experiment itself a tag."""
        self._client.set_experiment_tag(self.experiment, name, value)

    def find(self, key: str) -> list[Any]:
        """Return the runs of that key, the oldest first."""
        return list(
            self._client.search_runs(
                [self.experiment],
                filter_string=f"tags.`{KEY}` = '{key}'",
                order_by=["attributes.start_time ASC"],
            )
        )

    def create(self, name: str, start: int, tags: Mapping[str, str]) -> Any:
        """Return a new run that started at `start` (ms since 1970)."""
        return self._client.create_run(
            self.experiment, start_time=start, tags=dict(tags), run_name=name
        )

    def delete(self, run_id: str) -> None:
        """Move a run to MLflow's trash."""
        self._client.delete_run(run_id)

    def finish(self, run_id: str, status: str, end: int | None) -> None:
        """End a run at `end` (ms since 1970), or at no known time, so that it has no duration."""
        if end is None:
            self._client.update_run(run_id, status)
        else:
            self._client.set_terminated(run_id, status, end)

    def history(self, run_id: str, key: str) -> dict[tuple[str, int], float]:
        """Return the latest value of a metric at every step, by (key, step)."""
        metrics = self._client.get_metric_history(run_id, key)
        ordered = sorted(metrics, key=lambda metric: int(metric.timestamp))
        return {(key, metric.step): metric.value for metric in ordered}

    def log(
        self,
        run_id: str,
        points: Sequence[tuple[Point, int]] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add to a run in as few requests as MLflow's limits allow.

        Args:
            run_id: The run.
            points: Metrics with their times (ms since 1970).
            params: Parameters, which MLflow never changes again.
            tags: Tags; a known one gets its new value.
        """
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(p.key, p.value, at, p.step) for p, at in points]
        batches = zip_longest(
            _parts(metrics, POINTS_PER_BATCH),
            _parts([Param(*pair) for pair in (params or {}).items()], PAIRS_PER_BATCH),
            _parts([RunTag(*pair) for pair in (tags or {}).items()], PAIRS_PER_BATCH),
            fillvalue=(),
        )
        for some_metrics, some_params, some_tags in batches:
            self._client.log_batch(run_id, some_metrics, some_params, some_tags)

    def log_datasets(self, run_id: str, datasets: Iterable[Data]) -> None:
        """Log the splits that a run used."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(data.name, data.digest, "local", json.dumps({"uri": data.path})),
                [InputTag("mlflow.data.context", data.context)],
            )
            for data in datasets
        ]
        self._client.log_inputs(run_id, datasets=inputs)

    def upload(self, run_id: str, folder: Path) -> None:
        """Add the files in `folder` to a run's artifacts."""
        self._client.log_artifacts(run_id, str(folder))

    def lost(self, place: str, files: Mapping[str, int | None]) -> set[str]:
        """Return those of the files that are not at a place, or are of another size.

        Args:
            place: The URI of a run's or model's files.
            files: Bytes of each file by its path there; None: any number.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if not files or not (self._thorough or place.startswith("file:")):
            return set()
        repository = get_artifact_repository(place, tracking_uri=self._client.tracking_uri)
        folders = {name.rpartition("/")[0] for name in files}
        found = (file for folder in folders for file in repository.list_artifacts(folder or None))
        there = {file.path: file.file_size for file in found}
        return {
            name
            for name, size in files.items()
            if name not in there or size not in (None, there[name])
        }


def _parts(items: list[Any], size: int) -> list[list[Any]]:
    return [items[first : first + size] for first in range(0, len(items), size)]


@contextmanager
def connect(server: Server, experiment: str, thorough: bool = False) -> Iterator[Store]:
    """Yield an experiment, made where it is missing, with the store locked on this machine.

    Two first starts of a fresh SQLite store crash each other in MLflow 3.17; the lock also
    keeps two processes from making the same run.

    Args:
        server: The tracking server.
        experiment: Name of the experiment.
        thorough: Whether a server too is asked for the files that it is said to have.
    """
    with _opened(server) as client:
        yield Store(client, _experiment(client, experiment, server), thorough)


@contextmanager
def existing(server: Server, experiment: str) -> Iterator[Store | None]:
    """Yield an experiment that is only looked at, None where it is missing.

    Args:
        server: The tracking server.
        experiment: Name of the experiment.
    """
    with _opened(server) as client:
        found = client.get_experiment_by_name(experiment)
        yield Store(client, str(found.experiment_id)) if found else None


@contextmanager
def _opened(server: Server) -> Iterator[Any]:
    from filelock import FileLock

    set_patience()
    with quietly():
        server.probe()
        if not server.home.is_dir():
            raise FileNotFoundError(f"{server.home} is gone")  # nor shall a lock bring it back
        server.lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(server.lock, timeout=LOCK_SECONDS):
            from mlflow.tracking import MlflowClient

            if server.database is not None and not server.database.exists():
                _make(server.database)
            if server.database is not None:
                _lead_here(server.database, server.moved_from())
            yield MlflowClient(server.uri)


def _make(database: Path) -> None:
    """Make a fresh SQLite store beside its place: one cut off half made would never work."""
    from mlflow.tracking import MlflowClient

    beside = database.with_name(f"{database.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)
    MlflowClient(f"{SQLITE}{beside}").search_experiments(max_results=1)
    beside.replace(database)


def _lead_here(database: Path, folders: Iterable[Path]) -> None:
    """Let a SQLite store that was in one of `folders` name the files beside it, not those there."""
    new = f"{(database.parent / ARTIFACTS).as_uri()}/"
    with closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as connection, connection:
        for old in (f"{(folder / ARTIFACTS).as_uri()}/" for folder in folders):
            for table, column in (location.split(".") for location in LOCATIONS):
                change = f"UPDATE {table} SET {column} = ? || substr({column}, ?)"  # noqa: S608
                start = f"substr({column}, 1, ?) = ?"
                values = (new, len(old) + 1, len(old), old)
                connection.execute(f"{change} WHERE {start}", values)


def prepare(server: Server) -> None:
    """Do what the first connection takes seconds for: MLflow's import, a new store's tables.

    Trouble is no news yet: the connection that is then needed meets it again and tells it.

    Args:
        server: The tracking server; a remote one is not asked anything yet.
    """
    set_patience()
    with quietly():
        problems = troubles()
        if server.is_remote:
            from mlflow.tracking import MlflowClient  # noqa: F401
        else:
            with suppress(*problems), _opened(server):
                pass


def _experiment(client: Any, name: str, server: Server) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = server.artifact_location(name)
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            # The lock is this machine's; another one may have been faster.
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep MLflow's and urllib3's words from the user, who gets one warning of ours."""
    lost = logging.getLogger("mlflow.store.db.utils")
    level = lost.level
    lost.setLevel(logging.CRITICAL)  # each lost connection would be told with a traceback
    try:
        with without_warnings("urllib3.connectionpool"):
            yield
    finally:
        lost.setLevel(level)


def troubles() -> tuple[type[Exception], ...]:
    """Return what a store, a server, a full disk, a bad URI or a missing driver can raise."""
    from google.protobuf.json_format import ParseError
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return (
        *(MlflowException, ParseError, RequestException, SQLAlchemyError),
        *(sqlite3.Error, StorageError, ValueError, ImportError, OSError),
    )
