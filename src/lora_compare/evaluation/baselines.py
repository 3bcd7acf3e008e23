"""TF-IDF and logistic regression: what a fine-tuned model has to beat."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from lora_compare.evaluation.tfidf import CONFIG_FILE, TENSORS_FILE, VOCABULARY_FILE
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


def candidates(train_texts: Sequence[str]) -> dict[str, Pipeline]:
    """Return the baselines, not yet fitted, that find a feature in `train_texts`.

    A word is two letters, digits or underscores: texts of single digits, of signs or of one
    character have none, and scikit-learn fits no model to them. Characters any text has.
    """
    made = {name: make() for name, make in CANDIDATES.items()}
    analyzers = {name: model[0].build_analyzer() for name, model in made.items()}
    return {name: made[name] for name in made if any(map(analyzers[name], train_texts))}


def fit_tfidf(
    train_texts: Sequence[str],
    train_labels: Sequence[int],
    validation_texts: Sequence[str],
    validation_labels: Sequence[int],
) -> tuple[str, Pipeline]:
    """Return the name and the fitted model of the candidate that does best on validation.

    Args:
        train_texts: Texts to fit on.
        train_labels: Their class indices.
        validation_texts: Texts to choose by.
        validation_labels: Their class indices.
    """
    fitted = {
        name: fit(model, train_texts, np.asarray(train_labels))
        for name, model in candidates(train_texts).items()
    }
    truth = np.asarray(validation_labels)
    scores = {name: float(m.score(list(validation_texts), truth)) for name, m in fitted.items()}
    best = max(fitted, key=lambda name: scores[name])
    return best, fitted[best]


def fit(model: Pipeline, texts: Sequence[str], labels: npt.NDArray[np.int64]) -> Pipeline:
    """Return a candidate fitted to texts and their class indices, with COEFFICIENTS at most."""
    vectorizer, regression = model[0], model[-1]
    features = vectorizer.fit_transform(texts)
    classes = len(np.unique(labels))
    most = COEFFICIENTS // (classes if classes > 2 else 1)
    if features.shape[1] > most:
        features = vectorizer.set_params(max_features=most).fit_transform(texts)
    regression.fit(features, labels)
    return model


def count_parameters(model: Pipeline) -> int:
    """Return the number of coefficients and intercepts of a fitted model."""
    regression: LogisticRegression = model[-1]
    return int(regression.coef_.size + regression.intercept_.size)


def save_tfidf(folder: Path, model: Pipeline, classes: Sequence[str]) -> None:
    """Write a fitted baseline to `folder` and seal it.

    Args:
        folder: Where to write.
        model: One of `CANDIDATES`, fitted to class indices.
        classes: Names of the classes.
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
    write_json(folder / CONFIG_FILE, config)
    seal(folder)
