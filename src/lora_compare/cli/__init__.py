"""The command `lora-compare`: what people do beside running the pipeline.

Nothing is imported here but click, and a command's module when the command is called: help and
completion answer at once.
"""

import difflib
import importlib
import keyword
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from lora_compare import __version__
from lora_compare.cli.terminal import EXIT_INTERRUPTED, failed_usage

COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Run the comparison": {
        "check": ("running", "Check every setting in params.yaml, and one's own text."),
        "import": ("running", "Add an adapter that PEFT trained on the base, as a method."),
    },
    "Look at results": {
        "summary": ("results", "Print the comparison: accuracy, price and verdict."),
        "report": ("results", "Write the report again from files alone."),
        "ui": ("results", "Start MLflow and print the address of the runs."),
        "sync": ("results", "Show everything on disk in MLflow, nothing twice."),
    },
    "Use a method": {
        "classify": ("methods", "Print the class and its probability for texts."),
        "register": ("methods", "Register methods in MLflow as models to serve."),
        "export": ("methods", "Write a method for PEFT, transformers or an ONNX runtime."),
    },
    "Care for the project": {
        "doctor": ("care", "Look for trouble: versions, device, caches, tracking, disk."),
        "repair": ("care", "Move files whose bytes have changed out of DVC's way."),
        "completion": ("completion", "Print the script that completes commands in a shell."),
    },
}
"""Every command by section: its module in this package, and its line in the help.

A command is one line here and, in that module, one function of its name (`import_` for `import`)
under `terminal.command`.
"""

LINES = {name: line for section in COMMANDS.values() for name, (_, line) in section.items()}


class Commands(click.Group):
    """All commands, in the order and the sections of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(LINES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, its module imported now; None if there is none of that name."""
        for section in COMMANDS.values():
            if cmd_name in section:
                module = importlib.import_module(f"{__name__}.{section[cmd_name][0]}")
                attribute = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
                command: click.Command = getattr(module, attribute)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections without importing the commands."""
        longest = max(map(len, LINES))
        for title, section in COMMANDS.items():
            with formatter.section(title):
                rows = [(name.ljust(longest), line) for name, (_, line) in section.items()]
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that start so, without importing them, and the options."""
        names = [name for name in LINES if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=LINES[name]) for name in names] + options

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take `help COMMAND` for `COMMAND --help`, and note whether errors are to be JSON."""
        if args[:1] == ["help"]:
            args = [*args[1:2], "--help"]
        ctx.obj = "--json" in args
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is called; refuse a name that is none, with what is near it."""
        name = args[0]
        if name not in LINES and not name.startswith("-"):
            near = difflib.get_close_matches(name, LINES, n=1)
            hint = f" Is it {near[0]}?" if near else ""
            ctx.fail(f"There is no command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a wrong call of it is JSON where that was asked for."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise failed_usage(error) if ctx.obj else error from None
        except KeyboardInterrupt:
            click.echo("\ninterrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lora-compare")
def main() -> None:
    """Is LoRA as good as full fine-tuning on your own labelled text, and what does it save?

    Run the commands in the project's folder; `dvc repro` runs the pipeline itself.

    \b
    lora-compare doctor                       is everything there that it needs?
    lora-compare summary                      what came out
    lora-compare classify "text to classify"  use it
    lora-compare help classify                one command, with examples
    """  # noqa: D301 (click reads the \b as a character)
