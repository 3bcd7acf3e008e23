"""Evaluate one fine-tuned method, trained with every seed, on every split."""

from collections.abc import Mapping
from typing import Any

from lora_compare.cli.stage import stage
from lora_compare.params import Params
from lora_compare.project.paths import Paths, require
from lora_compare.project.progress import Progress, part_of


@stage("evaluate", per_method=True)
def main(paths: Paths, params: Params, progress: Progress, method: str) -> None:
    """Write the method's metrics, its calibration and every seed's test predictions."""
    from lora_compare.compute.seeding import make_deterministic
    from lora_compare.evaluation.answers import answer, of_all
    from lora_compare.evaluation.folds import read_fold
    from lora_compare.evaluation.results import measure_all, pooled_calibration
    from lora_compare.project.checksums import seal
    from lora_compare.project.files import write_csv, write_json
    from lora_compare.project.provenance import EVALUATION, versions
    from lora_compare.project.seeds import read_seeds

    params.method(method)
    stage_of_model = f"finetune@{method}"
    seeds = read_seeds(require(paths.model(method), stage_of_model))
    folds = {seed: seeds.fold(seed) for seed in seeds.seeds}
    make_deterministic(seeds.seeds[0], params.threads)
    there = {fold: read_fold(paths, fold, ("test",)) for fold in dict.fromkeys(folds.values())}
    of_seeds = {seed: there[fold] for seed, fold in folds.items()}
    total = sum(len(part) for own in of_seeds.values() for part in own.tokens.values())
    with progress.work("evaluate"), progress.task(f"evaluate {method}", total) as advance:
        answers = {
            seed: answer(
                *(paths.trained(method, seed), paths.base_of(own.number), stage_of_model),
                *(own.tokens, params.training, part_of(advance)),
            )
            for seed, own in of_seeds.items()
        }
    with progress.work("compute the figures"):
        chances = {seed: own.chances for seed, own in answers.items()}
        labels = {seed: own.labels for seed, own in of_seeds.items()}
        results, figures = measure_all(
            *(chances, labels, {seed: own.splits["test"] for seed, own in of_seeds.items()}),
            *(answers[seeds.chosen].classes, params.classifier.positive, params.data.prior),
            seeds.in_folds,
        )
        calibration = pooled_calibration([*chances.values()], [*labels.values()])
        metrics = {**figures, **of_all([*answers.values()], seeds.in_folds)}
    write_json(paths.metrics(method), metrics)
    more = {"calibration": calibration, "versions": versions(*EVALUATION)}
    write_json(paths.evaluation(method), {**metrics, **more})
    for seed, result in results.items():
        write_csv(paths.predictions(method, seed), result.predictions)
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
