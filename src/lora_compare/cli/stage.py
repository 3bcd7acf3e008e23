"""What every command shares: the call, its errors as messages, its progress, its tracking."""

import atexit
import functools
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import click

from lora_compare.errors import UserError
from lora_compare.params import load_params
from lora_compare.project.files import require_writable, storage_faults
from lora_compare.project.interruption import Interrupted, interruptible
from lora_compare.project.lock import end_with_dvc, only_writer
from lora_compare.project.paths import Paths
from lora_compare.project.progress import Progress

EXIT_USER_ERROR = 2

COLLECT_AFTER = 20_000
"""Objects made between two searches for garbage. Imports make many and leave no garbage:
Python's own 700 to 2,000 cost a fifth of their time."""

P = ParamSpec("P")
R = TypeVar("R")


def report_user_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Return `command` that prints a user's mistake and exits with 2, without a traceback.

    A full disk and a folder that may not be written to count as mistakes, wherever they are met.
    `LORA_COMPARE_DEBUG=1` lets the traceback through.
    """

    @functools.wraps(command)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with storage_faults():
                return command(*args, **kwargs)
        except UserError as error:
            if os.environ.get("LORA_COMPARE_DEBUG") == "1":
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(EXIT_USER_ERROR)

    return reporting


@contextmanager
def ending_well(name: str) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block with the exit code that shells expect of them.

    Args:
        name: What runs in the block, for the message.
    """
    with interruptible():
        try:
            yield
        except Interrupted as end:
            kept = str(end) or "nothing of it is kept; dvc repro runs it again"
            click.echo(f"{name}: ended by {signal.Signals(end.signum).name}; {kept}", err=True)
            sys.exit(128 + end.signum)


def run_own_code(paths: Paths) -> None:
    """Start this stage anew with the modules of the copy of the project that it runs in, if it is.

    DVC runs a queued experiment in such a copy, and records the modules there as what the stage
    depends on. An editable install imports those of the project, which may have been edited since.

    Args:
        paths: The folder that the stage runs in.
    """
    own = str(paths.root / "src")
    known = os.environ.get("PYTHONPATH", "")
    if "DVC_STAGE" in os.environ and paths.project != paths.root and own not in known:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [own, known]))
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def stage(
    name: str, per_method: bool = False, live: bool = False
) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a function the command of a DVC stage.

    The function gets the project's paths, its parameters and where to report progress, and
    then, for a stage that runs once per method, the method's name. What it wrote is shown in
    MLflow when it has returned.

    Args:
        name: The stage's name in dvc.yaml.
        per_method: Whether the command takes the name of a method.
        live: Whether the function also gets `show`, which it calls with each row of its history.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @report_user_errors
        def command(quiet: bool, **arguments: Any) -> None:
            from lora_compare.cli import postman
            from lora_compare.tracking.tracker import tracker

            paths = Paths.here()
            run_own_code(paths)
            params = load_params(paths.params)
            require_writable(paths.output_folders(name, **arguments))
            progress = Progress(quiet)
            gc.set_threshold(COLLECT_AFTER)
            # Python's last search through all that torch has made takes a quarter of a second.
            atexit.register(gc.freeze)
            own = "@".join([name, *arguments.values()])
            hire = functools.partial(postman.hire, paths)
            with (
                ending_well(own),
                only_writer(paths.writer(own), own),
                tracker(paths, params, name, progress, hire, **arguments) as tracked,
            ):
                end_with_dvc(progress)
                started = time.monotonic()
                extra = {"show": tracked.log} if live else {}
                report_user_errors(function)(paths, params, progress, **arguments, **extra)
                tracked.finish(time.monotonic() - started)

        command.__doc__ = function.__globals__["__doc__"]
        if per_method:
            command = click.argument("method")(command)
        command = click.option("--quiet", is_flag=True, help="Print errors only.")(command)
        return click.command(name)(command)

    return decorate
