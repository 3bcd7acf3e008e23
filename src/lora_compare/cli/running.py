"""Before the pipeline runs: `check` and `import`."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_compare.cli.terminal import Output, command, project

if TYPE_CHECKING:
    from lora_compare.params import Params
    from lora_compare.project.paths import Paths


@command("check")
def check(output: Output) -> None:
    """Check every setting in params.yaml; `make repro` does so before anything runs.

    Every mistake is named at once, with its key and what is allowed. Nothing is run.

    \b
    lora-compare check
    lora-compare check --json && dvc repro
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.data.sources import require_watched

    paths, params = project()
    require_watched(params.data, paths)
    steps = _steps(paths, params)
    output.record(
        {
            "valid": True,
            "source": params.data.source,
            "model": params.model.name,
            "methods": {name: method.trainable for name, method in params.methods.items()},
            "steps": steps,
        }
    )
    output.say(f"params.yaml is in order; methods: {', '.join(params.methods)}")
    if steps:
        counts = ", ".join(f"{name} {count:,}" for name, count in steps.items())
        output.say(f"steps of each training, with the splits that are there: {counts}")


def _steps(paths: "Paths", params: "Params") -> dict[str, int]:
    """Return the optimizer steps of every method that is trained; none before there are splits."""
    from lora_compare.project.files import read_json

    if not paths.metrics("split").is_file():
        return {}
    n = read_json(paths.metrics("split"))["splits"]["train"]["n"]
    steps = params.training.epochs * params.training.steps_per_epoch(n)
    return {m: steps for m, method in params.methods.items() if method.trainable != "imported"}


@command("import")
@click.argument("folder", metavar="PATH", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the new method.")
@click.option(
    "--classes",
    help="The classes in the order of the adapter's head, such as spam,ham; else in the data's.",
)
def import_(output: Output, folder: Path, name: str, classes: str | None) -> None:
    """Add an adapter that PEFT trained on GPT-2 to the comparison, as a method.

    PATH is what PEFT's save_pretrained wrote. It is converted into inputs/adapters/NAME.

    \b
    lora-compare import ~/my-adapter --name theirs
    lora-compare import ~/my-adapter --name theirs --classes spam,ham
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.project.paths import require

    paths, params = project()
    with output.working("load PyTorch"):
        from lora_compare.exchange.imported import import_adapter
        from lora_compare.models.base import load_base
        from lora_compare.project.corpus import read_classes

    mine = read_classes(require(paths.classes, "split"))
    rows = next(csv.reader([classes], skipinitialspace=True)) if classes else None
    with output.working(f"compare {folder} with the base model"):
        imported = import_adapter(paths, params, load_base(paths.base), mine, folder, name, rows)
    adapter = paths.adapter(name)
    output.record(
        {
            "method": name,
            "adapter": str(adapter),
            "trainable_parameters": imported.trainable,
        }
    )
    output.say(
        f"{name} is a method of params.yaml now: {imported.trainable:,} trained parameters.\n"
        "To compare it: dvc repro\n"
        f"To keep it with the project: dvc add {adapter.relative_to(paths.root)}"
    )
