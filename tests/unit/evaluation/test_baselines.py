"""TF-IDF gives figures for any text, whatever scikit-learn takes for a word."""

import pickle

import numpy as np
import pytest

from lora_compare.evaluation import baselines
from lora_compare.evaluation.baselines import fit_tfidf

SAME = ["ok"] * 20
TEXTS = {
    "digits": (["1 2 3 4", "2 1"] * 10, ["7 8 9", "9 6"] * 10),
    "emoji": (["😀 😃", "😁"] * 10, ["😢 😭", "😔"] * 10),
    "one character": (["山", "川"] * 10, ["a", "b"] * 10),
    "no spaces": (["山川田日月木", "川日山"] * 10, ["人口手目足心", "口心目"] * 10),
    "signs": (["?!", "..."] * 10, ["---", "%"] * 10),
    "equal in a class": (SAME, [f"message {i} of many" for i in range(20)]),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_any_text_has_a_baseline(kind: str) -> None:
    first, second = TEXTS[kind]
    texts, labels = [*first, *second], [0] * len(first) + [1] * len(second)
    name, model, _ = fit_tfidf(texts, labels, texts, labels)
    assert name == ("characters" if kind not in ("no spaces", "equal in a class") else "words")
    probabilities = model.predict_proba([*texts, "never seen", "\N{SNOWMAN}"])
    assert probabilities.shape == (len(texts) + 2, 2)
    assert np.isfinite(probabilities).all()
    assert model.score(texts, labels) == 1


def test_a_fit_is_that_of_the_whole_pipeline() -> None:
    texts, labels = [*TEXTS["digits"][0], *TEXTS["emoji"][0]], np.arange(40) // 20
    own = baselines.fit(baselines.character_model(), texts, labels)
    assert pickle.dumps(own) == pickle.dumps(baselines.character_model().fit(texts, labels))


def test_of_too_many_terms_the_commonest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"common {kind} word{i}" for kind in ("one", "two", "three") for i in range(20)]
    labels = np.arange(60) // 20
    monkeypatch.setattr(baselines, "COEFFICIENTS", 12)
    model = baselines.fit(baselines.word_model(), texts, labels)
    assert model[-1].coef_.shape == (3, 4)
    assert {"common", "one", "two", "three"} == set(model[0].get_feature_names_out())
    assert model.score(texts, labels) == 1
