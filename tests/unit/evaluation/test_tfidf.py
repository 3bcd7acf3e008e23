"""The stored TF-IDF answers what scikit-learn's own answers, and its files are checked."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from lora_compare.errors import IntegrityError, MissingArtifactError
from lora_compare.evaluation.baselines import CANDIDATES, save_tfidf
from lora_compare.evaluation.tfidf import load_tfidf

DICE = Random(3)
PIECES = [
    *("a", "of", "prize", "PRIZE", "naïve", "ÜBER", "İstanbul", "ß", "x_1", "can't", "e-mail"),
    *("£5", "😀", "👩\u200d👩\u200d👧", "山川", "क्षि", "\u0645\u06cc\u200c\u062e"),
    *("\u00a0", "\t", "\n", "  ", "...", "?!"),
]
UNSEEN = ["never seen before", "\N{SNOWMAN}", "", "   ", "q", "\x00", "a\u2028b", "x" * 5000]


def texts(count: int) -> list[str]:
    return [DICE.choice(["", " "]).join(DICE.choices(PIECES, k=9)) for _ in range(count)]


def fitted(candidate: str, n_classes: int) -> Pipeline:
    labels = [i % n_classes for i in range(60)]
    seen = [f"{text} class{label}" for text, label in zip(texts(60), labels, strict=True)]
    return CANDIDATES[candidate]().fit(seen, np.asarray(labels))


@pytest.mark.parametrize("n_classes", [2, 3, 12])
@pytest.mark.parametrize("candidate", CANDIDATES)
def test_probabilities_are_scikit_learns(candidate: str, n_classes: int, tmp_path: Path) -> None:
    model = fitted(candidate, n_classes)
    names = [f"class {i}" for i in range(n_classes)]
    save_tfidf(tmp_path, model, names)
    classifier = load_tfidf(tmp_path)
    assert classifier.classes == names
    asked = [*texts(200), *UNSEEN]
    expected = model.predict_proba(asked)
    assert len(np.unique(expected.round(9), axis=0)) > 100
    np.testing.assert_allclose(classifier.probabilities(asked), expected, rtol=0, atol=1e-12)


def test_files_are_the_same_each_time_and_hold_no_pickle(tmp_path: Path) -> None:
    model = fitted("words", 2)
    for name in ("one", "two"):
        save_tfidf(tmp_path / name, model, ["a", "b"])
    files = {p.name: p.read_bytes() for p in (tmp_path / "one").iterdir()}
    assert {p.name: p.read_bytes() for p in (tmp_path / "two").iterdir()} == files
    assert sorted(files) == ["SHA256SUMS", "config.json", "model.safetensors", "vocabulary.json"]
    assert files["model.safetensors"][8:9] == b"{"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocabulary.json"])
def test_damaged_or_missing_file_is_refused(name: str, tmp_path: Path) -> None:
    save_tfidf(tmp_path, fitted("words", 2), ["a", "b"])
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-1] + b"?")
    with pytest.raises(IntegrityError, match=f"{name} is not what the stage baseline wrote"):
        load_tfidf(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(MissingArtifactError, match="dvc repro baseline"):
        load_tfidf(tmp_path)
