"""Try the values of a method's search, and choose among them by validation loss."""

from lora_compare.cli.stage import stage
from lora_compare.params import Params, require_fit
from lora_compare.project.paths import Paths, require
from lora_compare.project.progress import Progress


@stage("tune", per_method=True)
def main(paths: Paths, params: Params, progress: Progress, method: str) -> None:
    """Write what was chosen and every trial; without a search, that there is nothing to choose."""
    from lora_compare.training.tuning.trials import NOT_SEARCHED, write_choice

    if params.method(method).search is None:
        write_choice(paths.tuning(method), NOT_SEARCHED)
        progress.say(f"{method}: no search, what params.yaml says is taken")
        return
    from lora_compare.compute.device import choose_machine
    from lora_compare.models.base import read_description
    from lora_compare.models.methods import architecture_of
    from lora_compare.project.corpus import read_classes
    from lora_compare.project.provenance import provenance
    from lora_compare.training.finished import Shared, clear
    from lora_compare.training.tuning.choosing import choose
    from lora_compare.training.tuning.trials import Trials

    n_classes = len(read_classes(require(paths.classes, "split")))
    # Of all methods: none shall train for an hour before the next one is refused.
    network = architecture_of(paths.base)
    require_fit(params, n_classes, network)
    machine = choose_machine(params.training, read_description(paths.base)["width"])
    tokens = map(paths.tokens, ("train", "validation"))
    inputs = {"split": [paths.classes], "base_model": [*tokens, paths.base]}
    origin = provenance(paths, params, "tune", inputs, machine.describe(), method)
    shared = Shared(paths, params, "tune", method)
    trials = Trials(shared, n_classes, progress, network)
    with progress.work("train"):
        choice = choose(params.method(method), params.tuning, trials.attempt, trials.possible)
    write_choice(paths.tuning(method), choice.to_dict(), trials.tables(), origin)
    clear(shared, trials.finished)
    progress.say(f"{method}: {choice}")


if __name__ == "__main__":
    main()
