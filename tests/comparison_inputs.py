"""Made-up but plausible outputs of every stage that `compare` reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lora_compare.evaluation.metrics import evaluate_predictions
from lora_compare.evaluation.noise import write_out_of_sample
from lora_compare.params import Params, parse_params
from lora_compare.project.checksums import seal
from lora_compare.project.corpus import make_split, write_split
from lora_compare.project.files import write_json
from lora_compare.project.paths import Paths
from lora_compare.training.tuning.trials import NOT_SEARCHED, write_choice

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
training: {epochs: 5, batch_size: 8, seeds: SEEDS, eval_examples: 200}
comparison: {metric: accuracy, margin: 0.02, level: 0.05}
tracking: {experiment: lora-compare}
methods:
"""


def settings(methods: Sequence[str], seeds: Sequence[int] = (1,)) -> str:
    """Return the text of a params.yaml with these methods and seeds."""
    text = SETTINGS.replace("SEEDS", str([*seeds]))
    return text + "".join(f"  {name}: {METHODS[name]}\n" for name in methods)


def make_params(methods: Sequence[str], seeds: Sequence[int] = (1,)) -> Params:
    """Return parameters with these methods and seeds."""
    return parse_params(settings(methods, seeds))


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
    seeds: Sequence[int] = (1,),
) -> tuple[Paths, Params]:
    """Write the outputs of download, split, baseline, finetune and evaluate under `root`.

    The first eight test messages have a twin in the training split: two word for word, two but
    for case and digits, four nearly.
    """
    paths, params = Paths(root), make_params(methods, seeds)
    texts = list(texts or make_texts(n))
    labels = np.arange(n) % len(classes)
    for place, name in enumerate(methods):
        _write_method(paths, name, texts, labels, place, classes, seeds)
    figures = {}
    for name, accuracy, trained in (("tfidf", 0.955, 4_312), ("untuned", 0.49, 0)):
        chances = make_predictions(labels, accuracy, 50, classes)
        _write_predictions(paths.predictions(name), texts, labels, chances, classes)
        figures[name] = _figures(
            labels, chances, trained, 4_312 if trained else 1_074_690, 0, classes
        )
    write_json(paths.metrics("baseline"), figures)
    training = _training(texts, labels)
    known = np.asarray(training["Label"])
    chances = make_predictions(known, 0.9, 51, classes).astype(np.float32)
    write_out_of_sample(paths.out_of_sample, chances)
    write_json(paths.metrics("split"), _split(n, labels, classes))
    write_split(paths.split("train"), training)
    write_split(paths.split("test"), {"Label": labels, "Text": texts})
    source = {"source": "bundled", "sha256": "5e" * 32, "bytes": 1234, "rows": 5574}
    write_json(paths.provenance, source)
    per_class = {name: 0.25 + place / 100 for place, name in enumerate(classes)}
    tokens = {"tokens_per_character": 0.255, "classes": per_class, "warning": None}
    write_json(paths.tokenization, tokens)
    seal(paths.raw, paths.base_report)
    seal_metrics(paths)
    return paths, params


def seal_metrics(paths: Paths) -> None:
    """Write the checksums of metrics/ as the stages split and baseline do."""
    seal(paths.splits, beside=paths.metrics("split"))
    seal(*map(paths.evaluated, ("tfidf", "untuned")), beside=paths.metrics("baseline"))


def make_wrong(paths: Paths, methods: Sequence[str], n: int) -> None:
    """Swap the answers of the first messages of both classes that methods got right."""
    for file in (file for name in methods for file in answers_of(paths, name)):
        text = file.read_text(encoding="utf-8")
        text = text.replace(",ham,ham,", ",ham,spam,", n).replace(",spam,spam,", ",spam,ham,", n)
        file.write_text(text, encoding="utf-8")
        seal(file.parent)


def answers_of(paths: Paths, name: str) -> list[Path]:
    """Return the files of a method's or a baseline's predictions, one for each of its seeds."""
    return sorted(paths.evaluated(name).glob("predictions*.csv"))


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
    place: int,
    classes: Sequence[str],
    seeds: Sequence[int],
) -> None:
    trained = TRAINED[name]
    every = {}
    for number, seed in enumerate(seeds):
        chances = make_predictions(labels, ACCURACY[name], place + 100 * number, classes)
        _write_predictions(paths.predictions(name, seed), texts, labels, chances, classes)
        every[seed] = _figures(labels, chances, trained, 1_074_690, 4 * trained + 900, classes)
    write_json(
        paths.evaluation(name),
        mean_figures(every) | {"versions": {"python": "3.11.9", "numpy": "2.3.0"}},
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
    histories = [_history(place, number).assign(seed=seed) for number, seed in enumerate(seeds)]
    first = pd.concat(histories)
    first.insert(0, "seed", first.pop("seed"))
    first.to_csv(paths.history(name), index=False)
    write_choice(paths.tuning(name), NOT_SEARCHED)
    seal(paths.evaluated(name), paths.training(name))


def mean_figures(every: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """Return the metrics of a method from those of each of its seeds, as `evaluate` does."""
    first = next(iter(every.values()))
    result: dict[str, Any] = dict(first)
    scalars: dict[int, dict[str, dict[str, float]]] = {seed: {} for seed in every}
    for split in ("train", "validation", "test"):
        parts = {seed: figures[split] for seed, figures in every.items()}
        mean = dict(first[split])
        for key, value in first[split].items():
            column = [part[key] for part in parts.values()]
            if key == "confusion_matrix":
                mean[key] = np.sum(column, axis=0).tolist()
            elif key == "accuracy_ci95":
                mean[key] = np.mean(column, axis=0).tolist()
            elif isinstance(value, int | float) and key != "n":
                mean[key] = float(np.mean(column))
                if len(every) > 1:
                    mean[f"{key}_sd"] = float(np.std(column, ddof=1))
        for seed, part in parts.items():
            scalars[seed][split] = {k: v for k, v in part.items() if isinstance(v, int | float)}
        result[split] = mean
    per_seed = {str(seed): splits for seed, splits in scalars.items()}
    return result | {"seeds": list(every), "per_seed": per_seed}


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


def _history(place: int, number: int) -> pd.DataFrame:
    rng = np.random.default_rng(place + 100 * number)
    steps = np.arange(0, 651, 50)
    epochs = steps / 130
    train = (
        0.69 * np.exp(-(1.1 + 0.15 * place + 0.05 * number) * epochs)
        + 0.004
        + 0.004 * rng.random(len(steps))
    )
    validation = (
        0.66 * np.exp(-(1.2 + 0.05 * number) * epochs) + 0.05 + 0.012 * rng.random(len(steps))
    )
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
    file: Path,
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
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(file, index=False)
    seal(file.parent)


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
