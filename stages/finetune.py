"""Fine-tune the base model by one method of params.yaml, or take over an imported adapter."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lora_compare.cli.stage import stage
from lora_compare.errors import ParamsError
from lora_compare.params import Params, require_fit
from lora_compare.project.paths import Paths, require
from lora_compare.project.progress import Progress

Show = Callable[[Mapping[str, Any]], None]
"""What shows a row of the history while the training goes on."""


@stage("finetune", per_method=True, live=True)
def main(paths: Paths, params: Params, progress: Progress, method: str, show: Show) -> None:
    """Write what training changed, its history and its cost."""
    from lora_compare import lora
    from lora_compare.compute.device import choose_machine, keep_freed_memory
    from lora_compare.compute.seeding import make_deterministic
    from lora_compare.models.base import load_base
    from lora_compare.models.methods import Trained, save_method
    from lora_compare.models.tokens import read_examples
    from lora_compare.project.checksums import seal
    from lora_compare.project.corpus import read_classes
    from lora_compare.project.files import write_csv, write_json
    from lora_compare.project.interruption import deferred
    from lora_compare.project.provenance import ENVIRONMENT, provenance
    from lora_compare.training.finetuning import finetune
    from lora_compare.training.history import Evaluation, Reporting, columns
    from lora_compare.training.imported import adopt
    from lora_compare.training.meters import cost_figures

    settings = params.method(method)
    training = params.training
    make_deterministic(training.seed, params.threads)
    keep_freed_memory()
    base = load_base(paths.base)
    machine = choose_machine(training, base.gpt.config.n_embd)
    classes = read_classes(require(paths.classes, "split"))
    # Of all methods: none shall train for an hour before the next one is refused.
    require_fit(params, len(classes))
    splits = {name: read_examples(paths.tokens(name)) for name in ("train", "validation")}
    inputs = {"split": [paths.classes], "base_model": [*map(paths.tokens, splits), paths.base]}
    origin = provenance(paths, params, "finetune", inputs, machine.describe(), method)

    def report(row: Evaluation) -> None:
        show(row.to_dict())

    reporting = Reporting(progress, f"finetune {method}", report, paths.checkpoint(method))
    with naming(method), progress.work("train"), deferred():
        if settings.adapter is not None:
            folder = paths.root / settings.adapter
            classifier, result, trained, count = adopt(
                folder, settings, base, classes, splits, training, machine.device, report
            )
        else:
            classifier, result = finetune(
                base, classes, splits, params.classifier, training, settings, machine, reporting
            )
            trained, count = Trained.of(settings), lora.count(classifier.model)

    effort = result.seconds, result.examples, result.tokens
    cost = cost_figures(*effort, machine, result.steps, result.state)
    save_method(paths.model(method), classifier, trained, training.seed, base, count)
    write_csv(paths.history(method), columns(result.history))
    write_json(paths.cost(method), cost)
    # Where it ran, for the report: in the metrics it would be a wide column of DVC's tables.
    environment = {key: origin[key] for key in ENVIRONMENT}
    write_json(paths.cost_copy(method), {**cost, "environment": environment})
    write_json(paths.training(method) / "provenance.json", origin)
    seal(paths.training(method))
    paths.checkpoint(method).unlink(missing_ok=True)
    done = f"trained {result.examples} examples in {result.seconds:.1f} s"
    progress.say(f"{method}: {done if result.examples else 'imported, nothing to train'}")


@contextmanager
def naming(method: str) -> Iterator[None]:
    """Put the method's key in params.yaml before a mistake in its adapter."""
    try:
        yield
    except ParamsError as error:
        error.where = f"params.yaml: methods.{method}.{error.where}"
        error.next = error.next or "correct params.yaml, then dvc repro"
        raise


if __name__ == "__main__":
    main()
