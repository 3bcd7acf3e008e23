"""PostgreSQL on loopback, for this test run alone."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

# Of this run alone, with what an address must escape: tests look for it in every file.
USER, PASSWORD = "user", f"p@ss:{secrets.token_hex(4)}/%"
MISSING = "PostgreSQL's server is not installed; on Debian and Ubuntu: apt install postgresql"


def programs() -> Path:
    """Return the folder of PostgreSQL's server; the test is skipped where there is none."""
    found = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    if found is None and not debian:
        pytest.skip(MISSING)
    return Path(found).parent if found else debian[-1].parent


def _version(initdb: Path) -> float:
    return float(initdb.parts[-3])


class Database:
    """A PostgreSQL server that keeps all in a folder; it stops and starts as tests wish."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._bin = folder, programs()
        self._process: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root; Debian's package comes with a user for it.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def make(self) -> None:
        """Make the folder's content."""
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        command = [self._bin / "initdb", "--pgdata", self._folder / "data", "--username", USER]
        command += ["--pwfile", password, "--auth", "scram-sha-256", "--encoding", "UTF8"]
        subprocess.run(
            [*command, "--locale", "C", "--no-sync"],
            user=self._user,
            cwd=self._folder,
            check=True,
            capture_output=True,
        )

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        from psycopg2 import OperationalError

        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._folder / "data", "-p", str(self.port)]
                + [part for setting in settings for part in ("-c", setting)],
                user=self._user,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.run("SELECT 1")
                return
            except OperationalError:
                log_text = (self._folder / "log").read_text()
                assert self._process.poll() is None, log_text
                assert time.monotonic() < deadline, log_text
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server; its clients lose their connections."""
        self._signal(signal.SIGQUIT)
        if self._process is not None:
            self._process.wait(30)

    def freeze(self) -> None:
        """Let the server and its sessions keep their connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        postmaster = psutil.Process(self._process.pid)
        # It hands on what ends it; what stops a process stops that one alone.
        sessions = [] if number == signal.SIGQUIT else postmaster.children()
        for process in (postmaster, *sessions):
            with suppress(psutil.NoSuchProcess):  # sessions end by themselves
                process.send_signal(number)

    def run(self, statement: str, name: str = "postgres") -> list[tuple[object, ...]]:
        """Return the rows of a statement, run outside a transaction."""
        import psycopg2

        login = {"user": USER, "password": PASSWORD, "dbname": name}
        with closing(psycopg2.connect(host="127.0.0.1", port=self.port, **login)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def create(self, name: str, template: str = "template0") -> str:
        """Make a database, equal to another one, and return its address for MLflow."""
        self.run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.uri(name)

    def disconnect(self, name: str) -> None:
        """Close the connections of a database."""
        found = f"FROM pg_stat_activity WHERE datname = '{name}'"
        self.run(f"SELECT pg_terminate_backend(pid, 10000) {found}")

    def uri(self, name: str) -> str:
        """Return the address of a database, with the password."""
        login = f"{USER}:{quote(PASSWORD, safe='')}"
        return f"postgresql+psycopg2://{login}@127.0.0.1:{self.port}/{name}"


@contextmanager
def database() -> Iterator[Database]:
    """Yield a PostgreSQL server that runs."""
    # Not in pytest's folder, which another user may not enter.
    with tempfile.TemporaryDirectory(prefix="lora-compare-postgres-") as folder:
        server = Database(Path(folder))
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.thaw()
            server.stop()
