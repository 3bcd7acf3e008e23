"""Evaluate one fine-tuned method, trained with every seed, on every split."""

from collections.abc import Mapping
from typing import Any

from lora_compare.cli.stage import stage
from lora_compare.params import Params, require_kind
from lora_compare.project.paths import Paths, require
from lora_compare.project.progress import Progress, part_of


@stage("evaluate", per_method=True)
def main(paths: Paths, params: Params, progress: Progress, method: str) -> None:
    """Write the method's metrics, its calibration and every seed's test predictions."""
    from lora_compare.compute.seeding import make_deterministic
    from lora_compare.evaluation.answers import answer, of_all
    from lora_compare.evaluation.measuring import Classified, measure_all, read_fold
    from lora_compare.evaluation.results import pooled_calibration
    from lora_compare.models.answers.decision import write_decision
    from lora_compare.models.methods import TENSORS_FILE
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
    require_kind(params, several=of_seeds[seeds.chosen].labels["test"].ndim == 2)
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
        classes = answers[seeds.chosen].classes
        said = {
            seed: Classified(own.chances, part.labels, part.splits["test"], own.targets)
            for (seed, own), part in zip(answers.items(), of_seeds.values(), strict=True)
        }
        balanced = params.training.class_weights == "balanced"
        results, figures = measure_all(said, classes, params, seeds.in_folds, balanced=balanced)
        decided = [results[seed].decided(own.chances) for seed, own in answers.items()]
        calibration = pooled_calibration(decided, [own.labels for own in said.values()])
        right = [result.right for result in results.values()]
        metrics = {**figures, **of_all([*answers.values()], right, seeds.in_folds)}
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
