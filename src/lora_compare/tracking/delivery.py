"""Letters brought to a store: those that wait, and those that are still being written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from lora_compare.tracking.diary import Diary
from lora_compare.tracking.figures import Point, curve_points
from lora_compare.tracking.mailbox import Letter, Mailbox
from lora_compare.tracking.runs import SEED, RunRecord
from lora_compare.tracking.server import Server
from lora_compare.tracking.store import Store, connect, quietly
from lora_compare.tracking.view import describe

AfterComparison = Callable[[Store, Diary, Path, Sequence[RunRecord]], Sequence[str]]
"""What is done once a comparison is shown, in the folder that it ran in; returns what to tell."""

Outcome = tuple[str, bool]
"""The name of a run, and whether the store changed."""


@dataclass
class _LiveRun:
    """A method's run that is shown while it trains; without an id, one that is complete already.

    Of several seeds each has a run below it, by its seed's name; that of the method has their mean
    in the end.
    """

    diary: Diary
    run_id: str | None
    end_of_watch: Callable[[], None] | None
    seeds: dict[str, RunRecord]
    below: dict[str, str | None] = field(default_factory=dict)
    offset: int = 0

    def stop_watching(self) -> None:
        if self.end_of_watch is not None:
            self.end_of_watch()
        self.end_of_watch = None


class Delivery:
    """What brings letters to a store; whatever the store raises comes through.

    Args:
        server: The store.
        after_comparison: What follows a comparison that is shown; None: nothing.
    """

    def __init__(self, server: Server, after_comparison: AfterComparison | None = None) -> None:
        self._server = server
        self._after_comparison = after_comparison
        self._live: dict[str, _LiveRun] = {}

    def deliver(self, letter: Letter) -> list[Outcome]:
        """Show what a letter says by now; delete it if it has ended.

        Doing it again, or going on with what another process began, doubles nothing.
        """
        end = letter.end()
        try:
            with quietly():
                if end is None or "status" in end:
                    self._show(letter)
                return [] if end is None else self._close(letter, end)
        except BaseException:
            self._forget(letter.name)
            raise

    def retain(self, names: set[str]) -> None:
        """Let go of the live runs whose letters are not among `names`: others delivered them."""
        for name in set(self._live) - names:
            self._forget(name)

    def _forget(self, name: str) -> None:
        if live := self._live.pop(name, None):
            with quietly():
                live.stop_watching()

    def _show(self, letter: Letter) -> None:
        """Show the rows of a training that are new."""
        known = self._live.get(letter.name)
        rows, offset = letter.rows(known.offset if known else 0)
        if not rows:
            return
        live = known or self._begin(letter)
        self._live[letter.name] = live
        by_seed: dict[str, list[tuple[Point, int]]] = {}
        for row in rows if live.run_id is not None else ():
            # The times are the rows' own: what is there already does not double.
            points = [(point, int(row["at"])) for point in curve_points(row["row"])]
            by_seed.setdefault(str(row["row"].get(SEED)), []).extend(points)
        for seed, points in by_seed.items():
            if (run_id := self._training(letter, live, seed, points[0][1])) is not None:
                live.diary.log(run_id, points)
        live.offset = offset

    def _training(self, letter: Letter, live: _LiveRun, seed: str, at: int) -> str | None:
        """Return the run that shows a seed's training, which began at `at` (ms since 1970)."""
        if seed not in live.seeds:
            return live.run_id
        if seed not in live.below:
            with connect(self._server, str(letter.heading["experiment"])) as store:
                live.below[seed] = Diary(store).restart(live.seeds[seed], letter.name, at)
        return live.below[seed]

    def _begin(self, letter: Letter) -> _LiveRun:
        parent, own, *below = letter.start()
        with connect(self._server, str(letter.heading["experiment"])) as store:
            diary = Diary(store)
            diary.publish_all([parent])
            run_id = diary.restart(own, letter.name, int(letter.heading["started"]))
        watches = run_id is not None and letter.is_open
        watch = watch_system(self._server, run_id) if watches else None
        return _LiveRun(diary, run_id, watch, {record.tags[SEED]: record for record in below})

    def _close(self, letter: Letter, end: Mapping[str, Any]) -> list[Outcome]:
        live = self._live.get(letter.name)
        if live is not None:
            live.stop_watching()
        if "records" in end:
            outcomes = self._publish(letter)
        else:
            outcomes = []
            if live is not None:
                for run_id in filter(None, [live.run_id, *live.below.values()]):
                    live.diary.end(run_id, str(end["status"]))
            letter.settle([])
        self._live.pop(letter.name, None)
        return outcomes

    def _publish(self, letter: Letter) -> list[Outcome]:
        with connect(self._server, str(letter.heading["experiment"])) as store:
            # Read, and deleted, under the store's lock: another process may deliver it as well.
            records = letter.records()
            diary = Diary(store)
            outcomes = diary.publish_all(records)
            letter.settle(self._conclude(letter, store, diary, records))
        return outcomes

    def _conclude(
        self, letter: Letter, store: Store, diary: Diary, records: Sequence[RunRecord]
    ) -> Sequence[str]:
        """Do what follows a comparison; return what to tell of it."""
        if letter.heading["stage"] != "compare" or not records:
            return []
        folder = self._server.home / str(letter.heading["folder"])
        if folder == self._server.home:  # a queued experiment is not the project's verdict
            describe(store, records)
        if self._after_comparison is None:
            return []
        return self._after_comparison(store, diary, folder, records)


def deliver_waiting(server: Server) -> list[Outcome]:
    """Deliver all letters that have ended, whichever store they are addressed to."""
    delivery, mailbox = Delivery(server), Mailbox(server.state)
    waiting = [letter for letter in mailbox.letters() if letter.end() is not None]
    outcomes = [outcome for letter in waiting for outcome in delivery.deliver(letter)]
    mailbox.forget(server.mark)
    return outcomes


def watch_system(server: Server, run_id: str | None) -> Callable[[], None] | None:
    """Log use of CPU, memory, disk, network and GPU to a run, where MLflow is told to.

    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=true tells it; MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL is
    the time between two values in seconds.

    Args:
        server: The tracking server.
        run_id: The run.

    Returns:
        What ends it; None where it is not wanted.
    """
    from mlflow import environment_variables

    wanted: Any = environment_variables.MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
    if not wanted.get():
        return None
    from mlflow.system_metrics import system_metrics_monitor

    make: Any = system_metrics_monitor.SystemMetricsMonitor
    monitor = make(run_id, tracking_uri=server.uri)
    monitor.start()
    return cast(Callable[[], None], monitor.finish)
