"""Publishing records so that nothing is ever there twice."""

import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lora_compare.project.files import sha256_of
from lora_compare.tracking.figures import Point
from lora_compare.tracking.mailbox import now
from lora_compare.tracking.runs import PIPELINE, STAGES, Artifact, RunRecord
from lora_compare.tracking.store import KEY, Store

COMPLETE = "lora_compare.complete"
CONTENT = "lora_compare.content"
FILES = "lora_compare.files"
PLANNED = "SCHEDULED"
"""What MLflow calls the status of a run that is there and has not begun."""

LETTER = "lora_compare.letter"
"""The tag by which a postman knows the run again that another one, now dead, has begun."""


class Diary:
    """What makes the runs of an experiment equal to their records.

    Args:
        store: The experiment.
        origin: Commit, user and experiment of records that do not say whence they come.
    """

    def __init__(self, store: Store, origin: Mapping[str, str] | None = None) -> None:
        self._store = store
        self._origin = origin or {}
        self._ids: dict[str, str] = {}
        self._found: dict[str, list[Any]] = {}

    def publish_all(self, records: list[RunRecord]) -> list[tuple[str, bool]]:
        """Publish records; return each one's name and whether the store changed.

        A parent run exists before its children, and is completed after them: it links them. A
        method's, too, may be there to hold its search before it is trained.
        """
        # A method comes before its trainings among them.
        children = [record for record in records if record.parent and not record.is_begun]
        parents = [record for record in records if not record.parent]
        for parent in parents:
            if self.id_of(parent.key) is None:
                self.start(parent, now())
        for record in records:
            if record.is_begun and self.id_of(record.key) is None:
                run_id = str(self.start(record, now()).info.run_id)
                self._store.log(run_id, params=record.params, tags=record.tags)
                self._store.finish(run_id, PLANNED, None)
        return [(record.name, self.publish(record)) for record in children + parents]

    def id_of(self, key: str) -> str | None:
        """Return the id of the run of that key, if there is one."""
        if key not in self._ids:
            # `publish` takes it from here, which saves a server a question.
            self._found[key] = self._store.find(key)
            if self._found[key]:
                self._ids[key] = str(self._found[key][0].info.run_id)
        return self._ids.get(key)

    def start(self, record: RunRecord, at: int, letter: str = "") -> Any:
        """Return a new run without content that started at `at` (ms since 1970).

        Args:
            record: What it is to show.
            at: Its start.
            letter: The letter of a training that runs; empty: none.
        """
        tags = {
            **({LETTER: letter} if letter else {}),
            KEY: record.key,
            "lora_compare.stage": record.stage,
            "mlflow.source.type": "LOCAL",
            "mlflow.source.name": "dvc repro",
            **(record.origin or self._origin),
        }
        tags |= self._parent(record)
        experiment = tags.get("dvc.experiment")
        name = record.name
        if experiment:
            # MLflow's table cuts long names off: an experiment's pipeline needs no digits as well.
            short = name.rpartition(" ")[0] if record.stage == PIPELINE else name
            name = f"{short} ({experiment})"
        run = self._store.create(name, at, tags)
        self._ids[record.key] = str(run.info.run_id)
        self._found[record.key] = [run]
        return run

    def restart(self, record: RunRecord, letter: str, at: int) -> str | None:
        """Return the id of the run to fill while it trains; None if it was done before.

        A run that the same letter began is gone on with, and so is one that holds a search. What a
        killed training of the same key left is deleted.

        Args:
            record: What is known of it.
            letter: The name of the letter that tells of it.
            at: When it started (ms since 1970).
        """
        found = self._store.find(record.key)
        if any(map(_is_complete, found)):
            return None
        own = [r for r in found if r.data.tags.get(LETTER) == letter or r.info.status == PLANNED]
        for run in found:
            if run not in own[:1]:
                self._store.delete(run.info.run_id)
        run_id = str((own or [self.start(record, at, letter)])[0].info.run_id)
        self._store.log(run_id, params=record.params, tags={**record.tags, LETTER: letter})
        if own and own[0].info.status == PLANNED:
            self._store.finish(run_id, "RUNNING", None)
        return run_id

    def log(self, run_id: str, points: Sequence[tuple[Point, int]]) -> None:
        """Add points with their times (ms since 1970) to a run."""
        self._store.log(run_id, points)

    def end(self, run_id: str, status: str) -> None:
        """End a run that stays incomplete."""
        self._store.finish(run_id, status, now())

    def publish(self, record: RunRecord) -> bool:
        """Make or complete the run of `record`; return whether the store changed.

        A run whose curves are those of another training is replaced. What was measured once,
        such as the time, gets its new value.
        """
        note = self._note(record)
        content = sha256_of([record.content, note])
        found = self._found.pop(record.key, None)
        run, *doubles = (self._store.find(record.key) if found is None else found) or [None]
        if run is not None:
            self._ids[record.key] = str(run.info.run_id)
        for double in doubles:
            self._store.delete(double.info.run_id)
        parent = self._parent(record)
        same = run is not None and (record.provisional or run.data.tags.get(CONTENT) == content)
        # Its parent may have been replaced by one with other curves.
        same = same and parent.items() <= run.data.tags.items()
        if same and _is_complete(run) and self._there(run, record) == _files(run):
            return self._finish(run, record)
        missing = self._missing(run, record)
        if missing is None:
            self._store.delete(run.info.run_id)
            run, missing = None, list(record.points)
        if run is None:
            run = self.start(record, now() - round(1000 * record.seconds))
        files = self._fill(run, record, missing)
        tags = {**record.tags, **parent, FILES: "\n".join(files), CONTENT: content}
        tags[COMPLETE] = "true"
        if note:
            tags["mlflow.note.content"] = note
        self._store.log(run.info.run_id, tags=tags)
        self._finish(run, record)
        self._found.pop(record.key, None)
        return True

    def _parent(self, record: RunRecord) -> dict[str, str]:
        """Return the tag that names the parent's run, where there is one."""
        parent = self.id_of(record.parent) if record.parent else None
        return {"mlflow.parentRunId": parent} if parent else {}

    def _finish(self, run: Any, record: RunRecord) -> bool:
        """End a run when its work ended, where that is known; return whether that changed it."""
        end = _end_of(run, record)
        if run.info.status == "FINISHED" and (end is None or run.info.end_time == end):
            return False
        self._store.finish(run.info.run_id, "FINISHED", end)
        return True

    def _missing(self, run: Any, record: RunRecord) -> list[Point] | None:
        """Return the points that `run` lacks; None if its curves are of another training."""
        if run is None:
            return list(record.points)
        curves = {point.key for point in record.points if point.step}
        there = run.data.metrics
        known = {(key, 0): value for key, value in there.items() if key not in curves}
        if _listed(record.artifacts).get("history.csv") in _files(run):
            # The file was uploaded after its points.
            known |= {(p.key, p.step): p.value for p in record.points if p.key in curves}
            curves = set()
        for key in curves & set(there):
            known |= self._store.history(run.info.run_id, key)
        missing = [p for p in record.points if not _same(known.get((p.key, p.step)), p.value)]
        if any(p.key in curves and (p.key, p.step) in known for p in missing):
            return None
        return missing

    def _fill(self, run: Any, record: RunRecord, missing: list[Point]) -> list[str]:
        """Give a run what it lacks; return the list of its files."""
        run_id, start, end = run.info.run_id, run.info.start_time, _end_of(run, record)
        params = {k: v for k, v in record.params.items() if k not in run.data.params}
        self._store.log(run_id, _spread(missing, start, end or now()), params)
        there = {(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs}
        if new := [data for data in record.datasets if (data.name, data.digest) not in there]:
            self._store.log_datasets(run_id, new)
        return self._upload(run_id, record.artifacts, self._there(run, record))

    def _there(self, run: Any, record: RunRecord) -> list[str]:
        """Return those lines of a run's list of files whose files are there, not the list alone."""
        lines, listed = _files(run), _listed(record.artifacts)
        said = [a for a in record.artifacts if listed[a.target] in lines]
        sizes = {a.target: a.source.stat().st_size for a in said}
        lost = self._store.lost(run.info.artifact_uri, sizes)
        return [line for line in lines if line.partition(" ")[2] not in lost]

    def _upload(self, run_id: str, artifacts: tuple[Artifact, ...], there: list[str]) -> list[str]:
        """Upload what is not `there` yet; return the list of what is there then."""
        listed = _listed(artifacts)
        new = [artifact for artifact in artifacts if listed[artifact.target] not in there]
        if new:
            with tempfile.TemporaryDirectory() as folder:
                for file in new:
                    copy = Path(folder, file.target)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    # A copy, not a link: DVC may have made the file read-only.
                    shutil.copyfile(file.source, copy)
                self._store.upload(run_id, Path(folder))
        kept = [line for line in there if line.partition(" ")[2] not in listed]
        return [*kept, *listed.values()]

    def _note(self, record: RunRecord) -> str:
        links = [
            f"- [{label}](#/experiments/{self._store.experiment}/runs/{run})"
            for label, key in record.runs
            if (run := self.id_of(key))
        ]
        methods = [key for label, key in record.runs if label not in STAGES]
        if len(methods) > 1:
            page = f"#/compare-runs?runs={quote(json.dumps([self.id_of(key) for key in methods]))}"
            page += f"&experiments={quote(json.dumps([self._store.experiment]))}"
            links.insert(0, f"- [Compare the methods]({page})")
        return "\n".join([record.description, "", *links]) if links else record.description


def _end_of(run: Any, record: RunRecord) -> int | None:
    """Return when the work of `record` ended (ms since 1970); None if its time is not known.

    The time counts, not the moment of publishing: a run looks the same live and after `sync`.
    """
    return run.info.start_time + round(1000 * record.seconds) if record.seconds else None


def _spread(points: list[Point], start: int, end: int) -> list[tuple[Point, int]]:
    """Return points with times: curves from `start` to `end`, what was measured once at `end`."""
    last = max((point.step for point in points), default=0) or 1
    curves = {point.key for point in points if point.step}
    return [
        (p, start + round((end - start) * p.step / last) if p.key in curves else end)
        for p in points
    ]


def _listed(artifacts: Iterable[Artifact]) -> dict[str, str]:
    """Return the line by which the tag `lora_compare.files` names each artifact, by target."""
    return {a.target: f"{a.sha256[:16]} {a.target}" for a in artifacts}


def _files(run: Any) -> list[str]:
    return str(run.data.tags.get(FILES, "")).splitlines()


def _same(known: float | None, value: float) -> bool:
    return known is not None and math.isclose(known, value)


def _is_complete(run: Any) -> bool:
    return bool(run.info.status == "FINISHED" and run.data.tags.get(COMPLETE) == "true")
