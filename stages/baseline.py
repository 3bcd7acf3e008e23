"""Measure what fine-tuning has to beat: the untuned classifier and TF-IDF."""

import importlib
import pickle
from collections.abc import Mapping
from threading import Thread
from typing import TYPE_CHECKING, Any

from lora_compare.cli.stage import stage
from lora_compare.params import Params, require_kind
from lora_compare.project.paths import SPLITS, TFIDF, Paths, require
from lora_compare.project.progress import Progress

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from lora_compare.evaluation.measuring import Classified, Fold
    from lora_compare.evaluation.results import Results
    from lora_compare.models.answers.targets import Targets

    Folds = Mapping[int, Fold]
    """What the baselines of each fold learn from and are measured on, by the fold's seed."""


@stage("baseline")
def main(paths: Paths, params: Params, progress: Progress) -> None:
    """Write metrics/baseline.json, both baselines' test predictions, and TF-IDF as a model."""
    from lora_compare.compute.seeding import make_deterministic
    from lora_compare.evaluation.measuring import read_fold
    from lora_compare.evaluation.results import size_figures
    from lora_compare.models.answers.decision import write_decision
    from lora_compare.project.checksums import seal
    from lora_compare.project.corpus import read_classes
    from lora_compare.project.files import write_csv, write_json

    make_deterministic(params.training.seeds[0], params.threads)
    # scikit-learn takes a second to import: meanwhile the model computes.
    Thread(target=importlib.import_module, args=("sklearn.linear_model",)).start()
    classes = read_classes(require(paths.classes, "split"))
    # Of several seeds of one split, the first.
    trained = [*params.trained.items()][: params.split.folds]
    folds = {seed: read_fold(paths, number) for seed, number in trained}
    first = trained[0][0]
    require_kind(params, several=folds[first].labels["train"].ndim == 2)
    with progress.work("evaluate the untuned classifier"):
        said, total = evaluate_untuned(paths, params, progress, classes, folds)
        untuned, rows, _ = together(params, classes, said, decides=False)
        write_csv(paths.predictions("untuned"), rows)

    from lora_compare.evaluation.baselines import count_parameters, save_tfidf
    from lora_compare.evaluation.tfidf import TENSORS_FILE

    progress.say("fit TF-IDF and logistic regression")
    with progress.work("fit and evaluate TF-IDF"):
        fitted = {seed: fit(fold) for seed, fold in folds.items()}
        # The first fold's is the one to use, as of the methods.
        name, model, targets = fitted[first]
        coefficients = count_parameters(model)
        said = {seed: classify(fold, *fitted[seed][1:]) for seed, fold in folds.items()}
        tfidf, rows, results = together(params, classes, said)
        write_csv(paths.predictions(TFIDF), rows)
        write_unseen(paths, folds, name)
    save_tfidf(paths.model(TFIDF), model, classes, targets)
    if params.decides:
        weights = paths.model(TFIDF) / TENSORS_FILE
        write_decision(paths.decision(TFIDF), results[first].decision, classes, weights)
    size = size_figures(coefficients, coefficients, len(pickle.dumps(model)))
    metrics = {
        "untuned": {**untuned, **size_figures(0, total, 0)},
        TFIDF: {"features": name, **tfidf, **size},
    }
    write_json(paths.metrics("baseline"), metrics)
    for kind, figures in metrics.items():
        seal(paths.evaluated(kind), beside=paths.metrics("baseline"))
        progress.say(f"{kind}: test accuracy {figures['test']['accuracy']:.2%}")


def evaluate_untuned(
    paths: Paths, params: Params, progress: Progress, classes: list[str], folds: "Folds"
) -> "tuple[dict[int, Classified], int]":
    """Return what the classifier of each fold says before any training, and its parameters."""
    from lora_compare.compute.device import choose_machine
    from lora_compare.evaluation.measuring import Classified
    from lora_compare.models.base import load_base
    from lora_compare.models.classifier import start

    said: dict[int, Classified] = {}
    for seed, fold in folds.items():
        base = load_base(paths.base_of(fold.number))
        machine = choose_machine(params.training, base.width)
        settings = params.classifier, params.training, seed
        untuned = start(base, classes, fold.tokens["train"], *settings)
        untuned.model.to(machine.device)
        chances = {
            name: untuned.chances(fold.tokens[name], progress, machine.dtype) for name in SPLITS
        }
        targets = untuned.targets.fitted(chances["validation"], fold.labels["validation"])
        said[seed] = Classified(chances, fold.labels, fold.splits["test"], targets)
    return said, sum(p.numel() for p in untuned.model.parameters())


def fit(fold: "Fold") -> "tuple[str, Pipeline, Targets]":
    """Return TF-IDF fitted to a fold's training messages: its features, and what it answers."""
    from lora_compare.evaluation.baselines import fit_tfidf

    train, validation = ((fold.texts[part], fold.labels[part]) for part in ("train", "validation"))
    return fit_tfidf(*train, *validation)


def classify(fold: "Fold", model: "Pipeline", targets: "Targets") -> "Classified":
    """Return what TF-IDF says of a fold's messages."""
    from lora_compare.evaluation.measuring import Classified

    chances = {part: model.predict_proba(fold.texts[part]) for part in SPLITS}
    return Classified(chances, fold.labels, fold.splits["test"], targets)


def together(
    params: Params, classes: list[str], said: "Mapping[int, Classified]", decides: bool = True
) -> "tuple[dict[str, Any], dict[str, list[Any]], dict[int, Results]]":
    """Return a baseline's figures of every split, its predictions, of all folds, and each one's."""
    from lora_compare.evaluation.measuring import measure_all

    results, figures = measure_all(said, classes, params, len(said) > 1, decides)
    tables = [one.predictions for one in results.values()]
    rows = {key: [value for table in tables for value in table[key]] for key in tables[0]}
    kept = (*SPLITS, "decision", "before")
    return {name: figures[name] for name in kept if name in figures}, rows, results


def write_unseen(paths: Paths, folds: "Folds", features: str) -> None:
    """Write what TF-IDF makes of training messages that it has not seen.

    Of folds nothing: each tests messages that the others train on.
    """
    from lora_compare.evaluation.noise import out_of_sample, write_out_of_sample
    from lora_compare.project.corpus import GROUP

    chances = None
    ((seed, fold), *others) = folds.items()
    # Confident learning is of one class a message.
    if not others and fold.labels["train"].ndim == 1:
        train = fold.splits["train"]
        known = train["Text"], train["Label"], seed, train.get(GROUP, ())
        chances = out_of_sample(features, *known)
    write_out_of_sample(paths.out_of_sample, chances)


if __name__ == "__main__":
    main()
