"""What every command shares: --json and --quiet, and where its result and its mistakes go."""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from lora_compare.errors import UserError, without_credentials

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from lora_compare.params import Params
    from lora_compare.project.paths import Paths
    from lora_compare.project.progress import Progress

EXIT_INTERRUPTED = 130
"""What shells expect of a command that Ctrl-C has ended."""

FACTS = ("what", "where", "expected", "actual", "kept", "next")
"""What is told of a mistake; all of them stand in its JSON, those that say nothing empty."""


class Output:
    """Where a command's result goes: in words and tables for people, as JSON for programs.

    Standard output holds the result alone; progress and warnings go to standard error.

    Args:
        as_json: Print JSON, one value a line, and nothing else.
        quiet: Print what was asked for and nothing around it; `LORA_COMPARE_QUIET=1` has the
            same effect.
    """

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet or os.environ.get("LORA_COMPARE_QUIET") == "1"

    @cached_property
    def console(self) -> "Console":
        """Standard output: styles where it is a terminal, plain text elsewhere."""
        from rich.console import Console

        return Console(highlight=False, markup=False, emoji=False)

    @cached_property
    def progress(self) -> "Progress":
        """Where long work reports how far it is: standard error."""
        from lora_compare.project.progress import Progress

        return Progress(self.quiet)

    def record(self, value: Mapping[str, Any]) -> None:
        """Print `value` as one line of JSON, where JSON was asked for."""
        if self.as_json:
            click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))

    def say(self, text: str) -> None:
        """Print words for people, which neither --json nor --quiet wants; no password in them."""
        if not (self.as_json or self.quiet):
            # Only a terminal breaks lines: a program that reads them wants them whole.
            whole = not self.console.is_terminal
            self.console.print(without_credentials(text), soft_wrap=whole)

    def show(self, renderable: "RenderableType") -> None:
        """Print a result for people: all but --json wants it."""
        if not self.as_json:
            self.console.print(renderable)

    @contextmanager
    def working(self, what: str) -> Iterator[Callable[[str], None]]:
        """Show that the block works, on a terminal, and yield the function that says at what.

        Inside, nothing else may show progress.

        Args:
            what: What is being done at first, in a few words.
        """
        console = self.progress.console
        if self.progress.quiet or not console.is_interactive:
            yield lambda what: None
            return
        with console.status(_going_on(what)) as status:
            yield lambda what: status.update(_going_on(what))


def _going_on(what: str) -> str:
    return f"{what} \N{HORIZONTAL ELLIPSIS}"


def command(name: str, **settings: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a function a command with --json and --quiet.

    The function gets the command's `Output`, then its own options and arguments by name. A
    user's mistake ends it with exit code 2, in JSON with --json, without a traceback.

    Args:
        name: The command's name.
        settings: What click's own decorator takes.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def call(as_json: bool, quiet: bool, **arguments: Any) -> None:
            from lora_compare.cli.stage import report_user_errors

            output = Output(as_json, quiet)
            report = _report_as_json if as_json else report_user_errors
            report(function)(output, **arguments)

        with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")
        with_quiet = click.option("--quiet", is_flag=True, help="Print the result or errors only.")
        made: Callable[[Callable[..., None]], click.Command] = click.command(name, **settings)
        return made(with_json(with_quiet(call)))

    return decorate


def _report_as_json(function: Callable[..., None]) -> Callable[..., None]:
    """Return `function` that prints a user's mistake as JSON and exits with 2."""
    from lora_compare.cli.stage import EXIT_USER_ERROR
    from lora_compare.project.files import storage_faults

    def reporting(output: Output, **arguments: Any) -> None:
        try:
            with storage_faults():
                function(output, **arguments)
        except UserError as error:
            if os.environ.get("LORA_COMPARE_DEBUG") == "1":
                raise
            facts = {fact: without_credentials(getattr(error, fact)) for fact in FACTS}
            output.record({"error": {"kind": type(error).__name__, **facts}})
            sys.exit(EXIT_USER_ERROR)

    return reporting


def failed_usage(error: click.UsageError) -> click.UsageError:
    """Return `error` that shows itself as the other errors do with --json."""
    path = error.ctx.command_path if error.ctx else "lora-compare"
    known = {"what": error.format_message(), "where": path, "next": f"{path} --help"}
    facts = dict.fromkeys(FACTS, "") | known

    class _Json(click.UsageError):
        def show(self, file: Any = None) -> None:
            Output(as_json=True).record({"error": {"kind": "UsageError", **facts}})

    return _Json(error.message, error.ctx)


def project() -> "tuple[Paths, Params]":
    """Return the project in the current folder and its parameters.

    Raises:
        ParamsError: There is no project, or params.yaml has mistakes.
    """
    from lora_compare.params import load_params
    from lora_compare.project.paths import Paths

    paths = Paths.here()
    return paths, load_params(paths.params)
