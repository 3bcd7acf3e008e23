"""What a run shows and by which key it is known, independent of where; and as JSON to keep."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from lora_compare.errors import without_credentials
from lora_compare.params import MODEL_FOLDERS, Params
from lora_compare.project.files import read_json, sha256, sha256_of
from lora_compare.project.lineage import Lineage, Pipeline
from lora_compare.project.paths import Paths
from lora_compare.project.seeds import SEEDS_FILE, chosen
from lora_compare.tracking.figures import Point, segment

PIPELINE = "pipeline"
"""The stage of the parent run, which stands for one state of the whole pipeline."""

STAGES = ("download", "split", "base_model", "baseline", "compare")
"""The stages with a run of their own; `finetune` and `evaluate` of a method share one."""

METHOD, SEED, TRIAL = "method", "seed", "tuning"
"""The stages of a method's run and of the runs below it: of its trainings, of its search's. The
latter two are tags as well, of the training's seed and of the trial's number."""

EVERY_SECTION = ("data", "split", "model", "classifier", "training")

DATA, BASE = "lora_compare.data", "lora_compare.base"
"""The tags that say what a run is of, where several data sets and bases share a store."""


def subject(settings: Mapping[str, object]) -> dict[str, str]:
    """Return the names of the data set and of the base model, as tags; none has a slash.

    Args:
        settings: All parameters under dotted keys, `data.source` and `model.name` among them.
    """
    source = settings["data.source"]
    named = source["train"] if isinstance(source, Mapping) else source
    address = without_credentials(str(named)).partition("?")[0]
    source = PurePosixPath(address.removesuffix(".gz"))
    # It is part of a registered model's name, in which MLflow allows no slash.
    base = str(settings["model.name"]).removeprefix(f"{MODEL_FOLDERS}/").replace("/", "-")
    return {DATA: segment(source.stem), BASE: base}


UPLOAD_LIMIT = 100_000_000
"""Bytes above which a model file is named by its checksum and not copied."""


@dataclass(frozen=True)
class Artifact:
    """A file shown with a run.

    Attributes:
        source: Where it lies.
        target: Its path within the run's artifacts.
        sha256: Its checksum.
    """

    source: Path
    target: str
    sha256: str


@dataclass(frozen=True)
class Data:
    """A split that a run used.

    Attributes:
        name: Source and split.
        digest: The first 16 digits of the file's SHA-256.
        path: The file, relative to the project.
        context: train, validation or test.
    """

    name: str
    digest: str
    path: str
    context: str


@dataclass(frozen=True)
class RunRecord:
    """All that a run in MLflow shows.

    Attributes:
        key: Names the content that was computed: the same for the same inputs and code.
        name: What people see.
        stage: `method`, `seed`, `tuning`, a stage, or `pipeline`.
        parent: Key of the pipeline's run, for a seed of its method's; empty for the first.
        params: Flattened parameters.
        points: Metrics.
        tags: Where the content comes from.
        artifacts: Files.
        datasets: Splits.
        seconds: How long the work took; 0: not known.
        description: Markdown.
        origin: Commit, user and experiment, where it was computed at another time than now.
        runs: For the pipeline: label and key of every run of this state.
    """

    key: str
    name: str
    stage: str
    parent: str
    params: Mapping[str, str]
    points: tuple[Point, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    datasets: tuple[Data, ...] = ()
    seconds: float = 0.0
    description: str = ""
    origin: Mapping[str, str] = field(default_factory=dict)
    runs: tuple[tuple[str, str], ...] = ()

    @property
    def content(self) -> str:
        """The SHA-256 of what the run shows."""
        points = [(p.key, p.step, p.value) for p in self.points]
        files = {a.target: a.sha256 for a in self.artifacts}
        data = [(d.name, d.digest, d.context) for d in self.datasets]
        return sha256_of([dict(self.params), points, files, data, self.description])

    @property
    def provisional(self) -> bool:
        """Whether it is a pipeline's record made before there was a comparison."""
        return self.stage == PIPELINE and not self.points

    @property
    def is_begun(self) -> bool:
        """Whether it is a method's record made before there was anything to show of it."""
        return self.stage == METHOD and not self.points

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a JSON value; the sources of artifacts are file names alone."""
        value = asdict(self)
        for number, entry in enumerate(value["artifacts"]):
            entry["source"] = str(number)
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], folder: Path) -> "RunRecord":
        """Return the record that `to_dict` made, with its artifacts in `folder`."""
        return cls(
            **{
                **value,
                "points": tuple(Point(**point) for point in value["points"]),
                "artifacts": tuple(
                    Artifact(**{**entry, "source": folder / entry["source"]})
                    for entry in value["artifacts"]
                ),
                "datasets": tuple(Data(**entry) for entry in value["datasets"]),
                "runs": tuple((label, key) for label, key in value["runs"]),
            }
        )


def artifact(source: Path, target: str) -> Artifact:
    """Return a file as an artifact."""
    return Artifact(source, target, sha256(source))


def lineage_tags(stages: Mapping[str, Lineage]) -> dict[str, str]:
    """Return DVC's stages, inputs and outputs with their MD5s, and a hash of the parameters."""
    outs = {k: v for lineage in stages.values() for k, v in lineage.outs.items()}
    deps = {k: v for lineage in stages.values() for k, v in lineage.deps.items() if k not in outs}
    settings = {k: v for lineage in stages.values() for k, v in lineage.settings.items()}
    return {
        "dvc.stage": " ".join(stages),
        "dvc.deps": _listing(deps),
        "dvc.outs": _listing(outs),
        "lora_compare.params": sha256_of(settings),
    }


def _listing(checksums: Mapping[str, str | None]) -> str:
    return "\n".join(f"{checksum} {path}" for path, checksum in checksums.items() if checksum)


def method_key(pipeline: Pipeline, method: str) -> str:
    """Return the key of a method's run, known before its training starts.

    It covers parameters, data, base model and code of `finetune` and `evaluate`. What one
    hands to the other is left out: it follows from the rest.
    """
    tuned, evaluated = pipeline.lineage("finetune", method), pipeline.lineage("evaluate", method)
    made = tuple(f"{out}/" for out in tuned.outs)
    deps = {
        k: v for k, v in {**evaluated.deps, **tuned.deps}.items() if not f"{k}/".startswith(made)
    }
    settings = {**evaluated.settings, **tuned.settings}
    return sha256_of({"method": method, "settings": settings, "deps": deps})


def stage_key(pipeline: Pipeline, stage: str) -> str:
    """Return the key of a stage's run; measured times, which never repeat, have no part in it."""
    lineage = pipeline.lineage(stage)
    deps = {k: v for k, v in lineage.deps.items() if not _holds_times(k)}
    source: Any = sha256(pipeline.paths.provenance) if stage == "download" else ""
    if stage == "compare":  # where its methods have new runs, it has one beside them
        source = [method_key(pipeline, method) for method in pipeline.params.methods]
    return sha256_of({"stage": stage, "settings": lineage.settings, "deps": deps, "source": source})


def pipeline_key(pipeline: Pipeline) -> str:
    """Return the key of the parent run: all parameters but `tracking`, and all code."""
    settings = pipeline.params.model_dump(mode="json", exclude={"tracking"})
    return sha256_of({"settings": settings, "sources": pipeline.sources()})


def training_key(method: str, seed: int, trial: int | None = None) -> str:
    """Return the key of the run of one training.

    Args:
        method: The key of the method's run.
        seed: The training's seed.
        trial: The trial's number, for a training of the method's search.
    """
    return sha256_of({"method": method, "seed": seed, "trial": trial})


def _holds_times(path: str) -> bool:
    return path.startswith("reports/training") or path.endswith("_cost.json")


def method_params(paths: Paths, params: Params, method: str) -> dict[str, str]:
    """Return every parameter that shapes a method, under the same keys for every method.

    Of an adapter's many settings, those that all methods leave at their default are left out.
    What was searched has the value that was chosen, with which the method is trained.
    """
    choice = paths.choice(method)
    tuned = {method: read_json(choice)["settings"]} if choice.is_file() else {}
    named = [section.flat(defaults=False) for section in params.methods.values()]
    settings = params.method(method).flat() | params.with_choices(tuned).method(method).flat(False)
    own = {f"method.{key}": settings.get(key) for keys in named for key in keys}
    return section_params(params, EVERY_SECTION) | _as_text(own)


def section_params(params: Params, sections: tuple[str, ...]) -> dict[str, str]:
    """Return the parameters of `sections` under dotted keys."""
    return _as_text({k: v for k, v in params.flat().items() if k.split(".")[0] in sections})


def _as_text(settings: Mapping[str, Any]) -> dict[str, str]:
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in settings.items()}
    return {key: without_credentials(text) for key, text in texts.items()}


def method_files(
    paths: Paths, params: Params, method: str, evaluated: bool, with_plots: bool
) -> Iterator[Artifact]:
    """Yield the files of a method's run.

    Args:
        paths: The project.
        params: Its parameters.
        method: The method's name.
        evaluated: Whether the evaluation on disk is of the models on disk.
        with_plots: Whether the same holds for the report's plots.
    """
    yield artifact(paths.history(method), "history.csv")
    yield artifact(paths.cost(method), "cost.json")
    yield artifact(paths.model(method) / SEEDS_FILE, SEEDS_FILE)
    yield from model_files(chosen(paths.model(method)))
    if evaluated:
        yield artifact(paths.metrics(method), "metrics.json")
        for file in sorted(paths.evaluated(method).glob("predictions-*.csv")):
            yield artifact(file, file.name)
    for plot in plots(paths) if with_plots else ():
        if _owner(plot.stem, params) == method:
            yield artifact(plot, f"plots/{plot.name}")


def model_tags(paths: Paths, folder: Path) -> dict[str, str]:
    """Return the tags that say in which folder a run's model lies, and its checksum."""
    place, weights = folder.relative_to(paths.root).as_posix(), folder / "model.safetensors"
    return {"lora_compare.model": place, "lora_compare.model.sha256": sha256(weights)}


def model_files(folder: Path) -> Iterator[Artifact]:
    """Yield the files of a model, but for those above `UPLOAD_LIMIT`."""
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.stat().st_size <= UPLOAD_LIMIT:
            yield artifact(file, f"model/{file.name}")


def plots(paths: Paths) -> list[Path]:
    """Return the report's plots."""
    return sorted(paths.plots.glob("*.svg"))


def _owner(stem: str, params: Params) -> str | None:
    """Return the method that a plot's name starts or ends with, the longest name first."""
    for method in sorted(params.methods, key=len, reverse=True):
        edges = (
            tuple(f"{method}{mark}" for mark in "_-."),
            tuple(f"{mark}{method}" for mark in "_-."),
        )
        if stem == method or stem.startswith(edges[0]) or stem.endswith(edges[1]):
            return method
    return None
