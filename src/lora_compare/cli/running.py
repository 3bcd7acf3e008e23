"""Before the pipeline runs: `check` and `import`."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_compare.cli.contents import read_data, say_data
from lora_compare.cli.terminal import Output, command, project
from lora_compare.errors import ParamsError, UserError

if TYPE_CHECKING:
    from lora_compare.params import Params
    from lora_compare.project.paths import Paths


@command("check")
def check(output: Output) -> None:
    """Check params.yaml and one's own text; `make repro` does so before anything runs.

    Every mistake in params.yaml is named at once, with its key and what is allowed, and so is what
    it names and is not here: a file, an adapter, a device. Then the file of data.source is read,
    its columns shown and its classes counted, and it is said what its test messages and the seeds
    can show. Nothing is run or downloaded.

    \b
    lora-compare check
    lora-compare check --json && dvc repro
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.data.places import is_here

    paths, params = project()
    _require_written(paths, params)
    _require_here(paths, params)
    data = read_data(output, paths, params) if is_here(params.data) else None
    _require_fit(output, paths, params, several=bool(data and data["labels"]))
    sizes = data["splits"] if data else _sizes(paths)
    trainings, steps = _trainings(params), _steps(sizes, params)
    total = _all_steps(params, trainings, steps)
    groups = data["test_groups"] if data else None
    power = power_of(params, sizes["test"], groups) if sizes.get("test") else ""
    output.record(
        {
            "valid": True,
            "source": params.data.described,
            "model": params.model.name,
            "methods": {name: method.trainable for name, method in params.methods.items()},
            "data": data,
            "trainings": trainings,
            "steps": steps,
            "all_steps": total,
            "power": power,
        }
    )
    output.say(f"params.yaml is in order; methods: {', '.join(params.methods)}")
    if data:
        say_data(output, data)
    _say_work(output, trainings, steps, total)
    if power:
        output.say(power)


def _trainings(params: "Params") -> dict[str, dict[str, int]]:
    """Return how often every method is trained that is trained here: to tune and to compare."""
    from lora_compare.params import count_trials

    tuning, seeds = params.tuning, len(params.training.seeds)
    return {
        name: {
            "tune": count_trials(method.search, tuning) * len(tuning.seeds),
            "compare": seeds,
        }
        for name, method in params.methods.items()
        if method.trainable != "imported"
    }


def _say_work(
    output: Output, trainings: dict[str, dict[str, int]], steps: dict[str, int], total: int
) -> None:
    """Say how many trainings there will be, of how many steps, as far as that is known."""
    counts = [
        f"{name} {own['compare']}" + (f" and {own['tune']} to tune" if own["tune"] else "")
        for name, own in trainings.items()
    ]
    if counts:
        in_all = sum(sum(own.values()) for own in trainings.values())
        output.say(f"trainings: {', '.join(counts)}; {in_all} in all")
    if steps:
        shown = ", ".join(f"{name} {count:,}" for name, count in steps.items())
        output.say(f"steps of each training: {shown}")
        output.say(f"steps of all trainings: {total:,}")


def power_of(params: "Params", messages: int, groups: int | None = None) -> str:
    """Return what the planned test messages and seeds can show, as a line to print.

    Args:
        params: The experiment.
        messages: Test messages.
        groups: How many groups they are in, where the data has groups.
    """
    # Here and not in a stage, for what a stage imports can change what it writes.
    from lora_compare.evaluation.planning import describe_power

    return describe_power(messages, params, groups)


def _sizes(paths: "Paths") -> dict[str, int]:
    """Return the messages of each split that was made last, of data that is not here to count."""
    from lora_compare.project.files import read_json

    metrics = paths.metrics("split")
    splits = read_json(metrics).get("splits", {}) if metrics.is_file() else {}
    return {name: part["n"] for name, part in splits.items()}


def _steps(sizes: Mapping[str, int], params: "Params") -> dict[str, int]:
    """Return the most optimizer steps of every method that is trained; none of unknown data."""
    if "train" not in sizes:
        return {}
    steps = params.training.epochs * params.training.steps_per_epoch(sizes["train"])
    return {m: steps for m, method in params.methods.items() if method.trainable != "imported"}


def _all_steps(
    params: "Params", trainings: dict[str, dict[str, int]], steps: dict[str, int]
) -> int:
    """Return the most optimizer steps of all trainings together."""
    epochs = params.training.epochs
    tuning = params.tuning.epochs or epochs
    return sum(
        count // epochs * (trainings[m]["compare"] * epochs + trainings[m]["tune"] * tuning)
        for m, count in steps.items()
    )


def _require_fit(output: Output, paths: "Paths", params: "Params", several: bool) -> None:
    """Refuse a model of transformers that does not fit the data, and adapters that do not fit it.

    They are looked at if its config.json is here.
    """
    if params.model.kind == "gpt":
        return
    from lora_compare.models.hub.shape import shape_at_hand
    from lora_compare.models.methods import architecture
    from lora_compare.params import MAX_CLASSES, require_fit

    with output.working(f"look at {params.model.name}"):
        model = shape_at_hand(params.model, paths.root, several)
    if model is not None:
        require_fit(params, MAX_CLASSES, architecture(model))


def _require_written(paths: "Paths", params: "Params") -> None:
    """Refuse parameters without a setting that has a default, but not for DVC."""
    from lora_compare.project.lineage import Pipeline

    left_out = Pipeline(paths, params).defaults()
    if left_out:
        lines = "\n".join(f"{key}: {json.dumps(value)}" for key, value in left_out.items())
        raise ParamsError(
            "DVC looks in params.yaml for settings that are not there: it knows no defaults.",
            where="params.yaml",
            expected=lines,
            actual="dvc repro would stop at the first stage that depends on one",
            next="write them into params.yaml, with these values to change nothing",
        )


def _require_here(paths: "Paths", params: "Params") -> None:
    """Refuse parameters that name what is not here, all of it at once."""
    missing = list(_missing(paths, params))
    if len(missing) > 1:
        raise ParamsError(
            f"params.yaml names {len(missing)} things that are not here.",
            where="\n".join(f"{e.where}: {e.what} {e.actual}" for e in missing),
            next="\n".join(e.next for e in missing),
        )
    if missing:
        raise missing[0]


def _missing(paths: "Paths", params: "Params") -> Iterator[UserError]:
    from lora_compare.data.places import require_source
    from lora_compare.project.files import is_file

    try:
        require_source(params.data, paths)
    except UserError as error:
        yield error
    for name, method in params.methods.items():
        if method.adapter and not is_file(paths.root / method.adapter / "model.safetensors"):
            yield ParamsError(
                "The imported adapter is not here.",
                where=f"params.yaml: methods.{name}.adapter",
                expected="what lora-compare import wrote",
                actual=f"no {method.adapter}/model.safetensors",
                next="dvc pull, or import it again",
            )
    if params.training.device not in ("auto", "cpu"):  # else torch would take its seconds
        from lora_compare.compute.device import choose_device

        try:
            choose_device(params.training.device)
        except UserError as error:
            yield error


@command("import")
@click.argument("folder", metavar="PATH", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the new method.")
@click.option(
    "--classes",
    help="The classes in the order of the adapter's head, such as spam,ham; else as its id2label "
    "says, else in the data's order. The import prints which.",
)
def import_(output: Output, folder: Path, name: str, classes: str | None) -> None:
    """Add an adapter that PEFT trained on the base model to the comparison, as a method.

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
        imported, head = import_adapter(
            paths, params, load_base(paths.base), mine, folder, name, rows
        )
    adapter = paths.adapter(name)
    output.record(
        {
            "method": name,
            "adapter": str(adapter),
            "trainable_parameters": imported.trainable,
            "classes": head.classes,
            "classes_from": head.origin,
        }
    )
    output.say(
        f"{name} is a method of params.yaml now: {imported.trainable:,} trained parameters;\n"
        f"{head}.\n"
        "Is a row another class? Then remove the method and import it with --classes.\n"
        "To compare it: dvc repro\n"
        f"To keep it with the project: dvc add {adapter.relative_to(paths.root)}"
    )
