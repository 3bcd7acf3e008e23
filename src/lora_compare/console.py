"""What every command shares: the call, its errors as messages, its progress, its tracking."""

import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import click

from lora_compare.errors import UserError
from lora_compare.params import load_params
from lora_compare.paths import Paths
from lora_compare.progress import Progress

EXIT_USER_ERROR = 2

P = ParamSpec("P")
R = TypeVar("R")


def report_user_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Return `command` that prints a user's mistake and exits with 2, without a traceback.

    `LORA_COMPARE_DEBUG=1` lets the traceback through.
    """

    @functools.wraps(command)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            if os.environ.get("LORA_COMPARE_DEBUG") == "1":
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(EXIT_USER_ERROR)

    return reporting


def stage(name: str, per_method: bool = False) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a function the command of a DVC stage.

    The function gets the project's paths, its parameters and where to report progress, and
    then, for a stage that runs once per method, the method's name. What it wrote is logged
    to MLflow when it has returned.

    Args:
        name: The stage's name in dvc.yaml.
        per_method: Whether the command takes the name of a method.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @report_user_errors
        def command(quiet: bool, **arguments: Any) -> None:
            from lora_compare import tracking

            paths = Paths.here()
            params = load_params(paths.params)
            progress = Progress(quiet)
            started = time.monotonic()
            function(paths, params, progress, **arguments)
            seconds = time.monotonic() - started
            tracking.log_stage(paths, params, name, progress, **arguments, seconds=seconds)

        command.__doc__ = function.__globals__["__doc__"]
        if per_method:
            command = click.argument("method")(command)
        command = click.option("--quiet", is_flag=True, help="Print errors only.")(command)
        return click.command(name)(command)

    return decorate
