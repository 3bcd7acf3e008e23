"""Whether a tracking store answers and may be written to, asked without making a run."""

from dataclasses import dataclass
from importlib.metadata import version

from lora_compare.errors import BusyError, UserError, without_credentials
from lora_compare.tracking.server import PROBE_SECONDS, Server, is_busy, remedy, set_patience
from lora_compare.tracking.store import quietly, troubles

TAG = "lora_compare.writable"
"""The tag of an experiment that shows, by being set, that the store may be written to."""


@dataclass(frozen=True)
class Health:
    """What a store says of itself.

    Attributes:
        exists: Whether there is a store; the first run makes a local one.
        version: MLflow's version on a remote server, where it tells.
        experiment: Id of the experiment; None: the first run makes it.
    """

    exists: bool
    version: str | None = None
    experiment: str | None = None


def own_version() -> str:
    """Return the version of the MLflow that is installed here."""
    return version("mlflow")


def examine(server: Server, experiment: str) -> Health:
    """Return what the store says of itself.

    An experiment that is there gets the tag `TAG`, on a SQLite store nothing is written at all.

    Args:
        server: Where runs go.
        experiment: Name of the experiment.

    Raises:
        BusyError: Another process writes to the store.
        UserError: The store does not answer, cannot be read, or may not be written to.
    """
    set_patience()
    try:
        with quietly():
            server.probe()
            if server.database is not None and not server.database.is_file():
                return Health(exists=False)
            found = _experiment(server, experiment)
            return Health(True, _version(server) if server.is_remote else None, found)
    except troubles() as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        actual = without_credentials(said.partition(" failed with exception ")[0])[:200]
        kind = BusyError if is_busy(error) else UserError
        raise kind(
            "The tracking store does not take runs.",
            where=server.shown,
            actual=actual,
            next=remedy(error) if is_busy(error) else _remedy(server, actual),
        ) from error


def _experiment(server: Server, name: str) -> str | None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return None
    if server.database is None:
        client.set_experiment_tag(experiment.experiment_id, TAG, "yes")
    return str(experiment.experiment_id)


def _version(server: Server) -> str | None:
    """Return the version that a remote server tells; None where it tells none."""
    import requests

    with requests.get(f"{server.uri.rstrip('/')}/version", timeout=PROBE_SECONDS) as answer:
        text = answer.text.strip()
        return text if answer.ok and text[:1].isdigit() and len(text) < 40 else None


def _remedy(server: Server, said: str) -> str:
    if "out-of-date database schema" in said:
        return f"back up the store, then: mlflow db upgrade {server.shown}"
    if server.database is not None:
        return f"ls -l {server.database}; a store that is damaged: move it away, lora-compare sync"
    return (
        "start the server, or correct or unset MLFLOW_TRACKING_URI; what waits, lora-compare sync "
        "shows then"
    )
