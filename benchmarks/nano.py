"""How good `gpt2-nano` is on texts of other kinds: full fine-tuning and LoRA beside TF-IDF.

`python -m benchmarks.nano` pre-trains it on each kind of `field_texts` as params.yaml says, and
fine-tunes it once by each method, with rates from the upper ends of what the default searches.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.field_texts import KINDS
from lora_compare.compute.device import choose_machine
from lora_compare.compute.seeding import make_deterministic
from lora_compare.data.splits import split
from lora_compare.evaluation.baselines import fit_tfidf
from lora_compare.models.base import load_base, make_base, save_base
from lora_compare.models.batches import Examples
from lora_compare.models.classifier import predict_logits
from lora_compare.models.tokens import tokenize
from lora_compare.params import Params, load_params
from lora_compare.project.corpus import make_corpus
from lora_compare.project.paths import SPLITS
from lora_compare.training.finetuning import Training, finetune

ROOT = Path(__file__).resolve().parents[1]

MESSAGES = {"requests": 77 * 32, "korean": 300, "reviews": 700}
"""Texts of each kind."""

RATES = {"full": 8.0e-4, "lora": 4.0e-3}
"""Learning rate of each method of the default."""

SEED = 1
"""Seed of the texts and of the trainings."""


def measure(kind: str, n: int, params: Params, folder: Path) -> Iterator[tuple[str, float]]:
    """Yield figures by name: seconds of pre-training, mean tokens, accuracies on the test split.

    Args:
        kind: One of `field_texts.KINDS`.
        n: Texts to write.
        params: How to split, pre-train and fine-tune; near-duplicates are not looked for, because
            templates wrote all texts.
        folder: Where to keep the base model.
    """
    labels, texts = zip(*KINDS[kind](n, SEED), strict=True)
    corpus = make_corpus(list(labels), list(texts))
    frames, figures = split(corpus, params.split.model_copy(update={"twins": "apart"}))
    parts = {name: {c: f[c].tolist() for c in ("Text", "Label")} for name, f in frames.items()}
    seen, watched, test = ((parts[name]["Text"], parts[name]["Label"]) for name in SPLITS)
    _, baseline, _ = fit_tfidf(*seen, *watched)
    yield "TF-IDF", float(baseline.score(*test))

    make_deterministic(params.model.seed, params.threads)
    learnt = parts["unused"]["Text"] + parts["train"]["Text"]
    started = time.perf_counter()
    base = save_base(make_base(params.model, learnt, torch.device("cpu")), folder)
    yield "pre-training", time.perf_counter() - started
    tokens = {name: tokenize(base.tokenizer, parts[name]) for name in SPLITS}
    yield "tokens", float(tokens["train"].lengths.mean())
    for method in RATES:
        yield method, accuracy(method, list(figures["classes"]), tokens, params, folder)


def accuracy(
    method: str, classes: list[str], tokens: Mapping[str, Examples], params: Params, folder: Path
) -> float:
    """Return a method's accuracy on the test split, in 0..1, after one training.

    Args:
        method: One of `RATES`.
        classes: Names of the classes.
        tokens: The splits.
        params: The method's settings, but for its rate.
        folder: The base model's.
    """
    settings = params.methods[method].model_copy(update={"learning_rate": RATES[method]})
    training = Training(method, settings, SEED, params.training)
    base = load_base(folder)
    machine = choose_machine(params.training, base.width)
    result, _ = finetune(base, classes, tokens, params.classifier, training, machine)
    taken, _ = result.fit(tokens["test"])
    right = predict_logits(result.model, taken).argmax(axis=1) == taken.labels
    return float(right.mean())


def show(kinds: Mapping[str, Mapping[str, float]]) -> Table:
    """Return the figures of all kinds as a table."""
    table = Table("texts", "tokens", "pre-training s", "TF-IDF %", *(f"{m} %" for m in RATES))
    for kind, found in kinds.items():
        shares = (f"{100 * found[name]:.1f}" for name in ("TF-IDF", *RATES))
        table.add_row(kind, f"{found['tokens']:.0f}", f"{found['pre-training']:.0f}", *shares)
    return table


def main() -> None:
    """Measure and print."""
    params, found = load_params(ROOT / "params.yaml"), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        for kind, n in MESSAGES.items():
            found[kind] = dict(measure(kind, n, params, Path(folder, kind)))
            Console().print(kind, found[kind])
    Console().print(show(found))


if __name__ == "__main__":
    main()
