"""TF-IDF and logistic regression: what a fine-tuned model has to beat."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from lora_compare.evaluation.labels.baseline import OneVsRest
from lora_compare.evaluation.tfidf import CONFIG_FILE, TENSORS_FILE, VOCABULARY_FILE
from lora_compare.models.answers.targets import ONE_CLASS, Targets, are_right, targets_of
from lora_compare.project.checksums import seal
from lora_compare.project.files import write_bytes, write_json


def word_model() -> Pipeline:
    """Return words weighted by TF-IDF under a logistic regression, scikit-learn's defaults."""
    return make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))


def character_model() -> Pipeline:
    """Return runs of 2 to 5 characters within words, and a weaker penalty (C = 10).

    Runs of characters survive the spelling of short messages.
    """
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5))
    return make_pipeline(vectorizer, LogisticRegression(C=10, max_iter=1000))


CANDIDATES: dict[str, Callable[[], Pipeline]] = {
    "words": word_model,
    "characters": character_model,
}
"""The baselines, in the order of preference where the validation split cannot tell."""


COEFFICIENTS = 2**23
"""Most coefficients of a baseline, of whose bytes fitting holds some 30 times as many: of more
terms the commonest are kept, which happens with hundreds of classes."""


def candidates(train_texts: Sequence[str], several: bool = False) -> dict[str, Pipeline]:
    """Return the baselines, not yet fitted, that find a feature in `train_texts`.

    Where a message may have several labels, each label has a regression of its own.

    A word is two letters, digits or underscores: texts of single digits, of signs or of one
    character have none, and scikit-learn fits no model to them. Characters any text has.
    """
    made = {name: make() for name, make in CANDIDATES.items()}
    if several:
        made = {name: make_pipeline(one[0], OneVsRest(one[-1])) for name, one in made.items()}
    analyzers = {name: model[0].build_analyzer() for name, model in made.items()}
    return {name: made[name] for name in made if any(map(analyzers[name], train_texts))}


def fit_tfidf(
    train_texts: Sequence[str],
    train_labels: npt.ArrayLike,
    validation_texts: Sequence[str],
    validation_labels: npt.ArrayLike,
) -> tuple[str, Pipeline, Targets]:
    """Return the name and the fitted model of the candidate that is right most often on validation.

    With them comes what its probabilities stand for.

    Args:
        train_texts: Texts to fit on.
        train_labels: Their class indices, shape (n,); of several labels 0 and 1, shape (n, k).
        validation_texts: Texts to choose by.
        validation_labels: Theirs.
    """
    known, truth = np.asarray(train_labels), np.asarray(validation_labels)
    found = {}
    for name, model in candidates(train_texts, several=known.ndim == 2).items():
        chances = fit(model, train_texts, known).predict_proba(list(validation_texts))
        targets = targets_of(known).fitted(chances, truth)
        right = float(are_right(targets.answers(chances), truth).mean())
        found[name] = right, model, targets
    best = max(found, key=lambda name: found[name][0])
    return best, *found[best][1:]


def fit(model: Pipeline, texts: Sequence[str], labels: npt.NDArray[np.int64]) -> Pipeline:
    """Return a candidate fitted to texts and their labels, with COEFFICIENTS at most."""
    vectorizer, regression = model[0], model[-1]
    features = vectorizer.fit_transform(texts)
    rows = labels.shape[1] if labels.ndim == 2 else len(np.unique(labels))
    most = COEFFICIENTS // (1 if labels.ndim == 1 and rows == 2 else rows)
    if features.shape[1] > most:
        features = vectorizer.set_params(max_features=most).fit_transform(texts)
    regression.fit(features, labels)
    return model


def count_parameters(model: Pipeline) -> int:
    """Return the number of coefficients and intercepts of a fitted model."""
    regression: LogisticRegression = model[-1]
    return int(regression.coef_.size + regression.intercept_.size)


def save_tfidf(
    folder: Path, model: Pipeline, classes: Sequence[str], targets: Targets = ONE_CLASS
) -> None:
    """Write a fitted baseline to `folder` and seal it.

    Args:
        folder: Where to write.
        model: One of `candidates`, fitted.
        classes: Names of the classes.
        targets: What its probabilities stand for.
    """
    vectorizer, regression = model[0], model[1]
    arrays = {
        "idf": vectorizer.idf_,
        "coefficients": regression.coef_,
        "intercepts": regression.intercept_,
    }
    contiguous = {name: np.ascontiguousarray(a, np.float64) for name, a in arrays.items()}
    write_bytes(folder / TENSORS_FILE, save(contiguous))
    write_json(folder / VOCABULARY_FILE, vectorizer.get_feature_names_out().tolist())
    config = {
        "classes": list(classes),
        "analyzer": vectorizer.analyzer,
        "ngram_range": list(vectorizer.ngram_range),
    }
    write_json(folder / CONFIG_FILE, config | targets.settings(classes))
    seal(folder)
