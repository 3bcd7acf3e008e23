"""Evaluate one fine-tuned method, with every seed, on every split."""

from typing import Any

from lora_compare.cli.stage import stage
from lora_compare.params import Params
from lora_compare.project.paths import SPLITS, Paths, require
from lora_compare.project.progress import Progress


@stage("evaluate", per_method=True)
def main(paths: Paths, params: Params, progress: Progress, method: str) -> None:
    """Write the method's metrics, its calibration and each seed's test predictions."""
    from lora_compare.evaluation.results import measure, over_seeds, pooled_calibration
    from lora_compare.models.methods import read_seeds
    from lora_compare.models.tokens import check_fit, read_examples
    from lora_compare.project.checksums import seal
    from lora_compare.project.corpus import read_classes, read_split
    from lora_compare.project.files import write_csv, write_json
    from lora_compare.project.provenance import EVALUATION, versions

    params.method(method)
    seeds = read_seeds(require(paths.model(method), f"finetune@{method}"))
    tokens = {name: read_examples(paths.tokens(name)) for name in SPLITS}
    test = read_split(require(paths.split("test"), "split"))
    check_fit(paths.tokens("test"), tokens["test"], test)
    labels = {name: examples.labels for name, examples in tokens.items()}
    classes = read_classes(paths.classes)

    answers = {s: answer(paths, params, progress, method, s, tokens) for s in seeds.seeds}
    chances = {seed: own for seed, (own, _) in answers.items()}
    with progress.work("compute the figures"):
        results = {s: measure(c, labels, test["Text"], classes) for s, c in chances.items()}
        figures = over_seeds(results)
    metrics = {**figures, **common([facts for _, facts in answers.values()])}
    write_json(paths.metrics(method), metrics)
    calibration = pooled_calibration(list(chances.values()), labels)
    more = {"calibration": calibration, "versions": versions(*EVALUATION)}
    write_json(paths.evaluation(method), {**metrics, **more})
    for seed, result in results.items():
        write_csv(paths.predictions(method, seed), result.predictions)
    seal(paths.evaluated(method))
    say(progress, method, figures)
