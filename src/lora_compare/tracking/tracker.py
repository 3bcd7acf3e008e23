"""A stage's side of tracking: it writes a letter, and neither imports MLflow nor waits for it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from lora_compare.params import Params
from lora_compare.project.lineage import Pipeline, origin
from lora_compare.project.paths import Paths
from lora_compare.project.progress import Progress
from lora_compare.tracking.mailbox import Draft, Mailbox
from lora_compare.tracking.records import (
    current_records,
    method_records,
    pipeline_record,
    stage_record,
    starting_records,
    trial_records,
)
from lora_compare.tracking.runs import RunRecord
from lora_compare.tracking.server import Server, first_line

LONGEST_WAIT = 25.0
"""Seconds that `compare`, the last stage, waits to say what became of its run."""

ASK_AGAIN = 5.0
"""Seconds after which it sees to it once more that somebody delivers."""


class Tracker:
    """What a stage tells of itself; whatever goes wrong costs a warning.

    Args:
        paths: The project.
        params: Its parameters.
        stage: The stage that runs.
        method: The method, for `finetune` and `evaluate`.
        progress: Where to warn.
        hire: Sees to it that somebody delivers letters.
    """

    def __init__(
        self,
        paths: Paths,
        params: Params,
        stage: str,
        method: str | None,
        progress: Progress,
        hire: Callable[[], None],
    ) -> None:
        self._paths, self._params, self._progress = paths, params, progress
        self._stage, self._method, self._hire = stage, method, hire
        self._server = Server.configured(paths)
        self._draft: Draft | None = None

    def start(self) -> None:
        """Begin the letter."""
        if self._server is None:
            return
        heading = {
            "stage": self._stage,
            "folder": self._server.relative(self._paths.root),
            "experiment": self._params.tracking.experiment,
            "store": self._server.mark,
            "awaited": self._stage == "compare",
        }
        if told := self._server.move:
            self._progress.say(told)
        with self._warning():
            mailbox = Mailbox(self._server.state).folder
            name = "@".join(filter(None, (self._stage, self._method)))
            self._draft = Draft(mailbox, name, heading)
            self._hire()

    def log(self, row: Mapping[str, Any]) -> None:
        """Show a row of a training's history."""
        with self._warning():
            if self._draft is not None and self._method is not None:
                if not self._draft.is_started:
                    pipeline = Pipeline(self._paths, self._params)
                    self._draft.start(self._signed(self._starting(pipeline, self._method)))
                self._draft.log(row)

    def _starting(self, pipeline: Pipeline, method: str) -> list[RunRecord]:
        seeds = self._params.training.seeds
        if self._params.method(method).adapter is not None:
            seeds = seeds[:1]  # it is taken over once, and not trained
        return [pipeline_record(pipeline), *starting_records(pipeline, method, seeds)]

    def finish(self, seconds: float = 0.0) -> None:
        """Show what the stage wrote.

        Args:
            seconds: How long it took; 0: not known.
        """
        with self._warning():
            if self._draft is not None:
                own = stage_records(Pipeline(self._paths, self._params), self._stage, self._method)
                timed = [replace(r, seconds=seconds) if r.stage == self._stage else r for r in own]
                self._draft.finish(self._signed(timed))

    def fail(self, status: str) -> None:
        """Show that the stage did not end well: `FAILED` or `KILLED`."""
        with self._warning():
            if self._draft is not None and self._draft.letter.end() is None:
                self._draft.fail(status)

    def tell(self) -> None:
        """Tell what became of this run or, where nobody waits for that, of a store that fails."""
        if self._server is None or self._draft is None:
            return
        with self._warning():
            self._hire()
        mailbox, store = Mailbox(self._server.state), self._server.mark
        awaited = self._stage == "compare"
        if awaited and self._wait():
            return
        trouble = mailbox.trouble(store)
        if not awaited and (trouble is None or trouble["told"]):
            return
        trouble = trouble or {"why": "it takes too long to answer", "remedy": ""}
        then = f"{trouble['remedy']}, then" if trouble["remedy"] else "when the server is back"
        self._progress.say(
            f"warning: MLflow at {self._server.shown} does not take this run ({trouble['why']}). "
            f"Nothing is lost: it waits in .tracking/mailbox; {then}: lora-compare sync"
        )
        with self._warning():
            mailbox.note(store, trouble["why"], trouble["remedy"], told=True)

    def _wait(self) -> bool:
        """Return whether the letter is delivered within `LONGEST_WAIT`, and print the answer."""
        assert self._draft is not None
        letter, start = self._draft.letter, time.monotonic()
        asked = start
        while time.monotonic() - start < LONGEST_WAIT and not letter.is_returned:
            if (answer := letter.answer()) is not None:
                for line in answer:
                    self._progress.say(line)
                letter.remove()
                return True
            if not letter.folder.is_dir():  # `lora-compare sync` took it
                return True
            if time.monotonic() - asked > ASK_AGAIN:
                asked = time.monotonic()
                self._hire()
            time.sleep(0.05)
        letter.give_back()
        return False

    def close(self) -> None:
        """Let go of the letter."""
        if self._draft is not None:
            self._draft.close()

    def _signed(self, records: list[RunRecord]) -> list[RunRecord]:
        """Return records that say who computed them; they may be published by somebody else."""
        own = origin(self._paths.root)
        return [replace(record, origin=own) for record in records]

    @contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Whatever it is: the results are there, and no stage depends on their being shown.
            if self._draft is not None:
                self._draft.close()
            self._draft = None
            self._progress.say(
                f"warning: this run cannot be kept for MLflow ({first_line(error)}). "
                "Its results are on disk; to show them: lora-compare sync"
            )


@contextmanager
def tracker(
    paths: Paths,
    params: Params,
    stage: str,
    progress: Progress,
    hire: Callable[[], None],
    method: str | None = None,
) -> Iterator[Tracker]:
    """Yield where a stage shows its curves and its end.

    Args:
        paths: The project.
        params: Its parameters.
        stage: The stage that runs.
        progress: Where to warn.
        hire: Sees to it that somebody delivers letters.
        method: The method, for `finetune` and `evaluate`.
    """
    own = Tracker(paths, params, stage, method, progress, hire)
    own.start()
    try:
        yield own
    except BaseException as error:
        own.fail("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    else:
        own.tell()
    finally:
        own.close()


def stage_records(pipeline: Pipeline, stage: str, method: str | None = None) -> list[RunRecord]:
    """Return the records to publish after a stage: its own, or all after the last one."""
    if stage == "compare":
        return current_records(pipeline, just_ran=stage)[0]
    if method is None:
        return [pipeline_record(pipeline), stage_record(pipeline, stage)]
    if stage == "tune":
        trials = trial_records(pipeline, method)
        above = starting_records(pipeline, method, ())[:1] if trials else []
        return [pipeline_record(pipeline), *above, *trials]
    own = method_records(pipeline, method, evaluated=stage == "evaluate", with_plots=False)
    return [pipeline_record(pipeline), *own]
