"""The commands of `python -m benchmarks`: measure steps, measure scale, write the page."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks import growth, page, processes, scale, scaling, steps
from benchmarks.growth_page import growth_table
from benchmarks.jobs import IMPLEMENTATIONS
from benchmarks.machine import ROOT
from benchmarks.workload import make_workload
from lora_compare.cli.stage import report_user_errors
from lora_compare.compute.device import choose_device
from lora_compare.errors import UserError
from lora_compare.models.gpt.network import CONFIGS
from lora_compare.project.files import read_json, write_json
from lora_compare.project.progress import Progress

RESULTS = ROOT / "benchmarks" / "results"
"""Where results go, one file for each kind and device."""

PAGE = ROOT / "docs" / "performance.md"
MODELS = ROOT / "docs" / "models.md"
GPUS = ROOT / "docs" / "gpus.md"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def names_option(name: str, allowed: Sequence[str], default: Sequence[str]) -> Decorator:
    """Return an option that takes several of the `allowed` names, with commas between them."""

    def read(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
        names = tuple(value.split(","))
        for one in names:
            if one not in allowed:
                message = f"{one!r} is none of {', '.join(allowed)}"
                raise click.BadParameter(message, context, parameter)
        return names

    return click.option(name, default=",".join(default), show_default=True, callback=read)


THREADS = click.option(
    "--threads", type=click.IntRange(1), default=torch.get_num_threads(), show_default="all cores"
)
DEVICE = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
METHODS = names_option("--methods", steps.METHODS, steps.METHODS)
OUTPUT = click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The results file; without it benchmarks/results/KIND-DEVICE.json.",
)
POSITIVE = click.IntRange(1)


@click.group()
def main() -> None:
    """Measure what an optimizer step costs here and elsewhere, and write docs/performance.md."""


@main.command("steps")
@click.option("--messages", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--model", type=click.Choice(list(CONFIGS)), default="gpt2-small", show_default=True)
@METHODS
@names_option("--implementations", tuple(IMPLEMENTATIONS), tuple(IMPLEMENTATIONS))
@click.option("--steps", "n_steps", type=POSITIVE, default=8, show_default=True)
@click.option("--repeats", type=POSITIVE, default=3, show_default=True)
@click.option("--batch-size", type=POSITIVE, default=8, show_default=True)
@click.option("--evaluation-repeats", type=click.IntRange(0), default=1, show_default=True)
@THREADS
@DEVICE
@OUTPUT
@click.option("--quick", is_flag=True, help="gpt2-nano, one step: does everything work?")
@report_user_errors
def measure_steps(
    messages: Path | None,
    model: str,
    methods: tuple[str, ...],
    implementations: tuple[str, ...],
    n_steps: int,
    repeats: int,
    batch_size: int,
    evaluation_repeats: int,
    threads: int,
    device: str,
    output: Path | None,
    quick: bool,
) -> None:
    """Compare the implementations on the same messages; print and store the tables.

    MESSAGES is a file as for data.source; without it the SMS Spam Collection in
    $LORA_COMPARE_ASSETS, or else the corpus that ships with the project.
    """
    require_packages(implementations)
    settings = steps.Settings(
        model="gpt2-nano" if quick else model,
        methods=methods,
        implementations=implementations,
        steps=1 if quick else n_steps,
        warmup=1 if quick else 2,
        repeats=1 if quick else repeats,
        batch_size=batch_size,
        threads=threads,
        device=choose_device(device).type,
        evaluation_repeats=evaluation_repeats,
        evaluation_messages=16 if quick else None,
    )
    work = make_workload(messages, settings.model, batch_size)
    results = steps.compare(settings, work, Progress(), processes.run_in_process)
    write_json(output or RESULTS / f"steps-{settings.device}.json", results)
    click.echo(page.steps_section(results))


@main.command("scale")
@METHODS
@names_option("--implementations", tuple(IMPLEMENTATIONS), scale.IMPLEMENTATIONS)
@click.option("--steps", "n_steps", type=POSITIVE, default=2, show_default=True)
@THREADS
@DEVICE
@OUTPUT
@click.option("--quick", is_flag=True, help="gpt2-nano, two points: does everything work?")
@report_user_errors
def measure_scale(
    methods: tuple[str, ...],
    implementations: tuple[str, ...],
    n_steps: int,
    threads: int,
    device: str,
    output: Path | None,
    quick: bool,
) -> None:
    """Measure steps against rank, length, batch size and model, on random tokens."""
    require_packages(implementations)
    settings = scale.Settings(
        sweeps=scale.QUICK_SWEEPS if quick else scale.SWEEPS,
        methods=methods,
        implementations=implementations,
        steps=1 if quick else n_steps,
        threads=threads,
        device=choose_device(device).type,
    )
    results = scale.sweep(settings, Progress(), processes.run_in_process)
    write_json(output or RESULTS / f"scale-{settings.device}.json", results)
    click.echo(page.scale_table(results))


@main.command("scaling")
@names_option("--models", scaling.MODELS, scaling.MODELS)
@click.option("--steps", "n_steps", type=POSITIVE, default=6, show_default=True)
@click.option("--threads", type=POSITIVE, default=1, show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=scaling.RESULTS,
    help="The results file; by default the one that reports read.",
)
@report_user_errors
def measure_scaling(models: tuple[str, ...], n_steps: int, threads: int, output: Path) -> None:
    """Measure what LoRA saves at every size of GPT-2, for the table in reports."""
    write_json(output, scaling.measure(models, n_steps, threads, Progress()))


@main.command("pipeline")
@click.option(
    "--most", type=POSITIVE, default=200_000, show_default=True, help="Messages of the largest run."
)
@OUTPUT
@click.option("--quick", is_flag=True, help="Three runs of few messages: does everything work?")
@report_user_errors
def measure_pipeline(most: int, output: Path | None, quick: bool) -> None:
    """Measure whole runs against messages, methods, seeds and trainings at a time."""
    sweeps = growth.QUICK_SWEEPS if quick else growth.SWEEPS
    some = {along: [p for p in points if p.messages <= most] for along, points in sweeps.items()}
    results = growth.sweep(some, Progress())
    write_json(output or RESULTS / "pipeline-cpu.json", results)
    click.echo(growth_table(results))


@main.command("memory")
@click.option("--page", "path", type=click.Path(path_type=Path, dir_okay=False), default=MODELS)
@report_user_errors
def plan_memory(path: Path) -> None:
    """Write what training large models holds in memory into docs/models.md."""
    require_packages(("transformers",))
    from benchmarks import memory

    memory.write_page(path, memory.HEADER, memory.rows(Progress()))


@main.command("gpus")
@click.option("--page", "path", type=click.Path(path_type=Path, dir_okay=False), default=GPUS)
@report_user_errors
def plan_gpus(path: Path) -> None:
    """Print what each of several GPUs holds of a shared training, and write it to docs/gpus.md."""
    require_packages(("transformers",))
    from benchmarks import memory, sharded

    lines = [*sharded.rows(Progress())]
    memory.write_page(path, sharded.HEADER, lines)
    click.echo("\n".join([sharded.HEADER.strip(), *lines]))


@main.command("architectures")
@click.option("--steps", "n_steps", type=POSITIVE, default=8, show_default=True)
@report_user_errors
def measure_architectures(n_steps: int) -> None:
    """Time steps on a BERT and a Llama beside transformers' Trainer with PEFT, and print them."""
    require_packages(("transformers",))
    from benchmarks import architectures

    for line in architectures.rows(n_steps, progress=Progress()):
        click.echo(line)


@main.command()
@click.option(
    "--results", type=click.Path(path_type=Path, exists=True, file_okay=False), default=RESULTS
)
@click.option("--page", "path", type=click.Path(path_type=Path, dir_okay=False), default=PAGE)
@report_user_errors
def write(results: Path, path: Path) -> None:
    """Write the results into docs/performance.md, with charts beside it."""
    found = {file.stem: read_json(file) for file in sorted(results.glob("*.json"))}
    if not found:
        raise UserError("Nothing was measured yet.", where=str(results), next="make benchmark")
    page.write_page(path, found)


def require_packages(implementations: tuple[str, ...]) -> None:
    """Refuse implementations whose packages are missing.

    Raises:
        UserError: One is missing.
    """
    needed = {package for name in implementations for package in IMPLEMENTATIONS[name].needs}
    missing = sorted(name for name in needed if importlib.util.find_spec(name) is None)
    if missing:
        raise UserError(
            f"Not installed: {', '.join(missing)}.",
            next='pip install -e ".[benchmark]", or choose others with --implementations',
        )


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
