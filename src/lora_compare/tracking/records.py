"""The record of every run, built from files on disk alone; MLflow is where it is shown."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_compare.errors import without_credentials
from lora_compare.params import Params
from lora_compare.project.files import read_json, sha256, sha256_of
from lora_compare.project.lineage import Pipeline
from lora_compare.project.paths import SPLITS, TFIDF, Paths
from lora_compare.report.markdown import render_results
from lora_compare.tracking.figures import (
    HARDWARE,
    costs,
    curves,
    describe_method,
    evaluation,
    headline,
    sizes,
    stage_figures,
    verdict_tags,
)
from lora_compare.tracking.runs import (
    DATA,
    PIPELINE,
    STAGES,
    Artifact,
    Data,
    RunRecord,
    artifact,
    lineage_tags,
    subject,
)

SECTIONS: dict[str, tuple[str, ...]] = {
    "download": ("data",),
    "split": ("data", "split"),
    "base_model": ("data", "split", "model"),
}
EVERY_SECTION = ("data", "split", "model", "classifier", "training")

UPLOAD_LIMIT = 100_000_000
"""Bytes above which a model file is named by its checksum and not copied."""


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


def method_record(pipeline: Pipeline, method: str, evaluated: bool, plots: bool) -> RunRecord:
    """Return the record of one method's run.

    Args:
        pipeline: The state on disk.
        method: The method's name.
        evaluated: Whether the evaluation on disk is of the model on disk.
        plots: Whether the same holds for the report's plots.
    """
    paths = pipeline.paths
    cost = read_json(paths.cost(method))
    stages = {f"finetune@{method}": pipeline.lineage("finetune", method)}
    points = [*curves(paths.history(method)), *costs(cost), *sizes(paths.model(method))]
    description = ""
    if evaluated:
        metrics = read_json(paths.metrics(method))
        points.extend(evaluation(metrics))
        description = describe_method(metrics, cost)
        stages[f"evaluate@{method}"] = pipeline.lineage("evaluate", method)
    start = starting_record(pipeline, method)
    tags = {**start.tags, **_model_tags(paths, method)}
    tags |= {f"cost.{name}": str(cost[name]) for name in HARDWARE if name in cost}
    return replace(
        start,
        points=tuple(points),
        tags=tags | lineage_tags(stages),
        artifacts=tuple(_method_files(paths, pipeline.params, method, evaluated, plots)),
        datasets=datasets(pipeline, SPLITS if evaluated else SPLITS[:2]),
        seconds=float(cost.get("train_seconds", 0.0)),
        description=description,
    )


def starting_record(pipeline: Pipeline, method: str) -> RunRecord:
    """Return what is known of a method's run when its training starts."""
    return RunRecord(
        key=method_key(pipeline, method),
        name=method,
        stage="method",
        parent=pipeline_key(pipeline),
        params=method_params(pipeline.params, method),
        tags={"lora_compare.method": method, "dvc.stage": f"finetune@{method}"}
        | subject(pipeline.params.flat()),
    )


def stage_record(pipeline: Pipeline, stage: str) -> RunRecord:
    """Return the record of a stage that is not about one method."""
    paths, params = pipeline.paths, pipeline.params
    files = {
        "download": [paths.provenance],
        "split": [paths.metrics("split"), paths.classes],
        "base_model": [paths.base / "config.json", paths.base / "tokenizer.json"],
        "baseline": [paths.metrics("baseline"), *map(paths.predictions, ("untuned", TFIDF))],
        "compare": [paths.metrics("comparison"), *map(paths.report, ("md", "html"))],
    }[stage]
    artifacts = [artifact(file, file.name) for file in files if file.is_file()]
    tags = lineage_tags({stage: pipeline.lineage(stage)}) | subject(params.flat())
    if stage == "baseline" and paths.model(TFIDF).is_dir():
        tags |= _model_tags(paths, TFIDF)
        artifacts += _model_files(paths, TFIDF)
    if stage == "compare":
        artifacts += [artifact(p, f"plots/{p.name}") for p in _plots(paths)]
        tags |= verdict_tags(read_json(files[0]))
    return RunRecord(
        key=stage_key(pipeline, stage),
        name=stage,
        stage=stage,
        parent=pipeline_key(pipeline),
        params=section_params(params, SECTIONS.get(stage, EVERY_SECTION)),
        points=tuple(stage_figures(stage, files[0])),
        tags=tags,
        artifacts=tuple(artifacts),
        datasets=datasets(pipeline, SPLITS) if stage in ("split", "baseline", "compare") else (),
    )


def pipeline_record(pipeline: Pipeline, runs: tuple[tuple[str, str], ...] = ()) -> RunRecord:
    """Return the record of the parent run.

    Args:
        pipeline: The state on disk.
        runs: Label and key of the runs of this state; with them comes the comparison, without
            them the record is provisional.
    """
    params, paths = pipeline.params, pipeline.paths
    key, names = pipeline_key(pipeline), subject(params.flat())
    comparison = read_json(paths.metrics("comparison")) if runs else {}
    page = paths.report("html")
    return RunRecord(
        key=key,
        name=" ".join((PIPELINE, *names.values(), key[:8])),
        stage=PIPELINE,
        parent="",
        params=section_params(params, (*EVERY_SECTION, "methods")),
        points=tuple(headline(comparison)),
        tags=names | verdict_tags(comparison),
        artifacts=(artifact(page, page.name),) if runs and page.is_file() else (),
        # MLflow's page shows the first line, and the rest on demand.
        description=render_results(comparison, verdict_first=True) if runs else "",
        runs=runs,
    )


class _Usable:
    """Which outputs exist and belong to what is on disk; collects those that do not."""

    def __init__(self, pipeline: Pipeline, just_ran: str) -> None:
        self._pipeline = pipeline
        self._just_ran = just_ran
        self.stale: list[str] = []

    def __call__(self, output: Path, stage: str, method: str | None = None) -> bool:
        if not output.exists():
            return False
        if stage == self._just_ran or self._pipeline.is_current(stage, method):
            return True
        self.stale.append(f"{stage}@{method}" if method else stage)
        return False


def current_records(pipeline: Pipeline, just_ran: str = "") -> tuple[list[RunRecord], list[str]]:
    """Return the records of all that is on disk, the pipeline's first, and what is out of date.

    Args:
        pipeline: The state on disk.
        just_ran: The stage that has just written its files, of which dvc.lock cannot know.
    """
    paths, records = pipeline.paths, []
    usable = _Usable(pipeline, just_ran)
    compared = usable(paths.metrics("comparison"), "compare")
    outputs = (paths.provenance, paths.metrics("split"), paths.base, paths.metrics("baseline"))
    for stage, output in zip(STAGES, outputs, strict=False):
        if usable(output, stage):
            records.append(stage_record(pipeline, stage))
    for method in pipeline.params.methods:
        if usable(paths.cost(method), "finetune", method):
            evaluated = usable(paths.metrics(method), "evaluate", method)
            records.append(method_record(pipeline, method, evaluated, compared))
    if compared:
        records.append(stage_record(pipeline, "compare"))
    if not records:
        return [], usable.stale
    runs = tuple((record.name, record.key) for record in records) if compared else ()
    return [pipeline_record(pipeline, runs), *records], usable.stale


def _holds_times(path: str) -> bool:
    return path.startswith("reports/training") or path.endswith("_cost.json")


def method_params(params: Params, method: str) -> dict[str, str]:
    """Return every parameter that shapes a method, under the same keys for every method.

    Of an adapter's many settings, those that all methods leave at their default are left out.
    """
    chosen = [section.flat(defaults=False) for section in params.methods.values()]
    settings = params.method(method).flat()
    own = {f"method.{key}": settings.get(key) for keys in chosen for key in keys}
    return section_params(params, EVERY_SECTION) | _as_text(own)


def section_params(params: Params, sections: tuple[str, ...]) -> dict[str, str]:
    """Return the parameters of `sections` under dotted keys."""
    return _as_text({k: v for k, v in params.flat().items() if k.split(".")[0] in sections})


def _as_text(settings: Mapping[str, Any]) -> dict[str, str]:
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in settings.items()}
    return {key: without_credentials(text) for key, text in texts.items()}


def datasets(pipeline: Pipeline, splits: tuple[str, ...]) -> tuple[Data, ...]:
    """Return the splits with their digests."""
    source = subject(pipeline.params.flat())[DATA]
    files = {name: pipeline.paths.split(name) for name in splits}
    return tuple(
        Data(f"{source}-{name}", sha256(file)[:16], f"data/splits/{name}.csv", name)
        for name, file in files.items()
        if file.is_file()
    )


def _method_files(
    paths: Paths, params: Params, method: str, evaluated: bool, plots: bool
) -> Iterator[Artifact]:
    yield artifact(paths.history(method), "history.csv")
    yield artifact(paths.cost(method), "cost.json")
    yield from _model_files(paths, method)
    if evaluated:
        yield artifact(paths.metrics(method), "metrics.json")
        if paths.predictions(method).is_file():
            yield artifact(paths.predictions(method), "predictions.csv")
    for plot in _plots(paths) if plots else ():
        if _owner(plot.stem, params) == method:
            yield artifact(plot, f"plots/{plot.name}")


def _model_tags(paths: Paths, name: str) -> dict[str, str]:
    weights = paths.model(name) / "model.safetensors"
    return {"lora_compare.model": f"models/{name}", "lora_compare.model.sha256": sha256(weights)}


def _model_files(paths: Paths, name: str) -> Iterator[Artifact]:
    for file in sorted(paths.model(name).iterdir()):
        if file.is_file() and file.stat().st_size <= UPLOAD_LIMIT:
            yield artifact(file, f"model/{file.name}")


def _plots(paths: Paths) -> list[Path]:
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
