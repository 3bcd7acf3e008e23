"""The command `lora-compare`: what people do beside running the pipeline."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from lora_compare import __version__
from lora_compare.console import report_user_errors
from lora_compare.errors import DataError, MissingArtifactError, ParamsError
from lora_compare.lines import read_lines
from lora_compare.params import Params, load_params
from lora_compare.paths import Paths, require
from lora_compare.progress import Progress

CHUNK = 256
"""Texts that are classified at a time, so that a long file streams through."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lora-compare")
def main() -> None:
    """Is LoRA as good as full fine-tuning on your own labelled text, and what does it save?

    Run the commands in the project's folder, after `make repro` or `dvc repro`.
    """


@main.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--method", help="The method to use; `lora` if there is one.")
@click.option(
    "--file",
    "source",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    help="Classify each line of this file; - is standard input.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@report_user_errors
def classify(
    texts: tuple[str, ...], method: str | None, source: Path | None, as_json: bool
) -> None:
    """Print the class and its probability for each TEXT, or for each line of a file.

    Without TEXT and --file, lines are read from standard input; empty lines are left out.

    \b
    lora-compare classify "You won a tablet! To collect your prize call 09098790503 today"
    lora-compare classify --method full --file messages.txt
    cat messages.txt | lora-compare classify --json
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.adapters import load_method
    from lora_compare.base import load_base
    from lora_compare.seeding import choose_device

    if texts and source:
        raise click.UsageError("give texts or --file, not both")
    paths, params = _project()
    name = _method_or_default(params, method)
    classifier = load_method(paths.model(name), load_base(paths.base), f"finetune@{name}")
    classifier.model.to(choose_device(params.training.device))
    for chunk in _chunks(texts or read_lines(source)):
        for text, row in zip(chunk, classifier.probabilities(chunk), strict=True):
            best = int(row.argmax())
            label, probability = classifier.classes[best], float(row[best])
            if as_json:
                chances = dict(zip(classifier.classes, map(float, row), strict=True))
                record = {"text": text, "label": label, "probability": probability}
                click.echo(json.dumps({**record, "probabilities": chances}, ensure_ascii=False))
            else:
                # One line of three fields a text, whatever the text holds.
                line = " ".join(text.replace("\t", " ").splitlines())
                click.echo(f"{label}\t{probability:.4f}\t{line}")


def _method_or_default(params: Params, method: str | None) -> str:
    name = method or ("lora" if "lora" in params.methods else next(iter(params.methods)))
    params.method(name)
    return name


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    for text in texts:
        if not text.strip():
            raise DataError("There is nothing to classify in an empty text.", where="TEXT")
        chunk.append(text)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@main.command()
@click.option("--method", help="The method to export; `lora` if there is one.")
@click.option(
    "--format",
    "kind",
    required=True,
    type=click.Choice(["peft", "merged", "onnx"]),
    help="peft: the adapter alone; merged: a model for transformers; onnx: for ONNX runtimes.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The folder to write; exports/METHOD-FORMAT. An earlier export there is replaced.",
)
@report_user_errors
def export(
    method: str | None, kind: Literal["peft", "merged", "onnx"], output: Path | None
) -> None:
    """Write a fine-tuned method for PEFT, transformers or an ONNX runtime.

    \b
    lora-compare export --format peft
    lora-compare export --method full --format merged --output ~/spam-filter
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.export import export as write_export
    from lora_compare.export import load_source

    paths, params = _project()
    name = _method_or_default(params, method)
    folder = (output or Path("exports") / f"{name}-{kind}").expanduser()
    lines = write_export(load_source(paths, name), kind, folder)
    click.echo(f"{name} is in {folder}. To use it in Python:\n\n{lines}")


@main.command("import")
@click.argument("folder", metavar="PATH", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the new method.")
@click.option(
    "--classes",
    help="The classes in the order of the adapter's head, such as spam,ham; else in the data's.",
)
@report_user_errors
def import_(folder: Path, name: str, classes: str | None) -> None:
    """Add an adapter that PEFT trained on GPT-2 to the comparison, as a method.

    PATH is what PEFT's save_pretrained wrote. It is copied to inputs/adapters/NAME.

    \b
    lora-compare import ~/my-adapter --name theirs
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.base import load_base
    from lora_compare.corpus import read_classes
    from lora_compare.importing import import_adapter

    paths, params = _project()
    mine = read_classes(require(paths.classes, "split"))
    rows = next(csv.reader([classes], skipinitialspace=True)) if classes else None
    imported = import_adapter(paths, params, load_base(paths.base), mine, folder, name, rows)
    click.echo(
        f"{name} is a method of params.yaml now: {imported.trainable:,} trained parameters.\n"
        "To compare it: dvc repro"
    )


@main.command()
@report_user_errors
def check() -> None:
    """Check every setting in params.yaml; `make repro` does so before anything runs."""
    _, params = _project()
    click.echo(f"params.yaml is in order; methods: {', '.join(params.methods)}")


@main.command()
@click.option(
    "--write",
    "target",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Put it into this markdown file instead, between its marks <!-- results -->.",
)
@report_user_errors
def summary(target: Path | None) -> None:
    """Print the comparison: accuracy, price and verdict, and what to type next."""
    from lora_compare.comparison import read_comparison
    from lora_compare.markdown import write_results
    from lora_compare.summary import print_summary

    paths = Paths.here()
    doubt = _doubt(paths)
    if target is None:
        print_summary(paths, Console())
    else:
        write_results(target, read_comparison(paths.metrics("comparison")))
    if doubt:
        click.echo(f"\n{doubt}")


@main.command()
@click.option("--quiet", is_flag=True, help="Print errors only.")
@report_user_errors
def report(quiet: bool) -> None:
    """Write the report again from files alone: page, markdown, plots and the comparison.

    It is what the stage compare does, without DVC: nothing is trained, and the same results give
    the same bytes, so that DVC sees no change. Use it after `dvc pull`.

    \b
    dvc pull && lora-compare report
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.comparison import headline
    from lora_compare.report import write_comparison
    from lora_compare.writer import only_writer

    paths, params = _project()
    progress = Progress(quiet)
    with only_writer(paths.writer("compare"), "compare"):
        try:
            comparison = write_comparison(paths, params, progress)
        except MissingArtifactError as error:
            error.next = "dvc pull, where a remote has the results\nor make them here: dvc repro"
            raise
    progress.say(headline(comparison))
    progress.say(f"the report is {paths.report('html')}")
    if doubt := _doubt(paths):
        progress.say(doubt)


def _doubt(paths: Paths) -> str:
    """Return why the comparison on disk may not be that of params.yaml; empty if it is."""
    from lora_compare.tracking.lineage import Pipeline

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


@main.command()
@click.option("--quiet", is_flag=True, help="Print errors only.")
@report_user_errors
def sync(quiet: bool) -> None:
    """Show everything on disk in MLflow, whatever of it is not there yet.

    Use it after a tracking server was away, after `dvc pull`, or after deleting mlflow.db; a
    second call changes nothing. The server is $MLFLOW_TRACKING_URI, or mlflow.db here.
    """
    from lora_compare import tracking

    paths, params = _project()
    progress = Progress(quiet)
    result = tracking.sync(paths, params, progress)
    progress.say(f"published {len(result.published)}, already there {len(result.already_there)}")
    if result.stale:
        progress.say(f"left out, out of date (dvc repro): {', '.join(result.stale)}")
    for line in result.models.lines:
        progress.say(line)


@main.command()
@click.option("--method", help="The method to register; all of them if it is not given.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@report_user_errors
def register(method: str | None, quiet: bool) -> None:
    """Register methods in MLflow as models to serve, whatever their size.

    The pipeline does so itself with models up to 100 MB. A model that is registered already is
    not registered again.

    \b
    lora-compare register --method lora
    mlflow models serve -m models:/lora-compare-lora/1 --env-manager local
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare import tracking

    paths, params = _project()
    progress = Progress(quiet)
    result = tracking.register(paths, params, progress, method)
    for line in result.lines or [f"registered before: {', '.join(result.known)}"]:
        progress.say(line)


@main.command()
@report_user_errors
def repair() -> None:
    """Move outputs and objects of DVC's cache whose bytes have changed out of DVC's way.

    Use it when a stage refuses a file, and not while one runs. DVC does not see such a change
    where the file's time is what it was, and brings a changed object back as it is. What is
    moved to .quarantine, `dvc repro` restores, or makes again.
    """
    from lora_compare.repair import repair as move_changed

    outcome = move_changed(Paths.here())
    for old, new in outcome.moved.items():
        click.echo(f"moved {old} to {new}")
    found = f"{len(outcome.moved)} changed" if outcome.moved else "all as DVC recorded them"
    click.echo(
        f"checked {outcome.outputs} outputs and {outcome.objects} objects of DVC's cache: {found}"
    )
    if outcome.moved:
        click.echo("next: dvc repro")
    else:
        click.echo("If a stage refuses a file all the same, make it anew: dvc repro --force STAGE")


@main.command()
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@report_user_errors
def ui(port: int) -> None:
    """Start MLflow on http://127.0.0.1:PORT and print the address of this project's runs.

    With a server in $MLFLOW_TRACKING_URI, print their address there and start nothing.
    """
    from lora_compare.tracking.page import page_of_runs
    from lora_compare.tracking.server import Server, set_patience

    paths, params = _project()
    server = Server.configured(paths)
    if server is None:
        raise ParamsError("Tracking is off.", where="LORA_COMPARE_TRACKING", next="unset it")
    address = page_of_runs(server, params.tracking.experiment, port)
    if server.is_remote:
        click.echo(f"The runs are at\n  {address}")
        return
    set_patience()
    click.echo("MLflow is starting (stop it with Ctrl-C); the runs are at")
    click.echo(f"  {address}")
    click.echo("There: expand the pipeline run with +, tick two methods, press Compare.")
    # Any user of this machine can list arguments, and a database's address may hold a password.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = server.uri
    arguments = ["mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execvp(sys.executable, [sys.executable, "-m", *arguments])  # noqa: S606


def _project() -> tuple[Paths, Params]:
    paths = Paths.here()
    return paths, load_params(paths.params)
