"""Made-up but plausible outputs of every stage that `compare` reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lora_compare.evaluation.metrics import evaluate_predictions
from lora_compare.params import Params, parse_params
from lora_compare.project.checksums import seal
from lora_compare.project.corpus import make_split, write_split
from lora_compare.project.files import write_json
from lora_compare.project.paths import Paths

CLASSES = ["ham", "spam"]

ADAPTER = "{{r: {r}, lora_alpha: 16, lora_dropout: 0.0, target_modules: all-linear, bias: none}}"
METHODS = {
    "full": "{trainable: all, learning_rate: 5.0e-5, weight_decay: 0.1}",
    "lora": "{trainable: lora, learning_rate: 8.0e-4, weight_decay: 0.1, lora: "
    + ADAPTER.format(r=16)
    + "}",
    "lora_r4": "{trainable: lora, learning_rate: 8.0e-4, weight_decay: 0.0, lora: "
    + ADAPTER.format(r=4)
    + "}",
    "last_block": "{trainable: last_block, learning_rate: 5.0e-5, weight_decay: 0.1}",
    "head": "{trainable: head, learning_rate: 1.0e-3, weight_decay: 0.0}",
}
TRAINED = {
    "full": 1_074_690,
    "lora": 166_432,
    "lora_r4": 41_608,
    "last_block": 198_786,
    "head": 258,
}
ACCURACY = {"full": 0.975, "lora": 0.98, "lora_r4": 0.965, "last_block": 0.93, "head": 0.87}

WORDS = """ok see you at the gym later bring my book please train is late again call me when home
winner claim prize urgent free text stop cash offer reply now bank code order parcel"""

SETTINGS = """
data: {source: bundled, text_column: text, label_column: label}
split: {deduplicate: exact, balance: undersample, train: 0.7, validation: 0.1, seed: 123}
model: {name: gpt2-nano, weights: pretrained}
classifier: {position: last_token, bias: true}
training: {epochs: 5, batch_size: 8, seed: 123, eval_examples: 200}
tracking: {experiment: lora-compare}
methods:
"""


def make_params(methods: Sequence[str]) -> Params:
    """Return parameters with these methods."""
    return parse_params(SETTINGS + "".join(f"  {name}: {METHODS[name]}\n" for name in methods))


def make_texts(n: int, seed: int = 0) -> list[str]:
    """Return n short messages, all different."""
    rng, words = np.random.default_rng(seed), WORDS.split()
    return [" ".join(rng.choice(words, rng.integers(5, 18))) + f" {i}" for i in range(n)]


def make_predictions(
    labels: np.ndarray[Any, Any], accuracy: float, seed: int, classes: Sequence[str] = CLASSES
) -> np.ndarray[Any, Any]:
    """Return confident probabilities, shape (n, n_classes), right with that probability."""
    rng = np.random.default_rng(seed)
    # The same messages are hard for every method, as in life.
    hardness = 0.75 * np.random.default_rng(99).random(len(labels)) + 0.25 * rng.random(len(labels))
    wrong = hardness > np.quantile(hardness, accuracy)
    confidence = np.where(
        wrong, rng.uniform(0.5, 0.97, len(labels)), 1 - rng.beta(0.4, 12, len(labels))
    )
    answers = np.where(wrong, (labels + 1) % len(classes), labels)
    rest = (1 - np.clip(confidence, 0.51, 0.9999)) / (len(classes) - 1)
    chances = np.repeat(rest[:, None], len(classes), axis=1)
    chances[np.arange(len(labels)), answers] = 1 - rest * (len(classes) - 1)
    return chances


def write_inputs(
    root: Path,
    methods: Sequence[str] = ("full", "lora"),
    n: int = 296,
    texts: Sequence[str] | None = None,
    classes: Sequence[str] = CLASSES,
) -> tuple[Paths, Params]:
    """Write the outputs of download, split, baseline, finetune and evaluate under `root`.

    The first eight test messages have a twin in the training split: two word for word, two but
    for case and digits, four nearly.
    """
    paths, params = Paths(root), make_params(methods)
    texts = list(texts or make_texts(n))
    labels = np.arange(n) % len(classes)
    for seed, name in enumerate(methods):
        _write_method(paths, name, texts, labels, seed, classes)
    figures = {}
    for name, accuracy, trained in (("tfidf", 0.955, 4_312), ("untuned", 0.49, 0)):
        chances = make_predictions(labels, accuracy, 50, classes)
        _write_predictions(paths, name, texts, labels, chances, classes)
        figures[name] = _figures(
            labels, chances, trained, 4_312 if trained else 1_074_690, 0, classes
        )
    write_json(paths.metrics("baseline"), figures)
    write_json(paths.metrics("split"), _split(n, labels, classes))
    write_split(paths.split("train"), _training(texts, labels))
    source = {"source": "bundled", "sha256": "5e" * 32, "bytes": 1234, "rows": 5574}
    write_json(paths.provenance, source)
    seal(paths.raw)
    seal_metrics(paths)
    return paths, params


def seal_metrics(paths: Paths) -> None:
    """Write the checksums of metrics/ as the stages split and baseline do."""
    seal(paths.splits, beside=paths.metrics("split"))
    seal(*map(paths.evaluated, ("tfidf", "untuned")), beside=paths.metrics("baseline"))


def make_wrong(paths: Paths, methods: Sequence[str], n: int) -> None:
    """Swap the answers of the first messages of both classes that methods got right."""
    for name in methods:
        file = paths.predictions(name)
        text = file.read_text(encoding="utf-8")
        text = text.replace(",ham,ham,", ",ham,spam,", n).replace(",spam,spam,", ",spam,ham,", n)
        file.write_text(text, encoding="utf-8")
        seal(file.parent)


def _training(texts: Sequence[str], labels: np.ndarray[Any, Any]) -> pd.DataFrame:
    near = [f"{text} {text} {text} {text} x" for text in texts[4:8]]
    leaked = [*texts[:2], *(f"{text.upper()}!" for text in texts[2:4]), *near]
    own = [f"an invoice of the month number {i} is attached" for i in range(20)]
    known = [int(label) for label in labels[: len(leaked)]]
    return make_split([*known, *[0] * len(own)], [*leaked, *own])


def _write_method(
    paths: Paths,
    name: str,
    texts: Sequence[str],
    labels: np.ndarray[Any, Any],
    seed: int,
    classes: Sequence[str],
) -> None:
    chances = make_predictions(labels, ACCURACY[name], seed, classes)
    trained = TRAINED[name]
    _write_predictions(paths, name, texts, labels, chances, classes)
    write_json(
        paths.evaluation(name),
        _figures(labels, chances, trained, 1_074_690, 4 * trained + 900, classes)
        | {"versions": {"python": "3.11.9", "numpy": "2.3.0"}},
    )
    cost = {
        "train_seconds": 14.2 + trained / 6e4,
        "examples_per_second": 310.5,
        "tokens_per_second": 9_300.0,
        "step_cpu_seconds": 0.018 + trained / 6e7,
        "step_cpu_seconds_low": 0.017,
        "step_cpu_seconds_high": 0.0401,
        "training_state_bytes": 14_000_000 + 12 * trained,
        "training_state_bytes_weights": 4_298_760,
        "training_state_bytes_gradients": 4 * trained,
        "training_state_bytes_optimizer": 8 * trained,
        "training_state_bytes_activations": 14_000_000 - 4_298_760,
        "side_by_side": 1,
        "peak_memory_bytes": 610_000_000 + 12 * trained,
        "device": "cpu",
        "dtype": "float32",
        "threads": 2,
        "environment": {
            "device": "cpu",
            "platform": {"system": "Linux", "machine": "x86_64", "cpu_capability": "AVX2"},
            "versions": {"lora-compare": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
        },
    }
    write_json(paths.cost_copy(name), cost)
    paths.history(name).parent.mkdir(parents=True, exist_ok=True)
    _history(seed).to_csv(paths.history(name), index=False)
    seal(paths.evaluated(name), paths.training(name))


def _figures(
    labels: np.ndarray[Any, Any],
    chances: np.ndarray[Any, Any],
    trained: int,
    total: int,
    size: int,
    classes: Sequence[str],
) -> dict[str, Any]:
    test = evaluate_predictions(labels, chances, classes)
    return {
        "train": test,
        "validation": test,
        "test": test,
        "trainable_parameters": trained,
        "total_parameters": total,
        "trainable_percent": 100 * trained / total,
        "artifact_bytes": size,
    }


def _history(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    steps = np.arange(0, 651, 50)
    epochs = steps / 130
    train = 0.69 * np.exp(-(1.1 + 0.15 * seed) * epochs) + 0.004 + 0.004 * rng.random(len(steps))
    validation = 0.66 * np.exp(-1.2 * epochs) + 0.05 + 0.012 * rng.random(len(steps))
    return pd.DataFrame(
        {
            "step": steps,
            "epoch": epochs,
            "learning_rate": 5e-5,
            "train_loss": train,
            "train_accuracy": 1 - 0.5 * np.clip(train, 0, 0.69) / 0.7,
            "validation_loss": validation,
            "validation_accuracy": 1 - 0.5 * np.clip(validation, 0, 0.69) / 0.7,
        }
    )


def _write_predictions(
    paths: Paths,
    name: str,
    texts: Sequence[str],
    labels: np.ndarray[Any, Any],
    chances: np.ndarray[Any, Any],
    classes: Sequence[str],
) -> None:
    names = np.asarray(classes, dtype=object)
    frame = pd.DataFrame(
        {
            "text": list(texts),
            "label": names[labels],
            "predicted": names[chances.argmax(axis=1)],
            **{f"p_{c}": chances[:, i] for i, c in enumerate(classes)},
        }
    )
    paths.predictions(name).parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(paths.predictions(name), index=False)
    seal(paths.evaluated(name))


def _split(n: int, labels: np.ndarray[Any, Any], classes: Sequence[str]) -> dict[str, Any]:
    counts = {name: int((labels == index).sum()) for index, name in enumerate(classes)}
    part = {"n": n, "classes": counts}
    return {
        "rows": 5574,
        "classes": list(classes),
        "duplicates_removed": 403,
        "conflicting_texts": 0,
        "splits": dict.fromkeys(("train", "validation", "test", "unused"), part),
        "test_rows_with_twin_in_train": {"exact": 2, "normalized": 4, "near": 8},
    }
