"""The record of every run, built from files on disk alone; MLflow is where it is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_compare.project.files import read_json, sha256
from lora_compare.project.lineage import Pipeline
from lora_compare.project.paths import SPLITS, TFIDF, Paths
from lora_compare.project.seeds import SEEDS_FILE, chosen
from lora_compare.report.markdown import render_results
from lora_compare.tracking.figures import (
    HARDWARE,
    TRIAL_COLUMNS,
    TRIAL_FIGURES,
    Point,
    costs,
    describe_method,
    evaluation,
    headline,
    histories,
    mean_curves,
    read_rows,
    sizes,
    stage_figures,
    trial_curves,
    verdict_tags,
)
from lora_compare.tracking.runs import (
    DATA,
    EVERY_SECTION,
    METHOD,
    PIPELINE,
    SEED,
    STAGES,
    TRIAL,
    Data,
    RunRecord,
    artifact,
    lineage_tags,
    method_files,
    method_key,
    method_params,
    model_files,
    model_tags,
    pipeline_key,
    plots,
    section_params,
    stage_key,
    subject,
    training_key,
)

METHOD_TAG = "lora_compare.method"
"""The tag by which a run names its method."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "download": ("data",),
    "split": ("data", "split"),
    "base_model": ("data", "split", "model"),
}


def method_records(
    pipeline: Pipeline, method: str, evaluated: bool, with_plots: bool
) -> list[RunRecord]:
    """Return the records of one method's run and of the runs below it, one for each seed.

    Args:
        pipeline: The state on disk.
        method: The method's name.
        evaluated: Whether the evaluation on disk is of the models on disk.
        with_plots: Whether the same holds for the report's plots.
    """
    paths = pipeline.paths
    cost, trainings = read_json(paths.cost(method)), histories(paths.history(method))
    metrics = read_json(paths.metrics(method)) if evaluated else {}
    stages = {f"finetune@{method}": pipeline.lineage("finetune", method)}
    folder = chosen(paths.model(method))
    points = [*mean_curves(trainings), *costs(cost), *sizes(folder)]
    if evaluated:
        points.extend(evaluation(metrics))
        stages[f"evaluate@{method}"] = pipeline.lineage("evaluate", method)
    start, *below = starting_records(pipeline, method, [*trainings])
    tags = {**start.tags, **model_tags(paths, folder)}
    tags |= {f"cost.{name}": str(cost[name]) for name in HARDWARE if name in cost}
    own = replace(
        start,
        points=tuple(points),
        tags=tags | lineage_tags(stages),
        artifacts=tuple(method_files(paths, pipeline.params, method, evaluated, with_plots)),
        datasets=datasets(pipeline, SPLITS if evaluated else SPLITS[:2]),
        seconds=float(cost.get("train_seconds", 0.0)),
        description=describe_method(metrics, cost) if evaluated else "",
    )
    known = metrics.get("per_seed", {})
    return [own, *(_filled(paths, one, trainings, known) for one in below)]


def starting_records(pipeline: Pipeline, method: str, seeds: Sequence[int]) -> list[RunRecord]:
    """Return what is known of a method's run, and of those below it, when its trainings start.

    Args:
        pipeline: The state on disk.
        method: The method's name.
        seeds: Those of its trainings; a single one has no run of its own, it is the method's.
    """
    key, names = method_key(pipeline, method), subject(pipeline.params.flat())
    own = RunRecord(
        key=key,
        name=method,
        stage=METHOD,
        parent=pipeline_key(pipeline),
        params=method_params(pipeline.paths, pipeline.params, method),
        tags={METHOD_TAG: method, "dvc.stage": f"finetune@{method}"} | names,
    )
    below = [
        RunRecord(
            key=training_key(key, seed),
            name=f"{method} seed {seed}",
            stage=SEED,
            parent=key,
            params={"seed": str(seed)},
            tags={METHOD_TAG: method, SEED: str(seed)} | names,
        )
        for seed in seeds
    ]
    return [own, *(below if len(seeds) > 1 else [])]


def _filled(
    paths: Paths,
    start: RunRecord,
    trainings: Mapping[int, Sequence[Point]],
    known: Mapping[str, Mapping[str, Any]],
) -> RunRecord:
    """Return the record of one training, with its curve and what is known of it by seed."""
    method, seed = start.tags[METHOD_TAG], start.tags[SEED]
    figures = evaluation(known[seed]) if seed in known else ()
    return replace(
        start,
        points=(*trainings[int(seed)], *figures),
        # That of all seeds: there is no other file.
        artifacts=(artifact(paths.history(method), "history.csv"),),
    )


def trial_records(pipeline: Pipeline, method: str) -> list[RunRecord]:
    """Return the records of a method's search: one for each training; none without a search."""
    folder, key = pipeline.paths.tuning(method), method_key(pipeline, method)
    if not read_json(pipeline.paths.choice(method))["searched"]:
        return []
    names, curves = subject(pipeline.params.flat()), trial_curves(folder / "history.csv")
    records = []
    for row in read_rows(folder / "trials.csv"):
        trial, seed = row["trial"], row["seed"]
        searched = {f"method.{k}": v for k, v in row.items() if k not in TRIAL_COLUMNS}
        figures = [Point(f"tuning/{k}", float(row[k])) for k in TRIAL_FIGURES if row[k]]
        records.append(
            RunRecord(
                key=training_key(key, int(seed), int(trial)),
                name=f"{method} trial {trial} seed {seed}",
                stage=TRIAL,
                parent=key,
                params={**searched, SEED: seed},
                points=(*curves.get((trial, seed), ()), *figures),
                tags={METHOD_TAG: method, TRIAL: trial, SEED: seed, "status": row["status"]}
                | names,
            )
        )
    return records


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
        tags |= model_tags(paths, paths.model(TFIDF))
        artifacts += model_files(paths.model(TFIDF))
    if stage == "compare":
        artifacts += [artifact(p, f"plots/{p.name}") for p in plots(paths)]
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
        # An earlier version left a method of one training, without seeds.
        seeded = (paths.model(method) / SEEDS_FILE).is_file()
        if usable(paths.cost(method), "finetune", method) and seeded:
            evaluated = usable(paths.metrics(method), "evaluate", method)
            records += method_records(pipeline, method, evaluated, compared)
            if usable(paths.choice(method), "tune", method):
                records += trial_records(pipeline, method)
    if compared:
        records.append(stage_record(pipeline, "compare"))
    if not records:
        return [], usable.stale
    # Of a method its trainings are a click away.
    below = (SEED, TRIAL)
    shown = [record for record in records if record.stage not in below] if compared else []
    runs = tuple((record.name, record.key) for record in shown)
    return [pipeline_record(pipeline, runs), *records], usable.stale


def datasets(pipeline: Pipeline, splits: tuple[str, ...]) -> tuple[Data, ...]:
    """Return the splits with their digests."""
    source = subject(pipeline.params.flat())[DATA]
    files = {name: pipeline.paths.split(name) for name in splits}
    return tuple(
        Data(f"{source}-{name}", sha256(file)[:16], f"data/splits/{name}.csv", name)
        for name, file in files.items()
        if file.is_file()
    )
