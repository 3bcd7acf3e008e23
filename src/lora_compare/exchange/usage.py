"""The Python lines that use an export, for the terminal and the export's README."""

import json
from pathlib import Path

from lora_compare.evaluation.tfidf import TfidfClassifier
from lora_compare.models.answers.targets import ONE_CLASS
from lora_compare.models.batches import kept
from lora_compare.models.classifier import TextClassifier

EXAMPLE = "You won a tablet! To collect your prize call 09098790503 today"


def of_peft(
    folder: Path, base: str, revision: str | None, classifier: TextClassifier, quantized: bool
) -> str:
    """Return the lines that load an adapter with PEFT.

    Args:
        folder: The export.
        base: Where transformers finds the base.
        revision: The base's revision on the hub.
        classifier: What was exported.
        quantized: Whether the adapter was trained on the base in 4 bit.
    """
    note = (
        "# The base was in 4 bit while the adapter was trained. On the full weights, as here,\n"
        "# the logits differ a little; --format merged keeps them."
    )
    labels = ", ".join(f"{i}: {_text(name)}" for i, name in enumerate(classifier.classes))
    return _lines(
        *([note] if quantized else []),
        *_cut(classifier),
        *_threshold(classifier),
        "from peft import PeftModel",
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        "base = AutoModelForSequenceClassification.from_pretrained(",
        f"    {_text(base)},",
        *([f"    revision={_text(revision)},"] if revision else []),
        f"    id2label={{{labels}}},",
        f"    pad_token_id={classifier.padding.token},",
        ")",
        f"model = PeftModel.from_pretrained(base, {_text(folder.as_posix())}).eval()",
        f"tokenizer = AutoTokenizer.from_pretrained({_text(folder.as_posix())})",
        f"inputs = tokenizer([{_text(EXAMPLE)}], padding=True, truncation=True, "
        'return_tensors="pt")',
        *_read(classifier, "print(base.config.id2label, model(**inputs).logits.softmax(dim=-1))"),
    )


def of_merged(folder: Path, classifier: TextClassifier) -> str:
    """Return the lines that use a merged model with transformers."""
    return _lines(
        *_cut(classifier),
        *_threshold(classifier),
        "from transformers import pipeline",
        "",
        f'classify = pipeline("text-classification", model={_text(folder.as_posix())})',
        *_piped(classifier),
    )


def _piped(classifier: TextClassifier) -> list[str]:
    """Return the lines that ask transformers' pipeline, and keep what reaches its threshold."""
    if classifier.targets == ONE_CLASS:
        return [f"print(classify({_text(EXAMPLE)}, truncation=True))"]
    return [
        f"thresholds = {_thresholds(classifier)}",
        f"answers = classify({_text(EXAMPLE)}, truncation=True, top_k=None)",
        'print([a for a in answers if a["score"] >= thresholds[a["label"]]])',
    ]


def _read(classifier: TextClassifier, one_class: str) -> list[str]:
    """Return the lines that make an answer of `model(**inputs).logits`."""
    if classifier.targets == ONE_CLASS:
        return [one_class]
    return [
        f"thresholds = {_thresholds(classifier)}",
        "(scores,) = model(**inputs).logits.sigmoid().tolist()",
        "print({n: p for (n, t), p in zip(thresholds.items(), scores) if p >= t})",
    ]


def _thresholds(classifier: TextClassifier | TfidfClassifier) -> str:
    settings = classifier.targets.settings(classifier.classes)
    return json.dumps(settings["thresholds"], ensure_ascii=False)


def of_onnx(folder: Path, classifier: TextClassifier) -> str:
    """Return the lines that use an ONNX model with ONNX Runtime."""
    length = classifier.padding.length
    first, last = kept(classifier.max_length, classifier.truncation)
    whole = f"ids if len(ids) <= {first + last} else "
    cut = f"ids[:{first}]" if not last else f"{whole}ids[:{first}] + ids[-{last}:]"
    padded = f" + [{classifier.padding.token}] * ({length} - len(ids))" if length else ""
    return _lines(
        *_threshold(classifier),
        "import numpy",
        "import onnxruntime",
        "from tokenizers import Tokenizer",
        "",
        f"tokenizer = Tokenizer.from_file({_text(f'{folder.as_posix()}/tokenizer.json')})",
        "tokenizer.encode_special_tokens = True",
        f"session = onnxruntime.InferenceSession({_text(f'{folder.as_posix()}/model.onnx')})",
        f"ids = tokenizer.encode({_text(EXAMPLE)}).ids",
        f"ids = {cut}",
        f'inputs = {{"tokens": numpy.array([ids{padded}]), "lengths": numpy.array([len(ids)])}}',
        f"print({classifier.classes!r}, session.run(None, inputs)[0])",
    )


def of_sklearn(folder: Path, classifier: TfidfClassifier) -> str:
    """Return the lines that make TF-IDF a pipeline of scikit-learn again."""
    runs = classifier.ngram_range
    return _lines(
        *_threshold(classifier),
        "import json",
        "from pathlib import Path",
        "",
        "import numpy",
        "from safetensors.numpy import load_file",
        "from sklearn.feature_extraction.text import TfidfVectorizer",
        "from sklearn.linear_model import LogisticRegression",
        "from sklearn.pipeline import make_pipeline",
        "",
        f"folder = Path({_text(folder.as_posix())})",
        'terms = json.loads((folder / "vocabulary.json").read_text("utf-8"))',
        'classes = json.loads((folder / "config.json").read_text("utf-8"))["classes"]',
        'arrays = load_file(folder / "model.safetensors")',
        f"vectorizer = TfidfVectorizer(analyzer={_text(classifier.analyzer)}, "
        f"ngram_range={runs}, vocabulary=terms)",
        'vectorizer.idf_ = arrays["idf"]',
        "regression = LogisticRegression()",
        "regression.classes_ = numpy.array(classes)",
        'regression.coef_, regression.intercept_ = arrays["coefficients"], arrays["intercepts"]',
        "model = make_pipeline(vectorizer, regression)",
        *(
            [f"print(classes, model.predict_proba([{_text(EXAMPLE)}]))"]
            if classifier.targets == ONE_CLASS
            else [
                f"thresholds = {_thresholds(classifier)}",
                f"logits = model.decision_function([{_text(EXAMPLE)}])",
                "print(thresholds, 1 / (1 + numpy.exp(-logits)))",
            ]
        ),
    )


def _cut(classifier: TextClassifier) -> list[str]:
    """Return what to know of texts that are too long, where transformers cuts them otherwise."""
    if classifier.truncation != "head_tail":
        return []
    return [
        f"# Of texts of more than {classifier.max_length} tokens, the first and the last ones were",
        "# kept in training; transformers keeps the first, and its answers for them differ.",
    ]


def _threshold(classifier: TextClassifier | TfidfClassifier) -> list[str]:
    """Return what to know of the scores where a threshold is part of the head."""
    decision = classifier.decision
    if decision.chance is None:
        return []
    name = classifier.classes[decision.positive]
    return [
        f"# The threshold is part of the head: a text that is {name} with a probability of",
        f"# {decision.chance:.3f} has a score of 0.5 here, and the larger score is the answer.",
    ]


def _text(text: str) -> str:
    # A Python string too: JSON's escapes are among Python's.
    return json.dumps(text, ensure_ascii=False)


def _lines(*lines: str) -> str:
    return "\n".join(lines)
