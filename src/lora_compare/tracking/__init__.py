"""Runs in MLflow: one per method, one per other stage, under one per pipeline state."""

import math
from dataclasses import dataclass, field, replace

from lora_compare.errors import MissingArtifactError, StorageError, UserError
from lora_compare.params import Params
from lora_compare.project.lineage import Pipeline, origin
from lora_compare.project.paths import Paths
from lora_compare.project.progress import Progress
from lora_compare.serving.bundles import Bundle, bundles
from lora_compare.serving.registry import Registered, register_all
from lora_compare.tracking.diary import Diary
from lora_compare.tracking.live import LiveRun, live_run
from lora_compare.tracking.outage import RESTART, first_line, remember_outage, warn
from lora_compare.tracking.records import (
    UPLOAD_LIMIT,
    current_records,
    method_record,
    pipeline_record,
    stage_record,
)
from lora_compare.tracking.runs import RunRecord
from lora_compare.tracking.server import Server, remedy
from lora_compare.tracking.spool import Spool
from lora_compare.tracking.store import Store, connect, troubles
from lora_compare.tracking.view import experiment_tags

__all__ = [
    "LiveRun",
    "Registered",
    "SyncResult",
    "live_run",
    "log_stage",
    "register",
    "remember_outage",
    "sync",
]


@dataclass(frozen=True)
class SyncResult:
    """What `sync` did.

    Attributes:
        published: Names of the runs that were made or completed.
        already_there: Names of the runs that the server had.
        stale: Stages whose outputs are not made from what lies on disk now; left out.
        models: What became of the methods' models.
    """

    published: tuple[str, ...]
    already_there: tuple[str, ...]
    stale: tuple[str, ...]
    models: Registered = field(default_factory=Registered)


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
    served = paths if stage == "compare" else None
    if _deliver(server, paths, params.tracking.experiment, records, spool, progress, served):
        return
    try:
        for record in records:
            spool.keep(replace(record, origin=record.origin or origin(paths.root)))
    except (OSError, StorageError) as error:
        progress.say(f"warning: nor can the results be kept for it here: {first_line(error)}")


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
    served: Paths | None = None,
) -> bool:
    """Publish `records` and what was waiting; return whether the server took `records`.

    Args:
        server: Where to.
        paths: The project, or the copy in which DVC runs an experiment.
        experiment: Name of the experiment.
        records: The runs.
        spool: What waits.
        progress: Where to warn.
        served: The project whose models are registered too; None: none are.
    """
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
            if served is not None:
                _describe(store, server, served, records)
                _register_quietly(store, diary, server, served, records, progress)
    except troubles() as error:
        warn(server, progress, error)
    return taken


def _register_quietly(
    store: Store,
    diary: Diary,
    server: Server,
    paths: Paths,
    records: list[RunRecord],
    progress: Progress,
) -> None:
    """Register the models of `records`; what goes wrong costs a warning, and `sync` does it."""
    try:
        models = bundles(paths, records)
        registered = _register(store, diary, server, models, paths, UPLOAD_LIMIT)
    except Exception as error:
        # Whatever it is: the runs are there, and no stage depends on its models being there too.
        progress.say(
            f"warning: MLflow at {server.shown} does not take the models ({first_line(error)}). "
            "They are on disk; to register them: lora-compare sync"
        )
        return
    for line in registered.lines:
        progress.say(line)


def _register(
    store: Store,
    diary: Diary,
    server: Server,
    models: list[Bundle],
    paths: Paths,
    limit: float,
) -> Registered:
    """Register models; those of a queued experiment, in DVC's temporary copy, have no champion."""
    return register_all(store, diary, models, limit, crown=server.home == paths.root)


def _describe(store: Store, server: Server, paths: Paths, records: list[RunRecord]) -> None:
    """Describe the experiment by `records`; those of a queued experiment are not its verdict."""
    if server.home == paths.root:
        store.describe(experiment_tags(records))


def _publish_waiting(diary: Diary, spool: Spool) -> list[tuple[str, bool]]:
    waiting = list(spool)
    outcomes = diary.publish_all(waiting)
    for record in waiting:
        spool.drop(record.key)
    return outcomes


def sync(paths: Paths, params: Params, progress: Progress) -> SyncResult:
    """Show everything that waits and everything on disk in the configured tracking server.

    Running it again changes nothing. Models are registered once the comparison is complete.

    Args:
        paths: The project.
        params: Its parameters.
        progress: Where to report.

    Raises:
        UserError: Tracking is switched off, or the server does not take the runs; what waits
            goes on waiting.
    """
    records, stale = current_records(Pipeline(paths, params))
    complete = any(record.stage == "compare" for record in records)
    models = bundles(paths, records) if complete else []
    server, outcomes, registered = _synchronise(paths, params, records, models, UPLOAD_LIMIT)
    progress.say(f"MLflow at {server.shown} is up to date.")
    new = dict.fromkeys(name for name, changed in outcomes if changed)
    old = dict.fromkeys(name for name, changed in outcomes if not changed and name not in new)
    return SyncResult(tuple(new), tuple(old), tuple(stale), registered)


def register(
    paths: Paths, params: Params, progress: Progress, method: str | None = None
) -> Registered:
    """Register the model of one method, or those of all, whatever their size.

    Args:
        paths: The project.
        params: Its parameters.
        progress: Where to report.
        method: The method; None: all.

    Raises:
        ParamsError: There is no such method.
        MissingArtifactError: The method is not trained, or was trained from something else.
        UserError: As `sync`.
    """
    chosen = [method] if method else list(params.methods)
    for name in chosen:
        params.method(name)
    records, _ = current_records(Pipeline(paths, params))
    models = [model for model in bundles(paths, records) if model.method in chosen]
    if missing := [name for name in chosen if name not in [model.method for model in models]]:
        raise MissingArtifactError(
            f"There is no model of {' and '.join(missing)} that belongs to what is on disk.",
            where=", ".join(str(paths.model(name)) for name in missing),
            next="dvc repro",
        )
    server, _, registered = _synchronise(paths, params, records, models, math.inf)
    progress.say(f"MLflow at {server.shown} has them.")
    return registered


def _synchronise(
    paths: Paths, params: Params, records: list[RunRecord], models: list[Bundle], limit: float
) -> tuple[Server, list[tuple[str, bool]], Registered]:
    """Publish what waits and `records`, and register `models` that are no larger than `limit`."""
    server = Server.configured(paths)
    if server is None:
        raise UserError(
            "Tracking is switched off.",
            where="the environment variable LORA_COMPARE_TRACKING",
            next="unset LORA_COMPARE_TRACKING",
        )
    spool = Spool(server.state)
    try:
        with connect(server, params.tracking.experiment, budget=math.inf) as store:
            diary = Diary(store, paths.root)
            # What waits is older than what lies on disk: it goes first, so that disk wins.
            outcomes = _publish_waiting(diary, spool) + diary.publish_all(records)
            spool.mark_back()
            _describe(store, server, paths, records)
            registered = _register(store, diary, server, models, paths, limit)
    except troubles() as error:
        raise UserError(
            "The tracking server does not take the runs.",
            where=server.shown,
            actual=first_line(error),
            kept="everything on disk, and what waits in .tracking/spool",
            next=f"{remedy(error) or RESTART}, then: lora-compare sync",
        ) from error
    return server, outcomes, registered
