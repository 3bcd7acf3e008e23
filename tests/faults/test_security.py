"""What SECURITY.md promises, as far as a test can prove it."""

import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from lora_compare.errors import ParamsError, UserError, without_credentials
from lora_compare.params.reading import parse_params, read_yaml
from lora_compare.serving.publication import sync
from lora_compare.tracking.mailbox import Mailbox
from small_project import ROOT, environment, small_params, write_messages
from tracked_project import wait_until, write_project
from web import serve, status, whole

UNPICKLERS = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads"),
    *("shelve.open", "joblib.load", "torch.load", "torch.jit.load", "torch.hub.load"),
    *("numpy.load", "pandas.read_pickle", "yaml.unsafe_load", "yaml.full_load"),
}
PROGRAMS = {"eval", "exec", "os.system", "os.popen"}
UNPACKERS = {"extract", "extractall", "unpack_archive"}
"""Methods that write an archive's members to the disk."""
DANGEROUS_KEYWORDS = {"allow_pickle", "shell", "trust_remote_code"}
CLUSTER = "src/lora_compare/compute/engines/"
"""Where calls and answers travel between this process and workers of the user's own cluster."""


def dangers(code: str) -> list[str]:
    """Return the calls in Python `code` that can run what a file holds, or unpack it."""
    tree = ast.parse(code)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        first, *rest = ast.unparse(call.func).split(".")
        name = ".".join([names.get(first, first), *rest])
        keywords = {k.arg for k in call.keywords if ast.unparse(k.value) != "False"}
        if name in UNPICKLERS | PROGRAMS or (rest[-1:] and rest[-1] in UNPACKERS):
            found.append(name)
        found += [f"{name}({keyword}=...)" for keyword in sorted(keywords & DANGEROUS_KEYWORDS)]
    return found


def test_no_module_can_unpickle_unpack_or_run_what_a_file_holds() -> None:
    modules = [*(ROOT / "src").rglob("*.py"), *(ROOT / "stages").glob("*.py")]
    assert len(modules) > 60
    found = {str(p.relative_to(ROOT)): dangers(p.read_text(encoding="utf-8")) for p in modules}
    dangerous = {path: calls for path, calls in found.items() if calls}
    assert {path for path in dangerous if not path.startswith(CLUSTER)} == set()
    assert {call for calls in dangerous.values() for call in calls} == {"pickle.loads"}


@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("import torch\ntorch.load(f)", "torch.load"),
        ("import torch as t\nt.load(f, weights_only=True)", "torch.load"),
        ("from pickle import loads as read\nread(b)", "pickle.loads"),
        ("import numpy as np\nnp.load(f)", "numpy.load"),
        ("import zipfile\nzipfile.ZipFile(f).extractall()", "zipfile.ZipFile(f).extractall"),
        ("eval(text)", "eval"),
        ("m.load(f, trust_remote_code=yes)", "m.load(trust_remote_code=...)"),
        ("import subprocess\nsubprocess.run(c, shell=True)", "subprocess.run(shell=...)"),
    ],
)
def test_the_search_for_dangerous_calls_finds_them(code: str, call: str) -> None:
    assert dangers(code) == [call]


def test_yaml_makes_nothing_but_plain_values(tmp_path: Path) -> None:
    made = tmp_path / "made"
    text = f"data: !!python/object/apply:os.mkdir ['{made}']\n"
    with pytest.raises(ParamsError, match="not valid YAML"):
        parse_params(text)
    lock = tmp_path / "dvc.lock"
    lock.write_text(text, encoding="utf-8")
    with pytest.raises(Exception, match="could not determine a constructor"):
        read_yaml(lock)
    assert not made.exists()


def test_every_dependency_is_locked_to_one_version() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        pinned = [line for line in lines if line and not line.startswith("#")]
        assert len(pinned) > 100
        assert [line for line in pinned if not re.match(r"[\w.-]+==[\w.+!-]+( ;|$)", line)] == []


ADDRESSES = {
    "http://user:secret@host/a.csv": "http://host/a.csv",
    "http://user@host/a.csv": "http://host/a.csv",
    "https://user:se@cret@host:8080/a@1/b.csv": "https://host:8080/a@1/b.csv",
    "https://host:8080/a@1/b.csv": "https://host:8080/a@1/b.csv",
    "http://[::1]:8080/a@1.csv": "http://[::1]:8080/a@1.csv",
    "postgresql+psycopg://user:sec/ret?#@host/runs": "postgresql+psycopg://host/runs",
    "sqlite:////home/me@work/mlflow.db": "sqlite:////home/me@work/mlflow.db",
    "from http://a:secret@b/c to 'http://d:secret@e/f'": "from http://b/c to 'http://e/f'",
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_user_and_password_leave_an_address_and_nothing_else_does(text: str) -> None:
    assert without_credentials(text) == ADDRESSES[text]


PASSWORD = st.text(st.characters(exclude_characters="@/?#", exclude_categories=["Z", "C"]))


@given(PASSWORD, st.sampled_from(["http", "https", "mysql+pymysql"]))
def test_whatever_the_password(password: str, scheme: str) -> None:
    address = f"{scheme}://user:{password}@host/a@1.csv"
    assert without_credentials(f"no answer from {address}") == (
        f"no answer from {scheme}://host/a@1.csv"
    )


LOGIN = "user:s3cret"


@pytest.fixture
def private(server: HTTPServer, tmp_path: Path) -> str:
    """The address of a server with messages.csv, user and password in it."""
    write_messages(tmp_path / "served.csv")
    content = (tmp_path / "served.csv").read_bytes()

    def answer(request: Request) -> Response:
        login = request.authorization
        known = login is not None and f"{login.username}:{login.password}" == LOGIN
        return whole(content) if known else status(401)

    serve(server, "/messages.csv", answer)
    return f"http://{LOGIN}@{server.host}:{server.port}"


def download(project: Path, source: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the stage `download` with that source in a new project."""
    project.mkdir()
    text = small_params(source=f'"{source}"')
    (project / "params.yaml").write_text(text, encoding="utf-8")
    shutil.copyfile(ROOT / "dvc.yaml", project / "dvc.yaml")
    return subprocess.run(
        [sys.executable, str(ROOT / "stages" / "download.py")],
        cwd=project,
        env=environment(PYTHONPATH=str(ROOT / "src"), **variables),
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_password_is_used_and_never_written_down(private: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    # Nothing listens on port 9: what MLflow would be sent waits in a file, to be looked at.
    tracking = f"http://{LOGIN}@127.0.0.1:9"
    done = download(project, f"{private}/messages.csv", MLFLOW_TRACKING_URI=tracking)
    assert done.returncode == 0, done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    mailbox = Mailbox(project / ".tracking")
    (letter,) = mailbox.letters()
    wait_until(lambda: letter.is_returned)
    files = [path for path in project.rglob("*") if path.is_file() and path.name != "params.yaml"]
    assert [path for path in files if b"s3cret" in path.read_bytes()] == []
    shown = private.replace(f"{LOGIN}@", "") + "/messages.csv"
    assert [record.params["data.source"] for record in letter.records()] == [shown, shown]
    provenance = json.loads((project / "data" / "raw" / "provenance.json").read_text())
    assert provenance["url"] == shown


def test_a_password_can_stay_out_of_the_parameters(private: str, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    user, password = LOGIN.split(":")
    netrc.write_text(f"machine 127.0.0.1 login {user} password {password}\n")
    netrc.chmod(0o600)
    source = private.replace(f"{LOGIN}@", "") + "/messages.csv"
    variables = {"LORA_COMPARE_TRACKING": "off", "NETRC": str(netrc)}
    done = download(tmp_path / "project", source, **variables)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "address",
    [
        f"http://{LOGIN}@127.0.0.1:99999/a.csv",
        f"http://{LOGIN}@/a.csv",
        f"http://{LOGIN}@[::1/a.csv",
        "http://user:s3cret/5@127.0.0.1/a.csv",
        f"ftp://{LOGIN}@127.0.0.1/a.csv",
        f"http://{LOGIN}@127.0.0.1/a.exe",
    ],
)
def test_an_address_that_is_refused_shows_no_password(address: str, tmp_path: Path) -> None:
    done = download(tmp_path / "project", address, LORA_COMPARE_TRACKING="off")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "address",
    [
        f"http://{LOGIN}@127.0.0.1:99999",
        "http://user:s3cret/5@127.0.0.1",
        f"postgresql://{LOGIN}@127.0.0.1:9/runs",
        f"nonsense://{LOGIN}@127.0.0.1",
    ],
)
def test_a_tracking_server_that_cannot_be_used_is_named_without_password(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, params = write_project(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(UserError, match="does not take the runs") as error:
        sync(paths, params)
    assert "127.0.0.1" in str(error.value)
    assert "s3cret" not in str(error.value)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listening(process: psutil.Process) -> set[tuple[str, int]]:
    """Return the addresses at which a process and its children listen."""
    found = set()
    for member in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # a worker that has just ended listens no more
            found |= {
                tuple(connection.laddr)
                for connection in member.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
    return found


@pytest.mark.slow
def test_the_user_interface_can_be_reached_from_this_machine_alone(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(small_params(), encoding="utf-8")
    port, end = free_port(), time.monotonic() + 120
    with subprocess.Popen(
        [sys.executable, "-c", "from lora_compare.cli import main; main()", "ui", f"--port={port}"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT / "src")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        process = psutil.Process(server.pid)
        try:
            while not (found := listening(process)):
                assert server.poll() is None
                assert time.monotonic() < end
                time.sleep(0.2)
            arguments = [child.cmdline() for child in [process, *process.children(recursive=True)]]
        finally:
            for member in [*process.children(recursive=True), process]:
                member.terminate()
    assert found == {("127.0.0.1", port)}
    # Every user of a machine sees them, and a database's address may hold a password.
    assert not [words for words in arguments if "sqlite" in " ".join(words)]


def test_an_audit_without_advisories_is_no_clean_audit() -> None:
    nowhere = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        ["make", "--silent", "--assume-old=.venv/.dev", "audit"],
        cwd=ROOT,
        env=environment(
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", UV_OFFLINE="1", **nowhere
        ),
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "No known vulnerabilities found" not in done.stdout + done.stderr
    assert "not known to be safe" in done.stderr
