"""What a registered model holds: a method and every other that shares its base; or TF-IDF."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lora_compare.comparison.formats import count, percent, percent_interval
from lora_compare.comparison.recommendation import Recommendation, read_recommendation
from lora_compare.comparison.verdict import read_comparison
from lora_compare.project.checksums import SUMS, digest
from lora_compare.project.files import is_file, read_json, sha256, sha256_of
from lora_compare.project.paths import TFIDF, Paths
from lora_compare.tracking.runs import RunRecord, subject

NAME = "lora-compare-{}-{}-{}"
"""The registered model of a data set, a base model and a method."""

WEIGHTS = "model.safetensors"

DESCRIBES = ("base", "trainable", "classes", "lora")
"""What a method's config.json must tell; that of an earlier version may not."""

ALONE = ("all", TFIDF)
"""What is trained by methods that use none of the base's weights."""

SHOWN_CLASSES = 10
"""Classes that a description names."""

PACKAGE = Path(__file__).resolve().parents[1]
"""The package's folder, whose code goes with the weights."""

SERVED_MODEL = PACKAGE / "serving" / "served_model.py"
"""The file that MLflow runs."""

SERVING_CODE = (PACKAGE / "serving" / "classifiers.py", SERVED_MODEL)
"""Code that shapes the answers and is no dependency of a method's stages, thus not in its run."""


@dataclass(frozen=True)
class Bundle:
    """A method with all that is needed to serve it, and the other methods on the same base.

    Attributes:
        method: The method that answers where a request names none.
        methods: All methods in it, that one first.
        classes: Names of the classes.
        files: What it holds, by its path in the artifact `models`.
        record: The method's run.
        quantized: Whether a method in it needs the library for 4 bit.
        key: Names the content: the same for the same weights and the same run.
        description: Markdown.
        is_champion: Whether it is the one to serve.
    """

    method: str
    methods: tuple[str, ...]
    classes: tuple[str, ...]
    files: Mapping[str, Path]
    record: RunRecord
    quantized: bool
    key: str
    description: str
    is_champion: bool

    @property
    def name(self) -> str:
        """The name of the registered model."""
        return NAME.format(*self.subject.values(), self.method)

    @property
    def subject(self) -> dict[str, str]:
        """The names of its data set and base model, as tags."""
        return subject(self.record.params)

    @cached_property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(path.stat().st_size for path in self.files.values())


def bundles(paths: Paths, records: Iterable[RunRecord]) -> list[Bundle]:
    """Return the models of the methods that `records` show, and of TF-IDF, from files alone.

    A method that trained every weight is in its own bundle only; the others share the base,
    and each one's bundle holds them all.

    Args:
        paths: The project.
        records: The runs of what is on disk. Where that of `compare` is among them, the
            comparison names the champion.
    """
    records = list(records)
    runs = {r.tags["lora_compare.method"]: r for r in records if r.stage == "method"}
    runs |= [(TFIDF, r) for r in records if r.stage == "baseline"]
    configs = {name: config for name in runs if (config := _config(paths, name))}
    comparison = {}
    if configs and any(record.stage == "compare" for record in records):
        comparison = read_comparison(paths.metrics("comparison"))
    champion = read_recommendation(comparison)
    sharing = [name for name, config in configs.items() if config["trainable"] not in ALONE]
    result = []
    for name in configs:
        others = [n for n in sharing if n != name] if name in sharing else []
        inside = {n: configs[n] for n in (name, *others)}
        result.append(_bundle(paths, inside, runs[name], comparison, champion))
    return result


def _config(paths: Paths, method: str) -> dict[str, Any] | None:
    """Return what a method's folder says of it; None if it cannot be served with this base."""
    if method == TFIDF:
        own = paths.model(TFIDF)
        description = {"trainable": TFIDF, "lora": None}
        return read_json(own / "config.json") | description if is_file(own / SUMS) else None
    folders = (paths.base, paths.model(method))
    if not all(is_file(folder / SUMS) for folder in folders):
        return None
    base, own = (read_json(folder / "config.json") for folder in folders)
    if any(key not in own for key in DESCRIBES) or own["base"]["sha256"] != base.get("sha256"):
        return None
    config: dict[str, Any] = own
    return config


def _bundle(
    paths: Paths,
    configs: Mapping[str, Mapping[str, Any]],
    record: RunRecord,
    comparison: Mapping[str, Any],
    champion: Recommendation | None,
) -> Bundle:
    """Return the bundle of the methods of `configs`, of which the first is the bundle's own."""
    method, config = next(iter(configs.items()))
    why = champion.why if champion and champion.use == method else ""
    stages = {name: "baseline" if name == TFIDF else f"finetune@{name}" for name in configs}
    sums = {name: digest(paths.model(name), stage) for name, stage in stages.items()}
    key = {
        "run": record.key,
        "method": method,
        "sums": sums,
        "base": None if method == TFIDF else digest(paths.base, "base_model"),
        "code": [sha256(file) for file in SERVING_CODE],
    }
    return Bundle(
        method=method,
        methods=tuple(configs),
        classes=tuple(config["classes"]),
        files=_files(paths, configs),
        record=record,
        quantized=any((c["lora"] or {}).get("quantization") for c in configs.values()),
        key=sha256_of(key),
        description=_describe(method, config, list(configs), comparison)
        + (f"\n\n**Champion of its comparison**: {why}" if why else ""),
        is_champion=bool(why),
    )


def _files(paths: Paths, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Path]:
    is_whole = all(config["trainable"] == "all" for config in configs.values())
    names = [*configs] if TFIDF in configs else ["base", *configs]
    folders = {name: paths.model(name) for name in names}
    return {
        f"{name}/{path.name}": path
        for name, folder in folders.items()
        for path in sorted(folder.iterdir())
        # A hidden file is what an earlier, killed write left behind.
        if path.is_file() and not path.name.startswith(".")
        if not (is_whole and path == paths.base / WEIGHTS)
    }


def _describe(
    method: str,
    config: Mapping[str, Any],
    methods: list[str],
    comparison: Mapping[str, Any],
) -> str:
    """Return what a registered version is, as Markdown."""
    shown = ", ".join(config["classes"][:SHOWN_CLASSES])
    more = len(config["classes"]) - SHOWN_CLASSES
    lines = [f"`{method}` tells {shown}{f' and {more} more' if more > 0 else ''} apart."]
    compared = (*comparison.get("methods", ()), *comparison.get("baselines", ()))
    records = {record["method"]: record for record in compared}
    if record := records.get(method):
        interval = percent_interval([record["test_accuracy_low"], record["test_accuracy_high"]])
        lines.append(
            f"Test accuracy {percent(record['test_accuracy'])} (95 % interval {interval}), "
            f"{count(record['trainable_parameters'])} trained parameters."
        )
    if len(methods) > 1:
        others = ", ".join(f"`{name}`" for name in methods[1:])
        lines.append(f"The request parameter `method` chooses another on the same base: {others}.")
    return " ".join(lines)
