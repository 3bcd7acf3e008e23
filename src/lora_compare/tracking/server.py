"""Which tracking server runs go to, and whether it answers."""

import os
from dataclasses import dataclass
from pathlib import Path

from lora_compare.addresses import names_a_host, without_credentials
from lora_compare.paths import Paths
from lora_compare.tracking.figures import segment

SQLITE = "sqlite:///"
DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")

PROBE_SECONDS = (2.0, 3.0)
"""How long a server may take to accept a connection, and then to say that it is well."""

PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
"""MLflow's settings where the user has made none: give up soon, be silent, phone nobody."""


@dataclass(frozen=True)
class Server:
    """Where runs are shown.

    Attributes:
        uri: MLflow's tracking URI.
        home: The project folder that holds the local store and what waits for a server; for an
            experiment that DVC runs in a temporary copy, the project and not the copy.
    """

    uri: str
    home: Path

    @classmethod
    def configured(cls, paths: Paths) -> "Server | None":
        """Return the configured server; None with `LORA_COMPARE_TRACKING=off`."""
        if os.environ.get("LORA_COMPARE_TRACKING", "").lower() in ("off", "0", "false", "no"):
            return None
        home = paths.project
        return cls(os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{home / 'mlflow.db'}", home)

    @property
    def database(self) -> Path | None:
        """The SQLite file, where the store is one."""
        if not self.uri.startswith(SQLITE):
            return None
        return Path(self.uri.removeprefix(SQLITE)).resolve()

    @property
    def is_remote(self) -> bool:
        """Whether the store is a server that answers over HTTP."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def lock(self) -> Path:
        """The file that only one writer on this machine holds."""
        if self.database is not None:
            return self.database.with_name(f"{self.database.name}.lock")
        return self.state / "lock"

    @property
    def state(self) -> Path:
        """The folder of what waits for a server."""
        return self.home / ".tracking"

    @property
    def shown(self) -> str:
        """The URI as it may be printed: without user and password."""
        return without_credentials(self.uri)

    def artifact_location(self, experiment: str) -> str | None:
        """Return where an experiment's files go; None leaves it to a remote server."""
        if not self.uri.startswith(DATABASES):
            return None
        folder = self.database.parent if self.database is not None else self.home
        return (folder / "mlartifacts" / segment(experiment)[:100]).as_uri()

    def probe(self) -> None:
        """Ask a remote server whether it is well.

        Raises:
            OSError: It refuses, does not answer in time, or answers with a 5xx status.
            ValueError: Its address cannot be read.
        """
        if not self.is_remote:
            return
        if not names_a_host(self.uri):
            raise ValueError("its address cannot be read; / in a user's password is %2F")
        import requests

        # MLflow's own variable for a private certificate; requests reads the usual ones itself.
        certificate = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
        insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
        with requests.get(
            f"{self.uri.rstrip('/')}/health",
            timeout=PROBE_SECONDS,
            verify=False if insecure else certificate or True,
            stream=True,
        ) as answer:
            if answer.status_code >= 500:
                raise ConnectionError(f"it answers with status {answer.status_code}")


def address_of_runs(server: str, experiment: str) -> str:
    """Return the page of an experiment's runs.

    MLflow 3 opens an experiment for agents, without any run, unless the address says otherwise.

    Args:
        server: The address of MLflow's server.
        experiment: Id of the experiment.
    """
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning"
    return f"{without_credentials(server).rstrip('/')}/{page}"


def set_patience() -> None:
    """Set what MLflow reads from the environment, where the user has not."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
