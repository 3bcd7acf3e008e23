"""Evaluate one fine-tuned method, trained with every seed, on every split."""

from collections.abc import Mapping
from typing import Any

from lora_compare.cli.stage import stage
from lora_compare.params import Params, require_kind
from lora_compare.project.paths import SPLITS, Paths, require
from lora_compare.project.progress import Progress, part_of


@stage("evaluate", per_method=True)
def main(paths: Paths, params: Params, progress: Progress, method: str) -> None:
    """Write the method's metrics, its calibration and every seed's test predictions."""
    from lora_compare.compute.seeding import make_deterministic
    from lora_compare.evaluation.answers import answer, of_all
    from lora_compare.evaluation.results import Measuring, over_seeds, pooled_calibration
    from lora_compare.models.decision import write_decision
    from lora_compare.models.methods import TENSORS_FILE
    from lora_compare.models.tokens import check_fit, read_examples
    from lora_compare.project.checksums import seal
    from lora_compare.project.corpus import GROUP, read_split
    from lora_compare.project.files import write_csv, write_json
    from lora_compare.project.provenance import EVALUATION, versions
    from lora_compare.project.seeds import read_seeds

    params.method(method)
    stage_of_model = f"finetune@{method}"
    seeds = read_seeds(require(paths.model(method), stage_of_model)).seeds
    make_deterministic(seeds[0], params.threads)
    tokens = {name: read_examples(paths.tokens(name)) for name in SPLITS}
    test = read_split(require(paths.split("test"), "split"))
    check_fit(paths.tokens("test"), tokens["test"], test)
    labels = {name: examples.labels for name, examples in tokens.items()}
    require_kind(params, several=labels["test"].ndim == 2)
    answers = {}
    total = len(seeds) * sum(map(len, tokens.values()))
    with progress.work("evaluate"), progress.task(f"evaluate {method}", total) as advance:
        for seed in seeds:
            folder = paths.trained(method, seed)
            answers[seed] = answer(
                *(folder, paths.base, stage_of_model, tokens, params.training, part_of(advance))
            )
    with progress.work("compute the figures"):
        classes = answers[seeds[0]].classes
        measuring = Measuring(labels, test["Text"], classes, params, test.get(GROUP, ()))
        balanced = params.training.class_weights == "balanced"
        results = {
            seed: measuring.measure(
                own.chances, measuring.decide(own.chances, balanced), own.targets
            )
            for seed, own in answers.items()
        }
        decided = [results[seed].decided(own.chances) for seed, own in answers.items()]
        calibration = pooled_calibration(decided, labels)
        right = [result.right for result in results.values()]
        metrics = {**over_seeds(results), **of_all(list(answers.values()), right)}
    write_json(paths.metrics(method), metrics)
    more = {"calibration": calibration, "versions": versions(*EVALUATION)}
    write_json(paths.evaluation(method), {**metrics, **more})
    for seed, result in results.items():
        write_csv(paths.predictions(method, seed), result.predictions)
        if params.decides:
            weights = paths.trained(method, seed) / TENSORS_FILE
            write_decision(paths.decision(method, seed), result.decision, classes, weights)
    seal(paths.evaluated(method))
    say(progress, method, metrics)


def say(progress: Progress, method: str, metrics: Mapping[str, Any]) -> None:
    """Print the accuracy with its spread, and name the seeds that have collapsed."""
    test = metrics["test"]
    spread = f" ± {test['accuracy_sd']:.2%} between seeds" if "accuracy_sd" in test else ""
    progress.say(f"{method}: test accuracy {test['accuracy']:.2%}{spread}")
    for seed in metrics.get("collapsed", ()):
        accuracy = metrics["per_seed"][str(seed)]["train"]["accuracy"]
        progress.say(
            f"{method}: seed {seed} has collapsed, with {accuracy:.1%} of train right; "
            "it counts like the others"
        )


if __name__ == "__main__":
    main()
