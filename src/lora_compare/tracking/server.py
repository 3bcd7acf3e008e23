"""Which tracking server runs go to, whether it answers, and what helps if it does not."""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from lora_compare.errors import names_a_host, without_credentials
from lora_compare.project.files import sha256_of
from lora_compare.project.paths import Paths
from lora_compare.tracking.figures import segment

RESTART = "start the server or correct MLFLOW_TRACKING_URI"
"""What may help where an error does not say more."""

SQLITE = "sqlite:///"
ARTIFACTS = "mlartifacts"
"""The folder beside a SQLite store that holds the files of its runs and models."""

DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")

PROBE_SECONDS = (2.0, 3.0)
"""How long a server may take to accept a connection, and then to say that it is well."""

BUSY_SECONDS = 2.0
"""How long to wait for another writer of a SQLite store."""

PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE": "60",
    "PGCONNECT_TIMEOUT": "2",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
"""Settings of MLflow and of PostgreSQL's driver where the user has made none: give up soon, open
a connection anew that lay idle between two epochs, be silent, phone nobody."""

UNHURRIED = {**PATIENCE, "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
"""The same for `sync`, for which nothing waits: a server that hands a large file on to a bucket
answers late."""

REMEDIES = {
    401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    403: "ask for the right to write to this experiment",
    413: "let the server's proxy take larger files (nginx: client_max_body_size)",
}
"""What helps where an HTTP status says what is wrong."""

DRIVERS = {"psycopg2": 'pip install -e ".[postgres]"'}
"""What installs the Python module that a database's address needs."""


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
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{home / 'mlflow.db'}"
        return cls(_with_driver(uri), home)

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
    def mark(self) -> str:
        """What tells this store from others on a letter; a password has no part in it."""
        place = self.shown if self.database is None else self.relative(self.database)
        return sha256_of(place)[:12]

    def relative(self, path: Path) -> str:
        """Return a path as it stays right when the project is moved."""
        return str(path.relative_to(self.home) if path.is_relative_to(self.home) else path)

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
        return (folder / ARTIFACTS / segment(experiment)[:100]).as_uri()

    def moved_from(self) -> list[Path]:
        """Return the folders in which a SQLite store believes to be that was moved or copied here.

        MLflow keeps the places of files as absolute paths. An experiment may have its files
        elsewhere on purpose: in a folder that is there, beside no other store, and not here too.
        """
        store, rows = self.database, []
        question = "SELECT artifact_location FROM experiments"
        # What is no store, the connection that is then needed tells.
        with suppress(sqlite3.Error):
            if store is not None and store.is_file():
                with closing(_sqlite(store, "ro")) as connection:
                    rows = connection.execute(question).fetchall()
        places = (place for (location,) in rows if (place := _folder(location)))
        return sorted({p.parent.parent for p in places if store and _is_foreign(p, store)})

    @property
    def move(self) -> str:
        """What to tell, before it is opened, of a store that was moved or copied; or nothing."""
        folders = " and ".join(map(str, self.moved_from()))
        if not folders or self.database is None:
            return ""
        return (
            f"MLflow's store was moved or copied from {folders}; its runs and models have their "
            f"files in {self.database.parent / ARTIFACTS} now, and those there stay as they are"
        )

    def probe(self) -> None:
        """Ask a remote server whether it is well, a database whether it may be written to.

        Raises:
            sqlite3.Error: A SQLite store is damaged, locked by another process, or read-only.
            OSError: A server refuses, does not answer in time, or answers with a 5xx status.
            ValueError: The address cannot be read.
            ImportError: The database's driver is not installed.
            SQLAlchemyError: The database takes no connection.
        """
        if self.is_remote:
            self._probe_http()
        elif self.database is not None:
            self._probe_sqlite(self.database)
        elif self.uri.startswith(DATABASES):
            self._probe_database()

    def _probe_http(self) -> None:
        if not names_a_host(self.uri):
            raise ValueError("its address cannot be read; / in a user's password is %2F")
        import requests

        # MLflow's own variables for private certificates; requests reads the usual ones itself.
        certificate = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
        insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
        try:
            with requests.get(
                f"{self.uri.rstrip('/')}/health",
                timeout=PROBE_SECONDS,
                verify=False if insecure else certificate or True,
                cert=os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
                stream=True,
            ) as answer:
                status = answer.status_code
        except requests.RequestException as error:
            raise _cause(error) from error
        if status >= 500:
            raise ConnectionError(f"it answers with status {status}")

    def _probe_sqlite(self, database: Path) -> None:
        """Begin to write and write nothing: MLflow would go on trying for minutes."""
        if database.is_file():
            with closing(_sqlite(database, "rw")) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.rollback()

    def _probe_database(self) -> None:
        """Connect once: MLflow would go on trying for a minute and a half."""
        if self.uri.partition("?")[0].count("@") > 1:
            # What follows the first @ would be quoted as the host that is not found.
            raise ValueError("its address cannot be read; @ in a user's password is %40")
        from sqlalchemy import NullPool, create_engine

        with create_engine(self.uri, poolclass=NullPool).connect():
            pass


def _sqlite(database: Path, mode: str) -> sqlite3.Connection:
    address = f"file:{quote(str(database))}?mode={mode}"
    return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)


def _folder(location: str | None) -> Path | None:
    """Return the folder of an experiment's files, where it is one in `ARTIFACTS`."""
    parts = urlsplit(location or "")
    folder = Path(unquote(parts.path))
    return folder if parts.scheme == "file" and folder.parent.name == ARTIFACTS else None


def _is_foreign(folder: Path, store: Path) -> bool:
    """Return whether an experiment's folder is that of the store before it was moved or copied."""
    here = store.parent / ARTIFACTS
    if folder.parent == here:
        return False
    other_store = folder.parent.with_name(store.name)
    return not folder.is_dir() or other_store.exists() or (here / folder.name).is_dir()


def _with_driver(uri: str) -> str:
    """Return an address as MLflow's users write it with the driver that is there.

    Where none is named, SQLAlchemy 2.1 takes psycopg; MLflow and the extra `postgres` psycopg2.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "postgresql" and find_spec("psycopg") is None:
        return f"postgresql+psycopg2://{rest}"
    return uri


def _cause(error: OSError) -> OSError:
    """Return what the system said, which HTTP libraries wrap in errors of their own."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError):
            error = inner
        inner = inner.__context__
    return error


def is_busy(error: Exception) -> bool:
    """Return whether a store on this machine is well, and held by a process that lives."""
    from filelock import Timeout

    return isinstance(error, Timeout) or "database is locked" in str(error)


def remedy(error: Exception) -> str:
    """Return what to do about `error` beside waiting for the server; empty where it is unknown."""
    from ssl import SSLCertVerificationError

    if is_busy(error):
        return "wait until the process that writes to the store has ended"
    if isinstance(error, SSLCertVerificationError):
        return "name its authority's certificate in MLFLOW_TRACKING_SERVER_CERT_PATH"
    if isinstance(error, ModuleNotFoundError):
        module = error.name or "of this database"
        return DRIVERS.get(module, f"install the Python module {module}")
    answer = getattr(error, "response", None)
    if answer is not None:
        return REMEDIES.get(answer.status_code, "")
    status = getattr(error, "get_http_status_code", lambda: 0)
    return REMEDIES.get(status(), "")


def first_line(error: Exception) -> str:
    """Return what an error says, in one line without passwords."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    # MLflow's message goes on with the innards of the HTTP library, or a whole page of HTML.
    for rest in (" failed with exception ", ". Response body: "):
        line = line.partition(rest)[0]
    return without_credentials(line)[:200]


def set_patience(settings: Mapping[str, str] = PATIENCE) -> None:
    """Set what MLflow reads from the environment, where the user has not."""
    for name, value in settings.items():
        os.environ.setdefault(name, value)
