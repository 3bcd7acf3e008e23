"""Fine-tune the base model by one method of params.yaml, or take over an imported adapter."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lora_compare.cli.stage import stage
from lora_compare.errors import ParamsError
from lora_compare.params import Params, require_costs, require_fit, require_positive
from lora_compare.project.paths import Paths, require
from lora_compare.project.progress import Progress

if TYPE_CHECKING:
    from lora_compare.compute.device import Machine
    from lora_compare.training.finished import Finished, Shared

Show = Callable[[Mapping[str, Any]], None]
"""What shows a row of the history while the training goes on."""


@stage("finetune", per_method=True, live=True)
def main(paths: Paths, params: Params, progress: Progress, method: str, show: Show) -> None:
    """Write what training changed with each seed, the history and the cost."""
    from lora_compare.compute.device import choose_machine
    from lora_compare.compute.seeding import make_deterministic
    from lora_compare.models.base import read_description
    from lora_compare.models.methods import architecture_of
    from lora_compare.project.corpus import read_classes
    from lora_compare.project.provenance import provenance
    from lora_compare.training.finetuning import Training
    from lora_compare.training.finished import Shared
    from lora_compare.training.imported import take_over
    from lora_compare.training.trainings import run_trainings
    from lora_compare.training.tuning.trials import chosen_method

    settings, training = chosen_method(paths, params, method), params.training
    # Of all methods: none shall train for an hour before the next one is refused.
    classes = read_classes(require(paths.classes, "split"))
    require_fit(params, len(classes), architecture_of(paths.base))
    # Now, and not after hours of training, when the stage evaluate needs it.
    require_positive(params.classifier.positive, classes)
    require_costs(params, classes)
    make_deterministic(training.seeds[0], params.threads)
    machine = choose_machine(training, read_description(paths.base)["width"])
    tokens = map(paths.tokens, ("train", "validation"))
    inputs = {"split": [paths.classes], "base_model": [*tokens, paths.base]}
    if params.method(method).search is not None:
        inputs[f"tune@{method}"] = [paths.choice(method)]
    origin = provenance(paths, params, "finetune", inputs, machine.describe(), method)
    shared = Shared(paths, params, "finetune", method)
    with naming(method), progress.work("train"):
        if settings.adapter is not None:
            finished = [take_over(shared, machine, show)]
        else:
            trainings = [
                Training(f"fold {fold}" if fold else f"seed {seed}", settings, seed, training, fold)
                for seed, fold in params.trained.items()
            ]
            finished = run_trainings(shared, trainings, progress, show)
    write(shared, finished, origin, machine, progress)


def write(
    shared: "Shared",
    finished: "list[Finished]",
    origin: dict[str, Any],
    machine: "Machine",
    progress: Progress,
) -> None:
    """Write the stage's outputs from its trainings, and clear away what is kept of others."""
    from lora_compare.models.latency import measure_latency
    from lora_compare.models.tokens import read_examples
    from lora_compare.project.checksums import seal
    from lora_compare.project.files import write_csv, write_json
    from lora_compare.project.provenance import ENVIRONMENT
    from lora_compare.training.finished import clear, mean_cost, publish
    from lora_compare.training.history import columns

    paths, method = shared.paths, shared.method
    seeds = publish(shared, finished)
    chosen = paths.trained(method, seeds.chosen)
    fold = seeds.fold(seeds.chosen)
    texts = read_examples(paths.tokens("validation"), fold)
    cost = mean_cost([one.cost for one in finished]) | measure_latency(
        chosen, paths.base, texts, machine
    )
    rows = [{"seed": one.training.seed, **row} for one in finished for row in one.history]
    write_csv(paths.history(method), columns(rows))
    write_json(paths.cost(method), cost)
    # Where it ran, for the report: in the metrics it would be a wide column of DVC's tables.
    environment = {key: origin[key] for key in ENVIRONMENT}
    write_json(paths.cost_copy(method), {**cost, "environment": environment})
    write_json(paths.training(method) / "provenance.json", origin)
    seal(paths.training(method))
    imported = shared.params.method(method).adapter is not None
    clear(shared, [] if imported else finished)
    said = f"{len(seeds.seeds)} trained, {cost['train_seconds']:.1f} s each"
    loss = seeds.validation_loss[seeds.chosen]
    progress.say(
        f"{method}: {'imported, nothing to train' if imported else said}; "
        f"{f'fold {fold}' if fold else f'seed {seeds.chosen}'} is used, validation loss {loss:.4f}"
    )


@contextmanager
def naming(method: str) -> Iterator[None]:
    """Put the method's key in params.yaml before a mistake in its adapter."""
    try:
        yield
    except ParamsError as error:
        if not error.where.startswith("params.yaml: "):  # as those of all methods do
            error.where = f"params.yaml: methods.{method}.{error.where}"
        error.next = error.next or "correct params.yaml, then dvc repro"
        raise


if __name__ == "__main__":
    main()
