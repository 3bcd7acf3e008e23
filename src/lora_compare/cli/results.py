"""What came out: `summary`, `report`, `ui` and `sync`."""

import os
import socket
import sys
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_compare.cli.terminal import Output, command, project

if TYPE_CHECKING:
    from lora_compare.project.paths import Paths


@command("summary")
@click.option(
    "--write",
    "target",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Put it into this markdown file instead, between its marks <!-- results -->.",
)
def summary(output: Output, target: Path | None) -> None:
    """Print the comparison: accuracy, price and verdict, and what to type next.

    With --json: the content of metrics/comparison.json, and whether it is current.

    \b
    lora-compare summary
    lora-compare summary --write README.md
    lora-compare summary --json | jq '.comparison.methods[] | {method, test_accuracy}'
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.comparison.verdict import read_comparison
    from lora_compare.project.paths import Paths
    from lora_compare.report.markdown import write_results
    from lora_compare.report.terminal import print_summary

    paths = Paths.here()
    doubt = _doubt(paths)
    comparison = read_comparison(paths.metrics("comparison"))
    written = None if target is None else str(target)
    if target is not None:
        write_results(target, comparison)
    elif not output.as_json:
        print_summary(paths, output.console, with_next_steps=not output.quiet)
    state = {"current": not doubt, "note": doubt, "written": written}
    output.record({**state, "comparison": comparison})
    if doubt:
        output.say(f"\n{doubt}")


@command("report")
def report(output: Output) -> None:
    """Write the report again from files alone: page, markdown, plots and the comparison.

    It is what the stage compare does, without DVC: nothing is trained, and the same results give
    the same bytes, so that DVC sees no change. Use it after `dvc pull`.

    \b
    dvc pull && lora-compare report
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.comparison.sentences import headline
    from lora_compare.errors import MissingArtifactError
    from lora_compare.project.lock import only_writer
    from lora_compare.report.page import write_comparison

    paths, params = project()
    with only_writer(paths.writer("compare"), "compare"):
        try:
            comparison = write_comparison(paths, params, output.progress)
        except MissingArtifactError as error:
            error.next = "dvc pull, where a remote has the results\nor make them here: dvc repro"
            raise
    doubt, page = _doubt(paths), str(paths.report("html"))
    output.record({"report": page, "headline": headline(comparison), "note": doubt})
    for line in filter(None, (headline(comparison), f"the report is {page}", doubt)):
        output.say(line)


def _doubt(paths: "Paths") -> str:
    """Return why the comparison on disk may not be that of params.yaml; empty if it is."""
    from lora_compare.errors import ParamsError
    from lora_compare.params import load_params
    from lora_compare.project.lineage import Pipeline

    try:
        params = load_params(paths.params)
    except ParamsError as error:
        # A mistake in the next experiment's settings does not hide what the last one found.
        if paths.params.is_file() and paths.metrics("comparison").is_file():
            return f"This may be out of date: {error.what} To see what: lora-compare check"
        raise
    if Pipeline(paths, params).is_current("compare", without_files=True):
        return ""
    return "This is out of date, files or settings have changed since: dvc repro"


@command("sync")
def sync(output: Output) -> None:
    """Show everything on disk in MLflow, whatever of it is not there yet.

    Use it after a tracking server was away, after `dvc pull`, or after deleting mlflow.db; a
    second call changes nothing. The server is $MLFLOW_TRACKING_URI, or mlflow.db here.

    \b
    lora-compare sync
    MLFLOW_TRACKING_URI=http://127.0.0.1:5000 lora-compare sync
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.serving import publication
    from lora_compare.tracking.server import Server

    paths, params = project()
    with output.working("compare the files with MLflow's runs"):
        result = publication.sync(paths, params)
    server = Server.configured(paths)
    assert server is not None, "sync refuses to work without one"
    output.record(
        {
            "server": server.shown,
            "published": list(result.published),
            "already_there": list(result.already_there),
            "stale": list(result.stale),
            "models": list(result.models.lines),
            "moved": result.moved,
        }
    )
    if result.moved:
        output.say(result.moved)
    output.say(f"MLflow at {server.shown} is up to date.")
    output.say(f"published {len(result.published)}, already there {len(result.already_there)}")
    if result.stale:
        output.say(f"left out, out of date (dvc repro): {', '.join(result.stale)}")
    for line in result.models.lines:
        output.say(line)


@command("ui")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
def ui(output: Output, port: int) -> None:
    """Start MLflow on http://127.0.0.1:PORT and print the address of this project's runs.

    With a tracking server in $MLFLOW_TRACKING_URI, print their address there and start nothing.
    With --json the address is one line, and what MLflow prints goes to standard error.

    \b
    lora-compare ui
    lora-compare ui --port 5001
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.errors import ParamsError
    from lora_compare.tracking.server import Server, set_patience
    from lora_compare.tracking.view import page_of_runs

    paths, params = project()
    server = Server.configured(paths)
    if server is None:
        raise ParamsError("Tracking is off.", where="LORA_COMPARE_TRACKING", next="unset it")
    if not server.is_remote:
        _require_free(port)
    if told := server.move:
        output.say(told)
    with output.working("open the store"):
        address = page_of_runs(server, params.tracking.experiment, port)
    if server.is_remote:
        output.record({"address": address, "started": False})
        output.say(f"The runs are at\n  {address}")
        return
    set_patience()
    output.record({"address": address, "started": True})
    output.say("MLflow is starting (stop it with Ctrl-C); the runs are at")
    output.say(f"  {address}")
    output.say("There: expand the pipeline run with +, tick two methods, press Compare.")
    if output.as_json:
        os.dup2(2, 1)
    # Any user of this machine can list arguments, and a database's address may hold a password.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = server.uri
    arguments = ["mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execvp(sys.executable, [sys.executable, "-m", *arguments])  # noqa: S606


def _require_free(port: int) -> None:
    """Raise `BusyError` if nothing more can listen at a port of this machine."""
    from lora_compare.errors import BusyError

    if trouble := _trouble_at(port):
        others = chain(range(max(port + 1, 1024), 65536), range(1024, 65536))
        free = next(other for other in others if not _trouble_at(other))
        raise BusyError(
            "MLflow cannot listen at this port.",
            where=f"127.0.0.1:{port}",
            actual=_holder(port) or trouble,
            kept="nothing was started",
            next=f"lora-compare ui --port {free}",
        )


def _trouble_at(port: int) -> str:
    """Return why nothing more can listen at a port; empty if it is free."""
    with socket.socket() as listener:
        # As servers do: a port that was closed a moment ago is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def _holder(port: int) -> str:
    """Return which process listens at a port, as far as this user may know."""
    import psutil

    with suppress(psutil.Error):
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        pids = sorted({c.pid for c in listening if c.laddr and c.laddr.port == port and c.pid})
        for pid in pids[:1]:
            return f"process {pid} listens there: {' '.join(psutil.Process(pid).cmdline())[:100]}"
    return ""
