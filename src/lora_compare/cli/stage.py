"""What every command shares: the call, its errors as messages, its progress, its tracking."""

import atexit
import functools
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from lora_compare.errors import UserError
from lora_compare.params import Params, load_params
from lora_compare.project.files import require_writable, storage_faults
from lora_compare.project.interruption import Interrupted, interruptible
from lora_compare.project.lock import end_with_dvc, only_writer
from lora_compare.project.paths import Paths
from lora_compare.project.progress import Progress
from lora_compare.training.ranks.environment import is_follower, is_joined

if TYPE_CHECKING:
    from lora_compare.tracking.tracker import Tracker

EXIT_USER_ERROR = 2

COLLECT_AFTER = 20_000
"""Objects made between two searches for garbage."""

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


def collect_garbage_rarely() -> None:
    """Let Python look for garbage in large steps, and not at its end.

    Imports make many objects and leave no garbage: Python's own steps of 700 to 2,000 cost a fifth
    of their time, and its last search through all that torch has made a quarter of a second.
    """
    gc.set_threshold(COLLECT_AFTER)
    atexit.register(gc.freeze)


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
            paths = Paths.here()
            run_own_code(paths)
            collect_garbage_rarely()
            params = load_params(paths.params)
            if is_follower():
                from lora_compare.training.ranks.joining import follow

                with ending_well(name):
                    return follow(paths, params.training)
            require_writable(paths.output_folders(name, **arguments))
            progress = Progress(quiet)
            with (
                _leading(params),
                working(paths, params, name, progress, **arguments) as tracked,
            ):
                extra = {"show": tracked.log} if live else {}
                report_user_errors(function)(paths, params, progress, **arguments, **extra)
            return None

        command.__doc__ = function.__globals__["__doc__"]
        if per_method:
            command = click.argument("method")(command)
        command = click.option("--quiet", is_flag=True, help="Print errors only.")(command)
        return click.command(name)(command)

    return decorate


def _leading(params: Params) -> AbstractContextManager[None]:
    """Return a context in which the other processes that torchrun has started wait for work."""
    if not is_joined():
        return nullcontext()
    from lora_compare.training.ranks.joining import leading

    return leading(params.training)


@contextmanager
def working(
    paths: Paths, params: Params, name: str, progress: Progress, **arguments: str
) -> "Iterator[Tracker]":
    """Run a stage in the block: alone, no longer than its DVC, ended by signals, shown in MLflow.

    Args:
        paths: The project.
        params: Its parameters.
        name: The stage's name in dvc.yaml.
        progress: Where it reports.
        arguments: The method, for a stage that runs once per method.

    Raises:
        BusyError: Another process runs the same stage here.
    """
    from lora_compare.cli import postman
    from lora_compare.tracking.tracker import tracker

    own = "@".join([name, *arguments.values()])
    hire = functools.partial(postman.hire, paths)
    with (
        ending_well(own),
        only_writer(paths.writer(own), own),
        tracker(paths, params, name, progress, hire, **arguments) as tracked,
    ):
        end_with_dvc(progress)
        started = time.monotonic()
        yield tracked
        tracked.finish(time.monotonic() - started)
