"""Runs in MLflow: one per method, one per other stage, under one per pipeline state."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from lora_compare.addresses import without_credentials
from lora_compare.errors import StorageError, UserError
from lora_compare.params import Params
from lora_compare.paths import Paths
from lora_compare.progress import Progress
from lora_compare.tracking.diary import Diary
from lora_compare.tracking.figures import curve_points
from lora_compare.tracking.lineage import Pipeline, origin
from lora_compare.tracking.records import (
    current_records,
    method_record,
    pipeline_record,
    stage_record,
    starting_record,
)
from lora_compare.tracking.runs import RunRecord
from lora_compare.tracking.server import Server
from lora_compare.tracking.spool import Spool
from lora_compare.tracking.store import connect, quietly, troubles


@dataclass(frozen=True)
class SyncResult:
    """What `sync` did.

    Attributes:
        published: Names of the runs that were made or completed.
        already_there: Names of the runs that the server had.
        stale: Stages whose outputs are not made from what lies on disk now; left out.
    """

    published: tuple[str, ...]
    already_there: tuple[str, ...]
    stale: tuple[str, ...]


def log_stage(
    paths: Paths,
    params: Params,
    stage: str,
    progress: Progress,
    method: str | None = None,
    seconds: float = 0.0,
) -> None:
    """Show what a stage wrote in MLflow; without a server, keep it for `sync`.

    Nothing that a server does makes this fail: it costs some seconds and a warning.

    Args:
        paths: The project.
        params: Its parameters.
        stage: The stage that has just written its files.
        progress: Where to warn.
        method: The method, for `finetune` and `evaluate`.
        seconds: How long the stage took; 0: not known.
    """
    server = Server.configured(paths)
    if server is None:
        return
    spool = Spool(server.state)
    records = [
        replace(record, seconds=seconds) if record.stage == stage else spool.completed(record)
        for record in _records(paths, params, stage, method)
    ]
    if _deliver(server, paths, params.tracking.experiment, records, spool, progress):
        return
    try:
        for record in records:
            spool.keep(replace(record, origin=record.origin or origin(paths.root)))
    except (OSError, StorageError) as error:
        progress.say(f"warning: nor can the results be kept for it here: {_first_line(error)}")


def _records(paths: Paths, params: Params, stage: str, method: str | None) -> list[RunRecord]:
    """Return the records to publish after a stage: its own, or all after the last one."""
    pipeline = Pipeline(paths, params)
    if stage == "compare":
        return current_records(pipeline, just_ran=stage)[0]
    if method is None:
        record = stage_record(pipeline, stage)
    else:
        record = method_record(pipeline, method, evaluated=stage == "evaluate", plots=False)
    return [pipeline_record(pipeline), record]


def _deliver(
    server: Server,
    paths: Paths,
    experiment: str,
    records: list[RunRecord],
    spool: Spool,
    progress: Progress,
) -> bool:
    """Publish `records` and what was waiting; return whether the server took `records`."""
    if spool.is_away(server.shown):
        return False
    taken = False
    try:
        with connect(server, experiment) as store:
            diary = Diary(store, paths.root)
            diary.publish_all(records)
            taken = True
            for record in records:
                spool.drop(record.key)
            _publish_waiting(diary, spool)
            spool.mark_back()
    except troubles() as error:
        _warn(server, progress, error)
    return taken


def _publish_waiting(diary: Diary, spool: Spool) -> list[tuple[str, bool]]:
    waiting = list(spool)
    outcomes = diary.publish_all(waiting)
    for record in waiting:
        spool.drop(record.key)
    return outcomes


def sync(paths: Paths, params: Params, progress: Progress) -> SyncResult:
    """Show everything that waits and everything on disk in the configured tracking server.

    Running it again changes nothing.

    Args:
        paths: The project.
        params: Its parameters.
        progress: Where to report.

    Raises:
        UserError: Tracking is switched off, or the server does not take the runs; what waits
            goes on waiting.
    """
    server = Server.configured(paths)
    if server is None:
        raise UserError(
            "Tracking is switched off.",
            where="the environment variable LORA_COMPARE_TRACKING",
            next="unset LORA_COMPARE_TRACKING",
        )
    records, stale = current_records(Pipeline(paths, params))
    spool = Spool(server.state)
    try:
        with connect(server, params.tracking.experiment, budget=math.inf) as store:
            diary = Diary(store, paths.root)
            # What waits is older than what lies on disk: it goes first, so that disk wins.
            outcomes = _publish_waiting(diary, spool) + diary.publish_all(records)
            spool.mark_back()
    except troubles() as error:
        raise UserError(
            "The tracking server does not take the runs.",
            where=server.shown,
            actual=_first_line(error),
            kept="everything on disk, and what waits in .tracking/spool",
            next="start the server or correct MLFLOW_TRACKING_URI, then: lora-compare sync",
        ) from error
    progress.say(f"MLflow at {server.shown} is up to date.")
    new = dict.fromkeys(name for name, changed in outcomes if changed)
    old = dict.fromkeys(name for name, changed in outcomes if not changed and name not in new)
    return SyncResult(tuple(new), tuple(old), tuple(stale))


def live_run(paths: Paths, params: Params, method: str, progress: Progress) -> "LiveRun":
    """Return where a training can show its curves as they grow.

    A run that an earlier, killed training of the same content left is replaced; one that is
    complete is left as it is. `log_stage` completes the run from the files.

    Args:
        paths: The project.
        params: Its parameters.
        method: The method that is trained.
        progress: Where to warn.
    """
    server = Server.configured(paths)
    run = LiveRun(server, params.tracking.experiment, progress)
    run.start(Pipeline(paths, params), method)
    return run


class LiveRun:
    """A run to add points to until the server fails once; `log_stage` has them all again.

    Args:
        server: Where to show it; None: nowhere.
        experiment: Name of the experiment.
        progress: Where to warn.
    """

    def __init__(self, server: Server | None, experiment: str, progress: Progress) -> None:
        self._server = server
        self._experiment = experiment
        self._progress = progress
        self._diary: Diary | None = None
        self._run_id: str | None = None

    def start(self, pipeline: Pipeline, method: str) -> None:
        """Make the run of a method that starts to train."""
        if self._server is None or Spool(self._server.state).is_away(self._server.shown):
            return
        try:
            with connect(self._server, self._experiment) as store:
                diary = Diary(store, pipeline.paths.root)
                diary.publish_all([pipeline_record(pipeline)])
                self._run_id = diary.restart(starting_record(pipeline, method))
                self._diary = diary
        except troubles() as error:
            _warn(self._server, self._progress, error)

    def log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Show rows of the history, each with the columns of a history file, in one request."""
        points = [point for row in rows for point in curve_points(row)]
        self._call(lambda diary, run_id: diary.log(run_id, points))

    def end(self, status: str) -> None:
        """End the run of a training that did not end well."""
        self._call(lambda diary, run_id: diary.end(run_id, status))

    def _call(self, action: Callable[[Diary, str], None]) -> None:
        if self._server is None or self._diary is None or self._run_id is None:
            return
        try:
            with quietly():
                action(self._diary, self._run_id)
        except troubles() as error:
            self._diary = None
            _warn(self._server, self._progress, error)


def _warn(server: Server, progress: Progress, error: Exception) -> None:
    progress.say(
        f"warning: MLflow at {server.shown} does not take this run ({_first_line(error)}). "
        "Nothing is lost: it waits in .tracking/spool; when the server is back: lora-compare sync"
    )
    remember_outage(server)


def remember_outage(server: Server) -> None:
    """Let the next stages not wait for a server that has just failed."""
    if server.database is None:
        with suppress(StorageError):  # on a full disk, they ask it again
            Spool(server.state).mark_away(server.shown)


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    # MLflow's message goes on with the innards of the HTTP library.
    return without_credentials(line.partition(" failed with exception ")[0])[:200]
