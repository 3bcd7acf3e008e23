"""What a registered model holds: a method and every other that shares its base; or TF-IDF."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lora_compare.comparison.formats import count, percent, percent_interval
from lora_compare.comparison.recommendation import Recommendation, read_recommendation
from lora_compare.comparison.sentences import with_spread
from lora_compare.comparison.verdict import read_comparison
from lora_compare.errors import MissingArtifactError
from lora_compare.models.answers.decision import FILE
from lora_compare.project.checksums import SUMS, digest
from lora_compare.project.files import is_file, read_json, sha256, sha256_of
from lora_compare.project.paths import FOLD, TFIDF, Paths
from lora_compare.project.seeds import SEEDS_FILE, chosen, read_seeds, seed_of
from lora_compare.tracking.records import METHOD_TAG
from lora_compare.tracking.runs import METHOD, SEED, RunRecord, subject

NAME = "lora-compare-{}-{}-{}"
"""The registered model of a data set, a base model and a method."""

WEIGHTS = "model.safetensors"

DESCRIBES = ("base", "trainable", "classes", "lora")
"""What a method's config.json must tell; that of an earlier version may not."""

ALONE = ("all", TFIDF)
"""What is trained by methods that use none of the base's weights."""

HUB = ("psutil", "transformers")
"""What a base of transformers needs."""

SHOWN_CLASSES = 10
"""Classes that a description names."""

PACKAGE = Path(__file__).resolve().parents[1]
"""The package's folder, whose code goes with the weights."""

SERVED_MODEL = PACKAGE / "serving" / "served_model.py"
"""The file that MLflow runs."""

SERVING_CODE = (PACKAGE / "serving" / "classifiers.py", SERVED_MODEL)
"""Code that shapes the answers and is no dependency of a method's stages, thus not in its run."""


@dataclass(frozen=True)
class Seed:
    """A training of a method among the others.

    Attributes:
        seed: Its seed.
        chosen: The one that is used where none is asked for.
        count: How many there are.
        fold: Its fold; None where there are none.
    """

    seed: int
    chosen: int
    count: int
    fold: int | None = None

    @property
    def tags(self) -> dict[str, str]:
        """What a registered version says of it."""
        return {"lora_compare.seed": str(self.seed), "lora_compare.seeds": str(self.count)}

    @property
    def words(self) -> str:
        """What a description says of it."""
        if self.count == 1:
            return f"Trained once, with the seed {self.seed}."
        if self.fold:
            return f"Trained without the test messages of fold {self.fold}, one of {self.count}."
        best = "which has the lowest validation loss of them"
        other = f"of which {self.chosen} has the lowest validation loss"
        told = best if self.seed == self.chosen else other
        return f"Trained with the seed {self.seed}, one of {self.count}, {told}."


@dataclass(frozen=True)
class Bundle:
    """A method with all that is needed to serve it, and the other methods on the same base.

    Attributes:
        method: The method that answers where a request names none.
        methods: All methods in it, that one first.
        classes: Names of the classes.
        files: What it holds, by its path in the artifact `models`.
        record: The method's run.
        own: The run of the training that it is of, where that is another one.
        seed: The seed of that training; None of TF-IDF.
        libraries: What it needs beside what every served model does.
        key: Names the content: the same for the same weights and the same run.
        description: Markdown.
        is_champion: Whether it is the one to serve.
    """

    method: str
    methods: tuple[str, ...]
    classes: tuple[str, ...]
    files: Mapping[str, Path]
    record: RunRecord
    own: RunRecord
    seed: Seed | None
    libraries: tuple[str, ...]
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


def bundles(
    paths: Paths, records: Iterable[RunRecord], seeds: Mapping[str, int] | None = None
) -> list[Bundle]:
    """Return the models of the methods that `records` show, and of TF-IDF, from files alone.

    A method that trained every weight is in its own bundle only; the others share the base,
    and each one's bundle holds them all.

    Args:
        paths: The project.
        records: The runs of what is on disk. Where that of `compare` is among them, the
            comparison names the champion.
        seeds: The trainings to take, by method; of the others, the chosen one.

    Raises:
        MissingArtifactError: A method has no training with that seed.
    """
    records = list(records)
    runs = {r.tags[METHOD_TAG]: r for r in records if r.stage == METHOD}
    runs |= [(TFIDF, r) for r in records if r.stage == "baseline"]
    sources = {name: s for name in runs if (s := _source(paths, name, (seeds or {}).get(name)))}
    comparison = {}
    if sources and any(record.stage == "compare" for record in records):
        comparison = read_comparison(paths.metrics("comparison"))
    champion = read_recommendation(comparison)
    sharing = [name for name, one in sources.items() if one.config["trainable"] not in ALONE]
    result = []
    for name, source in sources.items():
        others = [n for n in sharing if n != name] if name in sharing else []
        inside = {n: sources[n] for n in (name, *others)}
        own = next((r for r in records if source.is_of(r)), runs[name])
        result.append(_bundle(paths, inside, (runs[name], own), comparison, champion))
    return result


@dataclass(frozen=True)
class _Source:
    """A training of a method, or TF-IDF: its folder, what that says of it, and its decision.

    Where there is no file of that, the likeliest class is the answer.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    seed: Seed | None
    decision: Path

    @property
    def stage(self) -> str:
        return "baseline" if self.name == TFIDF else f"finetune@{self.name}"

    def is_of(self, record: RunRecord) -> bool:
        """Return whether a run is that of this very training."""
        own = (self.name, str(self.seed.seed) if self.seed else "")
        return record.stage == SEED and (record.tags[METHOD_TAG], record.tags[SEED]) == own


def _source(paths: Paths, method: str, seed: int | None) -> _Source | None:
    """Return a method's training; None if it cannot be served with this base."""
    folder = paths.model(method)
    if method == TFIDF:
        more = {"trainable": TFIDF, "lora": None}
        whole = is_file(folder / SUMS)
        return (
            _Source(
                *(TFIDF, folder, read_json(folder / "config.json") | more, None),
                paths.decision(TFIDF),
            )
            if whole
            else None
        )
    if not all(is_file(one) for one in (paths.base / SUMS, folder / SUMS, folder / SEEDS_FILE)):
        return None
    own, there = chosen(folder, seed), read_seeds(folder)
    fold = there.fold(seed_of(own))
    if paths.base_of(fold) != paths.base:
        raise MissingArtifactError(
            f"{method} of fold {fold} is not on the base model that all methods are served on.",
            where=str(paths.base_of(fold)),
            expected="a training of the first fold",
            next="leave --seed out\nor lora-compare export it, with its base",
        )
    base, config = (read_json(one / "config.json") for one in (paths.base, own))
    if any(key not in config for key in DESCRIBES) or config["base"]["sha256"] != base.get(
        "sha256"
    ):
        return None
    trained = Seed(seed_of(own), there.chosen, len(there.seeds), fold)
    return _Source(method, own, config, trained, paths.decision(method, trained.seed))


def _bundle(
    paths: Paths,
    sources: Mapping[str, _Source],
    runs: tuple[RunRecord, RunRecord],
    comparison: Mapping[str, Any],
    champion: Recommendation | None,
) -> Bundle:
    """Return the bundle of the methods of `sources`, of which the first is the bundle's own."""
    method, source = next(iter(sources.items()))
    record, own = runs
    is_used = source.seed is None or source.seed.seed == source.seed.chosen
    why = champion.why if champion and champion.use == method and is_used else ""
    decisions = {n: sha256(s.decision) for n, s in sources.items() if is_file(s.decision)}
    key = {
        "run": record.key,
        "method": method,
        "sums": {name: digest(one.folder, one.stage) for name, one in sources.items()},
        **({"decisions": decisions} if decisions else {}),
        "base": None if method == TFIDF else digest(paths.base, "base_model"),
        "code": [sha256(file) for file in SERVING_CODE],
    }
    return Bundle(
        method=method,
        methods=tuple(sources),
        classes=tuple(source.config["classes"]),
        files=_files(paths, sources),
        record=record,
        own=own,
        seed=source.seed,
        libraries=tuple(_libraries(paths, sources)),
        key=sha256_of(key),
        description=_describe(source, own, list(sources), comparison)
        + (f"\n\n**Champion of its comparison**: {why}" if why else ""),
        is_champion=bool(why),
    )


def _libraries(paths: Paths, sources: Mapping[str, _Source]) -> Iterator[str]:
    """Yield what a method in 4 bit and a base of transformers need."""
    if any((source.config["lora"] or {}).get("quantization") for source in sources.values()):
        yield "bitsandbytes"
    if TFIDF not in sources and read_json(paths.base / "config.json").get("kind") == "hub":
        yield from HUB


def _files(paths: Paths, sources: Mapping[str, _Source]) -> dict[str, Path]:
    is_whole = all(source.config["trainable"] == "all" for source in sources.values())
    folders = {name: source.folder for name, source in sources.items()}
    if TFIDF not in sources:
        folders = {"base": paths.base, **folders}
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": path
        for name, folder in folders.items()
        for path in sorted(folder.rglob("*"))
        # A hidden file is what an earlier, killed write left behind.
        if path.is_file() and not path.name.startswith(".")
        if not path.parent.name.startswith(FOLD)  # the base of a fold that is not served
        if not (is_whole and path == paths.base / WEIGHTS)
    } | {f"{n}/{FILE}": s.decision for n, s in sources.items() if is_file(s.decision)}


def _describe(
    source: _Source, own: RunRecord, methods: list[str], comparison: Mapping[str, Any]
) -> str:
    """Return what a registered version is, as Markdown."""
    shown = ", ".join(source.config["classes"][:SHOWN_CLASSES])
    more = len(source.config["classes"]) - SHOWN_CLASSES
    lines = [f"`{source.name}` tells {shown}{f' and {more} more' if more > 0 else ''} apart."]
    lines += [source.seed.words] if source.seed else []
    compared = (*comparison.get("methods", ()), *comparison.get("baselines", ()))
    if record := next((r for r in compared if r["method"] == source.name), None):
        lines.append(_reached(source, own, record))
    if len(methods) > 1:
        others = ", ".join(f"`{name}`" for name in methods[1:])
        lines.append(f"The request parameter `method` chooses another on the same base: {others}.")
    return " ".join(lines)


def _reached(source: _Source, own: RunRecord, record: Mapping[str, Any]) -> str:
    """Return the accuracy of a model; that of its method beside it, where it has several."""
    trained = f"{count(record['trainable_parameters'])} trained parameters."
    if source.seed is None or source.seed.count == 1:
        interval = percent_interval([record["test_accuracy_low"], record["test_accuracy_high"]])
        reached = percent(record["test_accuracy"])
        return f"Test accuracy {reached} (95 % interval {interval}), {trained}"
    of_this = next((p.value for p in own.points if p.key == "test/accuracy"), None)
    mean = with_spread(record, "test_accuracy")
    return (
        f"Test accuracy of this model {percent(of_this)}; mean and standard deviation of the "
        f"method's {source.seed.count} trainings {mean}; {trained}"
    )
