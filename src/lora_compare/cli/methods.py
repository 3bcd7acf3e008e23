"""A method, or the baseline TF-IDF, at work: `classify`, `register` and `export`."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from lora_compare.cli.completion import complete_methods
from lora_compare.cli.terminal import Output, command, project
from lora_compare.project.paths import TFIDF, require, seed_folder

if TYPE_CHECKING:
    from lora_compare.evaluation.tfidf import TfidfClassifier
    from lora_compare.models.classifier import TextClassifier
    from lora_compare.params import Params
    from lora_compare.project.paths import Paths

    Classifier = TextClassifier | TfidfClassifier

CHUNK = 256
"""Texts that are classified at a time, so that a long file streams through."""


@dataclass(frozen=True)
class Answer:
    """One text and what the method says of it.

    Attributes:
        text: The text.
        label: Its class, or its labels in words.
        found: The same as a record has it: `label` with the class, or `labels` with a list.
        probability: The answer's probability.
        probabilities: Probability of each class or label.
    """

    text: str
    label: str
    found: dict[str, str | list[str]]
    probability: float
    probabilities: dict[str, float]


seed_option = click.option(
    "--seed",
    type=int,
    help="The training to use, of training.seeds; else that of the lowest validation loss, and of "
    "folds the first.",
)


@command("classify")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--method",
    shell_complete=complete_methods,
    help="The method to use, or tfidf; `lora` if there is one.",
)
@seed_option
@click.option(
    "--file",
    "source",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    help="Classify each row of this table, or each line of any other file; - is standard input.",
)
@click.option(
    "--text-column", "column", help="The table's column of texts; else data.text_column's."
)
def classify(
    output: Output,
    texts: tuple[str, ...],
    method: str | None,
    seed: int | None,
    source: Path | None,
    column: str | None,
) -> None:
    """Print the class and its probability for each TEXT, or for each text of a file.

    A file that ends in .csv, .tsv, .jsonl, .parquet, .zip (.gz after them) is read as the pipeline
    reads a source: a header, quotes, texts of several lines. Any other is read line by line, and so
    is standard input without TEXT and --file; empty lines are left out. Where
    the result goes into a file or a pipe, it is one line a text: class, probability and text,
    with tabs between them.

    \b
    lora-compare classify "You won a tablet! To collect your prize call 09098790503 today"
    lora-compare classify --method full --seed 3 --file messages.txt > answers.tsv
    lora-compare classify --file tickets.csv --text-column message --json
    cat messages.txt | lora-compare classify --json
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.cli.lines import is_table, read_column, read_lines

    if texts and source:
        raise click.UsageError("give texts or --file, not both")
    if column and not is_table(source):
        raise click.UsageError("--text-column is of a table: --file with a .csv, .tsv, .jsonl, ...")
    paths, params = project()
    name = _method_or_default(params, method, seed)
    found: Iterable[str] = texts or read_lines(source)
    if source is not None and is_table(source):
        found = read_column(source, column or params.data.text_column, output.progress)
    with output.working(f"load {name}"):
        classifier = _load(paths, params, name, seed)
    with _counting(output, source, found) as advance:
        for chunk in _chunks(found):
            _show(output, _answers(classifier, chunk))
            advance(len(chunk))


def _method_or_default(params: "Params", method: str | None, seed: int | None) -> str:
    name = method or ("lora" if "lora" in params.methods else next(iter(params.methods)))
    if name != TFIDF:
        params.method(name)
    elif seed is not None:
        raise click.UsageError(f"--seed is of a method's training; {TFIDF} has none")
    return name


def _load(paths: "Paths", params: "Params", name: str, seed: int | None) -> "Classifier":
    _require_decision(paths, params, name)
    if name == TFIDF:
        from lora_compare.evaluation.tfidf import load_tfidf

        return load_tfidf(paths.model(name), paths.decision(name))
    from lora_compare.compute.device import choose_device
    from lora_compare.models.base import load_base
    from lora_compare.models.methods import load_method
    from lora_compare.project.seeds import base_of, chosen, seed_of

    folder = chosen(paths.model(name), seed)
    decision = paths.decision(name, seed_of(folder))
    base = load_base(base_of(paths, name, seed))
    classifier = load_method(folder, base, f"finetune@{name}", decision)
    classifier.model.to(choose_device(params.training.device))
    return classifier


def _require_decision(paths: "Paths", params: "Params", name: str) -> None:
    """Refuse a method without what params.yaml asks for, which the stage evaluate has not chosen.

    Raises:
        MissingArtifactError: It has not.
    """
    if params.decides:
        stage = "baseline" if name == TFIDF else f"evaluate@{name}"
        if not any(paths.evaluated(name).glob("decision*.json")):
            require(paths.decision(name), stage)


def _counting(
    output: Output, source: Path | None, texts: Iterable[str]
) -> AbstractContextManager[Callable[..., None]]:
    """Show on a terminal how far a file is, where the answers go somewhere else."""
    watched = output.progress.console.is_interactive and not output.console.is_terminal
    if source is None or not watched or not source.is_file():
        return nullcontext(lambda amount: None)
    if isinstance(texts, Sized):
        return output.progress.task(f"classify {source.name}", len(texts))
    with source.open("rb") as file:
        total = sum(1 for line in file if line.strip())
    return output.progress.task(f"classify {source.name}", total)


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    from lora_compare.errors import DataError

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


def _answers(classifier: "Classifier", texts: Sequence[str]) -> list[Answer]:
    from lora_compare.project.corpus import labels_of, shown_labels

    rows, targets = classifier.probabilities(texts), classifier.targets
    given = targets.answers(rows, classifier.decision)
    several, classes = given.ndim == 2, classifier.classes
    named = targets.texts(given, classes)
    sure = targets.certainty(rows, given).tolist()
    return [
        Answer(
            text,
            shown_labels(name) if several else name,
            {"labels": list(labels_of(name))} if several else {"label": name},
            probability,
            dict(zip(classes, chances, strict=True)),
        )
        for text, name, probability, chances in zip(texts, named, sure, rows.tolist(), strict=True)
    ]


def _show(output: Output, answers: Sequence[Answer]) -> None:
    if output.as_json:
        for answer in answers:
            record = {"text": answer.text, **answer.found, "probability": answer.probability}
            output.record({**record, "probabilities": answer.probabilities})
    elif output.console.is_terminal:
        _show_table(output, answers)
    else:
        for answer in answers:
            # One line of three fields a text, whatever the text holds.
            line = " ".join(answer.text.replace("\t", " ").splitlines())
            click.echo(f"{answer.label}\t{answer.probability:.4f}\t{line}")


def _show_table(output: Output, answers: Sequence[Answer]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    widest = max(map(len, answers[0].probabilities))
    table.add_column(style="bold", min_width=min(widest, 20), overflow="fold")
    table.add_column(justify="right", no_wrap=True, min_width=len("100.0 %"))
    table.add_column(overflow="fold")
    for answer in answers:
        cells = (answer.label, f"{100 * answer.probability:.1f} %", _printable(answer.text))
        table.add_row(*map(Text, cells))
    output.show(table)


def _printable(text: str) -> str:
    """Return a text that moves no cursor: a message may hold a terminal's own commands."""
    line = " ".join(text.replace("\t", " ").splitlines())
    return "".join("\N{REPLACEMENT CHARACTER}" if _commands(c) else c for c in line)


def _commands(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


@command("register")
@click.option(
    "--method",
    shell_complete=complete_methods,
    help="The method to register, or tfidf; all of them if it is not given.",
)
@seed_option
def register(output: Output, method: str | None, seed: int | None) -> None:
    """Register methods in MLflow as models to serve, whatever their size.

    The pipeline does so itself with models up to 100 MB. A model that is registered already is
    not registered again. With --seed, a model of another training than the method's chosen one.

    \b
    lora-compare register --method lora
    lora-compare register --method lora --seed 3
    mlflow models serve -m models:/lora-compare-bundled-gpt2-nano-lora/1 --env-manager local
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.serving.publication import register as register_models
    from lora_compare.tracking.server import Server

    if seed is not None and method in (None, TFIDF):
        raise click.UsageError("--seed is of one method's training: name it with --method")
    paths, params = project()
    server = Server.configured(paths)
    if server is not None and server.move:
        output.say(server.move)
    result = register_models(paths, params, method, seed)
    output.record({"lines": list(result.lines), "registered_before": list(result.known)})
    for line in result.lines or [f"registered before: {', '.join(result.known)}"]:
        output.say(line)


@command("export")
@click.option(
    "--method",
    shell_complete=complete_methods,
    help="The method to export, or tfidf; `lora` if there is one.",
)
@seed_option
@click.option(
    "--format",
    "kind",
    required=True,
    type=click.Choice(["peft", "merged", "onnx", "sklearn"]),
    help="peft: the adapter alone; merged: a model for transformers; onnx: for ONNX runtimes; "
    "sklearn: tfidf for scikit-learn.",
)
@click.option(
    "--output",
    "target",
    type=click.Path(path_type=Path),
    help="The folder to write; exports/METHOD-FORMAT, with a seed METHOD-seed-SEED-FORMAT. An "
    "earlier export there is replaced.",
)
def export(
    output: Output,
    method: str | None,
    seed: int | None,
    kind: Literal["peft", "merged", "onnx", "sklearn"],
    target: Path | None,
) -> None:
    """Write a method for PEFT, transformers or an ONNX runtime, or tfidf for scikit-learn.

    The Python lines that use it are printed, and stand in its README.md.

    \b
    lora-compare export --format peft
    lora-compare export --method full --format merged --output ~/spam-filter
    lora-compare export --method tfidf --format sklearn
    """  # noqa: D301 (click reads the \b as a character)
    paths, params = project()
    method = TFIDF if kind == "sklearn" and method is None else method
    name = _method_or_default(params, method, seed)
    training = "" if seed is None else f"-{seed_folder(seed)}"
    folder = (target or Path("exports") / f"{name}{training}-{kind}").expanduser()
    with output.working(f"export {name}"):
        from lora_compare.exchange.export import write

        _require_decision(paths, params, name)
        lines = write(paths, name, kind, folder, seed)
    output.record({"method": name, "format": kind, "folder": str(folder), "python": lines})
    output.say(f"{name} is in {folder}. To use it in Python:\n")
    if not (output.as_json or output.quiet):
        click.echo(lines)  # as it is, to be copied
