"""Temperature, prior and threshold in what other programs load: their answers are those here."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import peft
import pytest
import transformers
from safetensors.numpy import load_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from hub_models import make_hub_base, make_hub_source
from interchange import TEXTS, make_small_base, make_source, padded_tokens, reference_logits
from lora_compare.errors import ExportError
from lora_compare.evaluation.baselines import fit, save_tfidf, word_model
from lora_compare.evaluation.tfidf import load_tfidf
from lora_compare.exchange.export import Source, export, export_tfidf
from lora_compare.models.answers.decision import Decision, write_decision
from lora_compare.project.checksums import seal
from lora_compare.project.paths import TFIDF, Paths
from lora_settings import lora_settings

from .conftest import Parity

pytestmark = [
    pytest.mark.filterwarnings(
        # PEFT reads a property of transformers by its old name.
        "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
    ),
]

TOLERANCE = 1e-5
MANY = [f"{text} {number}" for number in range(12) for text in TEXTS]
TWO, THREE = ["ham", "spam"], ["ham", "spam", "urgent"]
PRIOR = Decision(1.6, (0.4, -0.9, 0.2))


def decided(source: Source, decision: Decision) -> Source:
    """Return a method with a decision."""
    return replace(source, classifier=replace(source.classifier, decision=decision))


def between(source: Source) -> Decision:
    """Return a temperature, a shift, and a threshold that half of MANY pass."""
    decision = Decision(1.6, (0.4, -0.9), 1)
    chances = replace(source.classifier, decision=decision).probabilities(MANY)
    odds = np.sort(np.log(chances[:, 1] / chances[:, 0]))
    half = len(odds) // 2
    return replace(decision, threshold=float(odds[half - 1 : half + 1].mean()))


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    make_small_base(folder)
    return folder


def answers(folder: Path, **settings: Any) -> list[str]:
    """Return the answers of transformers' pipeline to MANY."""
    classify = transformers.pipeline("text-classification", model=str(folder), device="cpu")
    return [row["label"] for row in classify(MANY, truncation=True, **settings)]


@pytest.mark.parametrize("bias", [True, False])
def test_transformers_pipeline_gives_the_same_answers(
    base_folder: Path, tmp_path: Path, bias: bool
) -> None:
    source = make_source(base_folder, lora_settings(r=3), classes=TWO, bias=bias)
    source = decided(source, between(source))
    lines = export(source, "merged", tmp_path / "merged")
    classifier = source.classifier
    here = classifier.decision.answers(classifier.probabilities(MANY))
    assert answers(tmp_path / "merged") == [TWO[i] for i in here]
    assert sorted(np.bincount(here).tolist()) == [len(MANY) // 2] * 2
    plain = replace(classifier, decision=Decision()).probabilities(MANY).argmax(axis=1)
    assert not np.array_equal(plain, here)
    assert "The threshold is part of the head" in lines


@pytest.mark.slow
@pytest.mark.parametrize("bias", [True, False])
def test_peft_and_onnx_have_prior_and_temperature_in_the_head(
    base_folder: Path, tmp_path: Path, bias: bool, parity: Parity
) -> None:
    source = decided(make_source(base_folder, lora_settings(use_dora=True), bias=bias), PRIOR)
    expected = np.log(source.classifier.probabilities(TEXTS))
    export(source, "peft", tmp_path / "peft")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "peft" / "base", num_labels=3
    )
    model = peft.PeftModel.from_pretrained(base, tmp_path / "peft")
    there = reference_logits(model, source.classifier)
    kind = "with" if bias else "without"
    measured = float(abs(relative(there) - relative(expected)).max())
    parity(f"prior and temperature, a head {kind} bias", "PEFT", TOLERANCE, measured)
    export(source, "onnx", tmp_path / "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    tokens, lengths = padded_tokens(source.classifier)
    given = {"tokens": tokens.numpy(), "lengths": lengths.numpy()}
    measured = float(abs(relative(session.run(None, given)[0]) - relative(expected)).max())
    parity(f"prior and temperature, a head {kind} bias", "ONNX Runtime", TOLERANCE, measured)


def relative(logits: np.ndarray) -> np.ndarray:
    """Return logits without what is the same of all classes of a text."""
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


@pytest.mark.parametrize(
    "trainable", ["lora", pytest.param("all", marks=pytest.mark.slow)]
)  # fmt: skip
def test_the_pipeline_of_a_bert_has_the_probabilities(
    tmp_path: Path, trainable: str, parity: Parity
) -> None:
    make_hub_base(tmp_path, "bert")
    settings = lora_settings(target_modules="default") if trainable == "lora" else None
    source = decided(make_hub_source(tmp_path, settings, trainable), PRIOR)
    export(source, "merged", tmp_path / "merged")
    classify = transformers.pipeline(
        "text-classification", model=str(tmp_path / "merged"), device="cpu"
    )
    scores = [
        [{row["label"]: row["score"] for row in rows}[name] for name in THREE]
        for rows in classify(TEXTS, top_k=None, truncation=True)
    ]
    measured = float(abs(np.array(scores) - source.classifier.probabilities(TEXTS)).max())
    parity(f"bert, {trainable}: prior and temperature", "transformers", TOLERANCE, measured)


def test_a_head_that_has_no_bias_there_takes_a_temperature_and_refuses_the_rest(
    tmp_path: Path,
) -> None:
    make_hub_base(tmp_path, "llama")
    source = make_hub_source(tmp_path, lora_settings(target_modules="default"))
    with pytest.raises(ExportError, match="The head has no bias") as caught:
        export(decided(source, PRIOR), "merged", tmp_path / "merged")
    assert "score.bias" in str(caught.value)
    assert not (tmp_path / "merged").exists()
    export(decided(source, Decision(2.0)), "merged", tmp_path / "merged")
    merged = load_file(tmp_path / "merged" / "model.safetensors")["score.weight"]
    own = source.classifier.model.output.weight.detach().numpy()
    assert np.allclose(merged, own / 2, atol=1e-7)


@pytest.mark.parametrize("classes", [TWO, THREE])
def test_scikit_learn_predicts_the_same_classes(tmp_path: Path, classes: list[str]) -> None:
    words = ["home love see", "win prize claim", "now urgent call"][: len(classes)]
    texts = [f"{part} {i}" for i in range(12) for line in words for part in line.split()]
    labels = np.array([c for _ in range(12) for c, line in enumerate(words) for _ in line.split()])
    paths = Paths(tmp_path)
    save_tfidf(paths.model(TFIDF), fit(word_model(), texts, labels), classes)
    threshold = 0.7 if len(classes) == 2 else None
    decision = Decision(0.6, (-0.5, 0.3, 0.1)[: len(classes)], 1, threshold)
    weights = paths.model(TFIDF) / "model.safetensors"
    write_decision(paths.decision(TFIDF), decision, classes, weights)
    seal(paths.evaluated(TFIDF))
    lines = export_tfidf(paths, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    arrays = load_file(tmp_path / "out" / "model.safetensors")
    vocabulary = json.loads((tmp_path / "out" / "vocabulary.json").read_text())
    vectorizer = TfidfVectorizer(
        analyzer=config["analyzer"], ngram_range=tuple(config["ngram_range"]), vocabulary=vocabulary
    )
    vectorizer.idf_ = arrays["idf"]
    regression = LogisticRegression()
    regression.classes_ = np.array(classes)
    regression.coef_, regression.intercept_ = arrays["coefficients"], arrays["intercepts"]
    mixed = [f"{a} {b}" for a in texts[::3] for b in texts[1::4]]
    here = load_tfidf(paths.model(TFIDF), paths.decision(TFIDF))
    probabilities = here.probabilities(mixed)
    expected = [classes[i] for i in here.decision.answers(probabilities)]
    model = make_pipeline(vectorizer, regression)
    assert model.predict(mixed).tolist() == expected
    assert len(set(expected)) == len(classes)
    if threshold is None:
        assert np.allclose(model.predict_proba(mixed), probabilities, atol=1e-12)
    assert ("threshold" in lines) is (threshold is not None)
