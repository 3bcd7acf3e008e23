"""Measure what fine-tuning has to beat: the untuned classifier and TF-IDF."""

import importlib
import pickle
from threading import Thread

from lora_compare.cli.stage import stage
from lora_compare.params import Params, require_kind
from lora_compare.project.paths import SPLITS, TFIDF, Paths, require
from lora_compare.project.progress import Progress


@stage("baseline")
def main(paths: Paths, params: Params, progress: Progress) -> None:
    """Write metrics/baseline.json, both baselines' test predictions, and TF-IDF as a model."""
    from lora_compare.compute.device import choose_machine
    from lora_compare.compute.seeding import make_deterministic
    from lora_compare.evaluation.results import Measuring, decided, size_figures
    from lora_compare.models.base import load_base
    from lora_compare.models.classifier import start
    from lora_compare.models.decision import write_decision
    from lora_compare.models.tokens import check_fit, read_examples
    from lora_compare.project.checksums import seal
    from lora_compare.project.corpus import GROUP, read_classes, read_split
    from lora_compare.project.files import write_csv, write_json

    seed = params.training.seeds[0]
    make_deterministic(seed, params.threads)
    # scikit-learn takes a second to import: meanwhile the model computes.
    Thread(target=importlib.import_module, args=("sklearn.linear_model",)).start()
    base = load_base(paths.base)
    machine = choose_machine(params.training, base.width)
    classes = read_classes(require(paths.classes, "split"))
    splits = {name: read_split(require(paths.split(name), "split")) for name in SPLITS}
    tokens = {name: read_examples(paths.tokens(name)) for name in SPLITS}
    for name in SPLITS:
        check_fit(paths.tokens(name), tokens[name], splits[name])
    texts = {name: split["Text"] for name, split in splits.items()}
    labels = {name: examples.labels for name, examples in tokens.items()}
    several = labels["train"].ndim == 2
    require_kind(params, several)
    groups = splits["test"].get(GROUP, ())
    measuring = Measuring(labels, texts["test"], classes, params, groups)

    with progress.work("evaluate the untuned classifier"):
        untuned = start(base, classes, tokens["train"], params.classifier, params.training, seed)
        untuned.model.to(machine.device)
        total = sum(p.numel() for p in untuned.model.parameters())
        chances = {name: untuned.chances(tokens[name], progress, machine.dtype) for name in SPLITS}
        targets = untuned.targets.fitted(chances["validation"], labels["validation"])
        untuned_results = measuring.measure(chances, targets=targets)

    from lora_compare.evaluation.baselines import count_parameters, fit_tfidf, save_tfidf
    from lora_compare.evaluation.noise import out_of_sample, write_out_of_sample
    from lora_compare.evaluation.tfidf import TENSORS_FILE

    progress.say("fit TF-IDF and logistic regression")
    with progress.work("fit and evaluate TF-IDF"):
        name, tfidf, targets = fit_tfidf(
            *(texts["train"], labels["train"]), *(texts["validation"], labels["validation"])
        )
        chances = {name: tfidf.predict_proba(texts[name]) for name in SPLITS}
        tfidf_results = measuring.measure(chances, measuring.decide(chances), targets)
        coefficients = count_parameters(tfidf)
        # Confident learning is of one class a message.
        unseen = None if several else out_of_sample(name, texts["train"], labels["train"], seed)
        write_out_of_sample(paths.out_of_sample, unseen)

    metrics = {
        "untuned": {**untuned_results.figures, **size_figures(0, total, 0)},
        "tfidf": {
            "features": name,
            **tfidf_results.figures,
            **decided({None: tfidf_results}),
            **size_figures(coefficients, coefficients, len(pickle.dumps(tfidf))),
        },
    }
    save_tfidf(paths.model(TFIDF), tfidf, classes, targets)
    if params.decides:
        fitted = paths.model(TFIDF) / TENSORS_FILE
        write_decision(paths.decision(TFIDF), tfidf_results.decision, classes, fitted)
    write_json(paths.metrics("baseline"), metrics)
    for kind, results in {"untuned": untuned_results, "tfidf": tfidf_results}.items():
        write_csv(paths.predictions(kind), results.predictions)
        seal(paths.evaluated(kind), beside=paths.metrics("baseline"))
        progress.say(f"{kind}: test accuracy {results.figures['test']['accuracy']:.2%}")


if __name__ == "__main__":
    main()
