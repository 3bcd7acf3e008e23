"""Evaluate one fine-tuned method on every split."""

from functools import partial

from lora_compare import lora
from lora_compare.adapters import load_method
from lora_compare.base import load_base
from lora_compare.console import stage
from lora_compare.corpus import read_split
from lora_compare.evaluation import merge_error
from lora_compare.files import read_json, write_csv, write_json
from lora_compare.params import Params
from lora_compare.paths import SPLITS, Paths, require
from lora_compare.precision import choose_precision
from lora_compare.progress import Progress
from lora_compare.results import measure, size_figures
from lora_compare.seeding import choose_device, make_deterministic


@stage("evaluate", per_method=True)
def main(paths: Paths, params: Params, progress: Progress, method: str) -> None:
    """Write the method's metrics, its calibration and its test predictions."""
    params.method(method)
    make_deterministic(params.training.seed, params.threads)
    folder = paths.model(method)
    classifier = load_method(folder, load_base(paths.base), f"finetune@{method}")
    device = choose_device(params.training.device)
    classifier.model.to(device)
    splits = {name: read_split(require(paths.split(name), "split")) for name in SPLITS}

    adapted = lora.active_adapter(classifier.model) is not None
    error = merge_error(classifier, splits["validation"]["Text"].tolist()) if adapted else None
    dtype = choose_precision(params.training.precision, device)
    predict = partial(classifier.probabilities, progress=progress, dtype=dtype)
    results = measure(predict, splits, classifier.classes)

    config = read_json(folder / "config.json")
    sizes = size_figures(
        config["trainable_parameters"],
        config["total_parameters"],
        (folder / "model.safetensors").stat().st_size,
    )
    metrics = {**results.figures, **sizes}
    if error:
        metrics["merge_error"] = error
    write_json(paths.metrics(method), metrics)
    write_json(paths.evaluation(method), {**metrics, "calibration": results.calibration})
    write_csv(paths.predictions(method), results.predictions)
    progress.say(f"{method}: test accuracy {metrics['test']['accuracy']:.2%}")


if __name__ == "__main__":
    main()
