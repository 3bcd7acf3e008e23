"""What `lora-compare sync` and `register` show in MLflow, and what follows a comparison."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lora_compare.errors import MissingArtifactError, UserError
from lora_compare.params import Params
from lora_compare.project.files import is_file, sha256
from lora_compare.project.lineage import Pipeline, origin
from lora_compare.project.paths import TFIDF, Paths
from lora_compare.serving.bundles import WEIGHTS, Bundle, bundles
from lora_compare.serving.packaging import requirements
from lora_compare.serving.registry import Registered, register_all
from lora_compare.tracking.delivery import AfterComparison, Outcome, deliver_waiting
from lora_compare.tracking.diary import Diary
from lora_compare.tracking.records import current_records
from lora_compare.tracking.runs import UPLOAD_LIMIT, RunRecord
from lora_compare.tracking.server import (
    RESTART,
    UNHURRIED,
    Server,
    first_line,
    remedy,
    set_patience,
)
from lora_compare.tracking.store import Store, connect, quietly, troubles
from lora_compare.tracking.view import describe


@dataclass(frozen=True)
class SyncResult:
    """What `sync` did.

    Attributes:
        published: Names of the runs that were made or completed.
        already_there: Names of the runs that the server had.
        stale: Stages whose outputs are not made from what lies on disk now; left out.
        models: What became of the methods' models.
        moved: What is told of a store that was moved or copied; empty where it was not.
    """

    published: tuple[str, ...]
    already_there: tuple[str, ...]
    stale: tuple[str, ...]
    models: Registered = field(default_factory=Registered)
    moved: str = ""


def sync(paths: Paths, params: Params) -> SyncResult:
    """Show everything that waits and everything on disk in the configured tracking server.

    Running it again changes nothing. Models are registered once the comparison is complete.

    Args:
        paths: The project.
        params: Its parameters.

    Raises:
        UserError: Tracking is switched off, or the server does not take the runs; what waits
            goes on waiting.
    """
    records, stale = current_records(Pipeline(paths, params))
    complete = any(record.stage == "compare" for record in records)
    models = bundles(paths, records) if complete else []
    server = Server.configured(paths)
    told = server.move if server else ""
    outcomes, registered = _publish(paths, params, records, models, UPLOAD_LIMIT)
    new = dict.fromkeys(name for name, changed in outcomes if changed)
    old = dict.fromkeys(name for name, changed in outcomes if not changed and name not in new)
    return SyncResult(tuple(new), tuple(old), tuple(stale), registered, told)


def register(
    paths: Paths, params: Params, method: str | None = None, seed: int | None = None
) -> Registered:
    """Register the model of one method, or those of all, whatever their size.

    Args:
        paths: The project.
        params: Its parameters.
        method: The method, or `TFIDF`; None: all.
        seed: The method's training; None: the chosen one.

    Raises:
        ParamsError: There is no such method.
        MissingArtifactError: The method is not trained, or not with this seed, or was trained from
            something else.
        UserError: As `sync`.
    """
    wanted = [method] if method else list(params.methods)
    for name in wanted:
        if name != TFIDF:
            params.method(name)
    records, _ = current_records(Pipeline(paths, params))
    seeds = {method: seed} if method is not None and seed is not None else {}
    models = [m for m in bundles(paths, records, seeds) if method in (None, m.method)]
    if missing := [name for name in wanted if name not in [model.method for model in models]]:
        raise MissingArtifactError(
            f"There is no model of {' and '.join(missing)} that belongs to what is on disk.",
            where=", ".join(str(paths.model(name)) for name in missing),
            next="dvc repro",
        )
    return _publish(paths, params, records, models, math.inf)[1]


def _publish(
    paths: Paths, params: Params, records: list[RunRecord], models: list[Bundle], limit: float
) -> tuple[list[Outcome], Registered]:
    """Publish what waits and `records`, and register `models` that are no larger than `limit`."""
    server = Server.configured(paths)
    if server is None:
        raise UserError(
            "Tracking is switched off.",
            where="the environment variable LORA_COMPARE_TRACKING",
            next="unset LORA_COMPARE_TRACKING",
        )
    set_patience(UNHURRIED)
    try:
        # What waits is older than what lies on disk: it goes first, so that disk wins.
        waited = deliver_waiting(server)
        with connect(server, params.tracking.experiment, thorough=True) as store:
            diary = Diary(store, origin(paths.root))
            outcomes = waited + diary.publish_all(records)
            is_project = server.home == paths.root
            if is_project:
                describe(store, records)
            registered = register_all(store, diary, models, limit, crown=is_project)
    except troubles() as error:
        raise UserError(
            "The tracking server does not take the runs.",
            where=server.shown,
            actual=first_line(error),
            kept="everything on disk, and what waits in .tracking/mailbox",
            next=f"{remedy(error) or RESTART}, then: lora-compare sync",
        ) from error
    return outcomes, registered


def registering(server: Server) -> AfterComparison:
    """Return what registers the models of a comparison that has been shown.

    Models of a queued experiment, in DVC's temporary copy, have no champion.

    Args:
        server: The store.
    """

    def register_models(
        store: Store, diary: Diary, folder: Path, records: Sequence[RunRecord]
    ) -> list[str]:
        paths = Paths(folder)
        if not _is_on_disk(paths, records):
            return []
        try:
            crown = folder == server.home
            models = bundles(paths, records)
            return register_all(store, diary, models, UPLOAD_LIMIT, crown).lines
        except Exception as error:
            # Whatever it is: the runs are there, and no stage depends on its models being there.
            return [
                f"warning: MLflow at {server.shown} does not take the models "
                f"({first_line(error)}). They are on disk; to register them: lora-compare sync"
            ]

    return register_models


def _is_on_disk(paths: Paths, records: Sequence[RunRecord]) -> bool:
    """Return whether a folder holds the comparison and the models that `records` are of.

    A letter may be delivered long after its stage.
    """
    for record in records:
        if record.stage == "compare":
            known = {file.target: file.sha256 for file in record.artifacts}
            comparison = paths.metrics("comparison")
            if not is_file(comparison) or known.get(comparison.name) != sha256(comparison):
                return False
        if folder := record.tags.get("lora_compare.model"):
            weights = paths.root / folder / WEIGHTS
            wanted = record.tags.get("lora_compare.model.sha256")
            if not is_file(weights) or wanted != sha256(weights):
                return False
    return True


def prepare_models() -> None:
    """Do what the first model takes a second for: MLflow's models, and what is installed here."""
    with quietly():
        from mlflow import pyfunc  # noqa: F401
        from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

        warn_dependency_requirement_mismatches(requirements())
