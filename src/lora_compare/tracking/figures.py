"""The numbers that MLflow shows, taken from history, metrics and config files."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from lora_compare.comparison.formats import points, spread
from lora_compare.comparison.prices import LATENCIES
from lora_compare.comparison.recommendation import read_recommendation
from lora_compare.comparison.sentences import against, claimed, main_pair, unit
from lora_compare.project.files import read_json
from lora_compare.project.paths import SPLITS

CURVES = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "validation_loss": "validation/loss",
    "validation_accuracy": "validation/accuracy",
    "learning_rate": "learning_rate",
}
"""Columns of a history and the metrics they become, by optimizer step."""

FINAL = ("accuracy", "accuracy_sd", "accuracy_low", "accuracy_high", "f1", "macro_f1", "log_loss")
"""What is shown of the final evaluation on train and validation; of test, everything."""

PAIR = ("difference", "low", "high", "margin", "p", "messages_needed", "seeds_needed")
"""What is shown of two methods beside one another; the rest is in comparison.json."""

COST = (
    "training_state_bytes",
    "step_cpu_seconds",
    "step_cpu_seconds_low",
    "step_cpu_seconds_high",
    *LATENCIES,
    "train_seconds",
    "examples_per_second",
    "tokens_per_second",
    "peak_memory_bytes",
    "side_by_side",
)
"""What a training cost."""

ROW = {
    "test_accuracy": "test/accuracy",
    "trainable_parameters": "params/trainable",
    "training_state_bytes": "cost/training_state_bytes",
    "step_cpu_seconds": "cost/step_cpu_seconds",
    "train_seconds": "cost/train_seconds",
    "artifact_bytes": "artifact/bytes",
}
"""What the table of runs shows of a method, by its name in a comparison."""

CHAMPION = "lora_compare.champion"
"""The tag of a pipeline's run with what its comparison recommends."""

VERDICT = "lora_compare.verdict"
"""The tag of a pipeline's run with the difference of its main pair."""

CLAIM = "claim"
"""The tag of a comparison with what is claimed of its main pair."""

TRIAL_FIGURES = ("validation_loss", "validation_accuracy")
"""What is shown of a trial of a search beside its curve."""

TRIAL_COLUMNS = ("trial", "seed", "status", *TRIAL_FIGURES)
"""The columns of trials.csv that are no setting."""

HARDWARE = ("device", "dtype", "threads")
"""What it ran on: tags, not metrics."""

MOST_KEYS = 60
"""A table with more entries, such as one per class of many, is no metric to look at."""

PER_CLASS = "per_class"
"""Where metrics hold a value per class."""


@dataclass(frozen=True)
class Point:
    """One value of a metric.

    Attributes:
        key: The metric.
        value: Its value.
        step: Optimizer steps done; 0 for what was measured once, which MLflow draws as a bar.
    """

    key: str
    value: float
    step: int = 0


def numbers(value: Any, prefix: str = "") -> Iterator[Point]:
    """Yield the numbers of a metrics file under keys joined with slashes.

    An interval `x_ci95` becomes `x_low` and `x_high`, a list of records goes by their names
    (`method`, or `a` and `b` of a pair); other lists and tables of many entries are left out.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield Point(prefix, float(value))
    elif isinstance(value, Mapping) and len(value) <= MOST_KEYS:
        for key, inner in value.items():
            if key != PER_CLASS:
                yield from numbers(inner, f"{prefix}/{segment(key)}".lstrip("/"))
    elif isinstance(value, list):
        yield from _numbers_of_list(value, prefix)


def _numbers_of_list(values: list[Any], prefix: str) -> Iterator[Point]:
    if prefix.endswith("_ci95"):
        stem = prefix.removesuffix("_ci95")
        for end, value in zip(("low", "high"), values, strict=True):
            yield Point(f"{stem}_{end}", float(value))
        return
    for value in (v for v in values if isinstance(v, Mapping)):
        if name := value.get("method") or "-".join(str(value[k]) for k in "ab" if k in value):
            yield from numbers(value, f"{prefix}/{segment(name)}")


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file by column."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def histories(path: Path) -> dict[int, list[Point]]:
    """Return the points of a history file by the seed of the training."""
    found: dict[int, list[Point]] = {}
    for row in read_rows(path):
        found.setdefault(int(row["seed"]), []).extend(curve_points(row))
    return found


def trial_curves(path: Path) -> dict[tuple[str, str], list[Point]]:
    """Return the points of the history of a search by trial and seed."""
    found: dict[tuple[str, str], list[Point]] = {}
    for row in read_rows(path):
        found.setdefault((row["trial"], row["seed"]), []).extend(curve_points(row))
    return found


def mean_curves(trainings: Mapping[int, Sequence[Point]]) -> Iterator[Point]:
    """Yield the means of several trainings at the steps that all of them have.

    Args:
        trainings: Points by seed, as `histories` returns them.
    """
    values: dict[tuple[str, int], list[float]] = {}
    for point in chain(*trainings.values()):
        values.setdefault((point.key, point.step), []).append(point.value)
    for (key, step), found in values.items():
        if len(found) == len(trainings):
            yield Point(key, math.fsum(found) / len(found), step)


def curve_points(row: Mapping[str, Any]) -> list[Point]:
    """Return the points of one row of a history."""
    step = int(row["step"])
    return [Point(key, float(row[column]), step) for column, key in CURVES.items()]


def sizes(folder: Path) -> Iterator[Point]:
    """Yield the parameters and bytes of a method's or the base model's folder."""
    config = read_json(folder / "config.json")
    total = config.get("total_parameters", config.get("parameters"))
    trainable = config.get("trainable_parameters")
    if total is not None:
        yield Point("params/total", float(total))
    if total and trainable is not None:
        yield Point("params/trainable", float(trainable))
        yield Point("params/trainable_percent", 100 * trainable / total)
    yield Point("artifact/bytes", float((folder / "model.safetensors").stat().st_size))


def costs(cost: Mapping[str, Any]) -> Iterator[Point]:
    """Yield what a training cost."""
    yield from numbers({name: cost[name] for name in COST if name in cost}, "cost")


def evaluation(metrics: Mapping[str, Any]) -> Iterator[Point]:
    """Yield the final evaluation: all of test, the essence of train and validation.

    What only some methods have, such as the error of merging an adapter, stays in the file, so
    that all have the same keys.
    """
    for split in SPLITS:
        if split == "test":
            yield from numbers(metrics[split], "test")
        else:
            wanted = {f"final/{split}/{name}" for name in FINAL}
            yield from (p for p in numbers(metrics[split], f"final/{split}") if p.key in wanted)


def stage_figures(stage: str, file: Path) -> Iterator[Point]:
    """Yield what is shown of a stage that is not about one method.

    Args:
        stage: Its name.
        file: Its metrics; for `base_model`, the model's config.json.
    """
    if stage == "base_model":
        return sizes(file.parent)
    metrics = read_json(file)
    if stage == "baseline":
        return baselines(metrics)
    return pairs(metrics) if stage == "compare" else numbers(metrics)


def baselines(metrics: Mapping[str, Any]) -> Iterator[Point]:
    """Yield the essence of what each baseline reached on test, by its name."""
    for name, splits in metrics.items():
        wanted = {f"{segment(name)}/test/{figure}" for figure in FINAL}
        points = numbers(splits["test"], f"{segment(name)}/test")
        yield from (point for point in points if point.key in wanted)


def pairs(comparison: Mapping[str, Any]) -> Iterator[Point]:
    """Yield what was found of every pair, of the main one under short keys too, and the ratios."""
    main = main_pair(comparison) if comparison.get("pairs") else None
    for pair in comparison.get("pairs", ()):
        figures = _found(pair)
        yield from numbers(figures, f"pairs/{segment(pair['a'])}-{segment(pair['b'])}")
        if pair is main:
            yield from numbers(figures)
    yield from numbers(comparison.get("reference"), "lora_to_full")


def _found(pair: Mapping[str, Any]) -> dict[str, Any]:
    shares = {"seed_variance_share": pair["variance"]["seed"]} if pair["seeds"] > 1 else {}
    return {name: pair[name] for name in PAIR} | shares


def headline(comparison: Mapping[str, Any]) -> Iterator[Point]:
    """Yield what matters most of a comparison: each method's, the champion's, LoRA against full.

    Those of the champion, a method or TF-IDF, have the keys of a method's own run, so that the
    row of a pipeline has the figures of what came out of it.
    """
    recommended = read_recommendation(comparison)
    for record in comparison.get("methods", ()):
        wanted = ("test_accuracy", "trainable_parameters", "train_seconds")
        figures = {name: record.get(name) for name in wanted}
        yield from numbers(figures, segment(record["method"]))
    for record in (*comparison.get("methods", ()), *comparison.get("baselines", ())):
        if recommended is not None and record["method"] == recommended.use:
            yield from (p for n, k in ROW.items() for p in numbers(record.get(n), k))
    yield from numbers(comparison.get("reference"), "lora_to_full")


def verdict_tags(comparison: Mapping[str, Any]) -> dict[str, str]:
    """Return what a comparison recommends, and the claim on its main pair with the numbers."""
    recommended = read_recommendation(comparison)
    tags = {CHAMPION: recommended.use} if recommended and recommended.use else {}
    pair = main_pair(comparison) if comparison.get("pairs") else None
    if pair is not None:
        shown, low, high = (points(pair[key]) for key in ("difference", "low", "high"))
        names = f"{pair['a']} {against(pair)} {pair['b']}"
        tags[VERDICT] = f"{names}: {shown} {unit(pair)} ({low} to {high})"
        tags[CLAIM] = claimed(pair)
    return tags


def describe_method(metrics: Mapping[str, Any], cost: Mapping[str, Any]) -> str:
    """Return what a method reached and what it took, in a sentence of Markdown.

    Args:
        metrics: The method's metrics file.
        cost: Its cost file; without a time for a method that was not trained here.
    """
    test, seeds = metrics["test"], len(metrics["seeds"])
    low, high = (f"{100 * end:.1f}" for end in test["accuracy_ci95"])
    sentence = f"Test accuracy **{100 * test['accuracy']:.1f} %** (95 % interval {low} to {high})"
    if seeds > 1:
        reached = spread(test["accuracy"], test["accuracy_sd"])
        sentence = f"Test accuracy **{reached}**, mean and standard deviation of {seeds} trainings"
    if trained := metrics.get("trainable_parameters"):
        sentence += f" with {trained:,} trained parameters"
    if seconds := cost.get("train_seconds"):
        each = " each" if seeds > 1 else ""
        sentence += f", in {seconds:.1f} s of training{each} on {cost['device']}"
    return f"{sentence}."


def segment(name: object) -> str:
    """Return a name as a part of a metric's key, which holds no slash and no leading dot."""
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in str(name)) or "_"
