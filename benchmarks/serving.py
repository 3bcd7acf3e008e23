"""What several adapters on one base cost a server: memory, and the time to choose among them.

    python benchmarks/serving.py --model gpt2-small --adapters 8

The weights are random and the adapters untrained, which neither memory nor time depends on.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from lora_compare.comparison.formats import size
from lora_compare.models.base import Base, load_base, make_base, save_base
from lora_compare.models.classifier import TextClassifier, untuned
from lora_compare.models.methods import Trained, choose_trainable, save_method
from lora_compare.models.network import Network
from lora_compare.params import ClassifierParams, LoraParams, ModelParams
from lora_compare.serving.classifiers import Classifiers, load_classifiers

TEXT = "You won a tablet! To collect your prize call 09098790503 today"
TEXTS_FOR_TOKENS = [f"{TEXT} {number}" for number in range(300)]
"""What the tokenizer of gpt2-nano is trained on."""

ROUNDS, CHOICES = 12, 100_000
ADAPTER = LoraParams(r=16, lora_alpha=16, lora_dropout=0, target_modules="all-linear", bias="none")
METHOD = Trained("lora", ADAPTER)


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        base_bytes: Memory of the base's weights.
        one_bytes: Memory of one method, its base included.
        all_bytes: Memory of all methods, the base they share counted once.
        load_seconds: Time to load them all.
        choose_seconds: Time of one choice.
        same_seconds: Time of a request for the method of the request before; the median.
        other_seconds: The same of a request for another method.
    """

    base_bytes: int
    one_bytes: int
    all_bytes: int
    load_seconds: float
    choose_seconds: float
    same_seconds: float
    other_seconds: float


def write_adapters(folder: Path, model: str, count: int) -> list[str]:
    """Write a base with random weights and `count` adapters on it; return the adapters' names."""
    parameters = ModelParams.model_validate({"name": model, "weights": "random"})
    base = make_base(parameters, TEXTS_FOR_TOKENS, torch.device("cpu"))
    save_base(base, folder / "base")
    names = [f"lora_{number}" for number in range(count)]
    for seed, name in enumerate(names):
        _write_adapter(folder / name, load_base(folder / "base"), seed)
    return names


def _write_adapter(folder: Path, base: Base, seed: int) -> None:
    head = ClassifierParams(position="last_token", bias=True)
    classifier = untuned(base, ["ham", "spam"], head, seed)
    choose_trainable(classifier.model, METHOD, seed)
    save_method(folder, classifier, METHOD, seed, base)


def measure(folder: Path, names: Sequence[str]) -> Figures:
    """Return what the adapters of `write_adapters` cost; there are two at least."""
    start = time.perf_counter()
    folders = {name: folder / name for name in names}
    classifiers = load_classifiers(folder / "base", folders, torch.device("cpu"))
    seconds = time.perf_counter() - start
    chosen = map(classifiers.choose, names)
    models = [c.model for c in chosen if isinstance(c, TextClassifier)]
    same, other = _requests(classifiers, names)
    return Figures(
        base_bytes=sum(p.nbytes for p in load_base(folder / "base").network.parameters()),
        one_bytes=bytes_of(models[:1]),
        all_bytes=bytes_of(models),
        load_seconds=seconds,
        choose_seconds=_choice(classifiers, names),
        same_seconds=same,
        other_seconds=other,
    )


def bytes_of(models: Sequence[Network]) -> int:
    """Return the bytes of all tensors of `models`, memory that they share counted once."""
    tensors = [t for model in models for t in [*model.parameters(), *model.buffers()]]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _choice(classifiers: Classifiers, names: Sequence[str]) -> float:
    start = time.perf_counter()
    for number in range(CHOICES):
        classifiers.choose(names[number % len(names)])
    return (time.perf_counter() - start) / CHOICES


def _requests(classifiers: Classifiers, names: Sequence[str]) -> tuple[float, float]:
    """Return the medians of a request for the adapter of the one before, and for another."""

    def seconds(name: str) -> float:
        start = time.perf_counter()
        classifiers.answer([TEXT], name)
        return time.perf_counter() - start

    # In turns, so that whatever else the machine does slows both.
    times = [(seconds(name), seconds(name)) for _ in range(ROUNDS) for name in names]
    other, same = zip(*times[len(names) :], strict=True)
    return statistics.median(same), statistics.median(other)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="gpt2-nano")
    parser.add_argument("--adapters", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        names = write_adapters(Path(name), arguments.model, arguments.adapters)
        figures = measure(Path(name), names)
    each = (figures.all_bytes - figures.base_bytes) // len(names)
    lines = [
        f"{arguments.model} with {len(names)} adapters of rank {ADAPTER.r}",
        f"base {size(figures.base_bytes)}, each adapter {size(each)}",
        f"together {size(figures.all_bytes)}; each with a base of its own "
        f"{size(len(names) * figures.one_bytes)}",
        f"loaded and checked in {figures.load_seconds:.2f} s",
        f"choosing one: {1000 * figures.choose_seconds:.5f} ms",
        f"a request for the same adapter as before: {1000 * figures.same_seconds:.2f} ms, "
        f"for another: {1000 * figures.other_seconds:.2f} ms",
    ]
    Console().print("\n".join(lines), highlight=False)


if __name__ == "__main__":
    main()
