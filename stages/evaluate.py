"""Evaluate one fine-tuned method on every split."""

from lora_compare.cli.stage import stage
from lora_compare.params import Params
from lora_compare.project.paths import SPLITS, Paths, require
from lora_compare.project.progress import Progress


@stage("evaluate", per_method=True)
def main(paths: Paths, params: Params, progress: Progress, method: str) -> None:
    """Write the method's metrics, its calibration and its test predictions."""
    from lora_compare import lora
    from lora_compare.compute.device import choose_machine
    from lora_compare.compute.seeding import make_deterministic
    from lora_compare.evaluation.merging import merge_error
    from lora_compare.evaluation.results import measure, size_figures
    from lora_compare.models.base import load_base
    from lora_compare.models.methods import load_method
    from lora_compare.models.tokens import check_fit, read_examples
    from lora_compare.project.checksums import seal
    from lora_compare.project.corpus import read_split
    from lora_compare.project.files import read_json, write_csv, write_json
    from lora_compare.project.provenance import EVALUATION, versions

    params.method(method)
    make_deterministic(params.training.seed, params.threads)
    folder = paths.model(method)
    classifier = load_method(folder, load_base(paths.base), f"finetune@{method}")
    machine = choose_machine(params.training, classifier.model.gpt.config.n_embd)
    classifier.model.to(machine.device)
    tokens = {name: read_examples(paths.tokens(name)) for name in SPLITS}
    test = read_split(require(paths.split("test"), "split"))
    check_fit(paths.tokens("test"), tokens["test"], test)

    error = None
    if lora.active_adapter(classifier.model) is not None:
        with progress.work("measure the error of merging"):
            error = merge_error(classifier, tokens["validation"])
    with progress.work("evaluate"):
        chances = {
            name: classifier.chances(tokens[name], progress, machine.dtype) for name in SPLITS
        }
    labels = {name: examples.labels for name, examples in tokens.items()}
    with progress.work("compute the figures"):
        results = measure(chances, labels, test["Text"], classifier.classes)

    config = read_json(folder / "config.json")
    sizes = size_figures(
        config["trainable_parameters"],
        config["total_parameters"],
        (folder / "model.safetensors").stat().st_size,
    )
    truncated = {name: classifier.fit(tokens[name])[1] for name in SPLITS}
    metrics = {**results.figures, **sizes, "truncated": truncated}
    if error:
        metrics["merge_error"] = error
    write_json(paths.metrics(method), metrics)
    more = {"calibration": results.calibration, "versions": versions(*EVALUATION)}
    write_json(paths.evaluation(method), {**metrics, **more})
    write_csv(paths.predictions(method), results.predictions)
    seal(paths.evaluated(method))
    progress.say(f"{method}: test accuracy {metrics['test']['accuracy']:.2%}")


if __name__ == "__main__":
    main()
