"""The curves of a training, shown while they grow."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lora_compare.params import Params
from lora_compare.project.lineage import Pipeline
from lora_compare.project.paths import Paths
from lora_compare.project.progress import Progress
from lora_compare.tracking.diary import Diary
from lora_compare.tracking.figures import curve_points
from lora_compare.tracking.hardware import watch_system
from lora_compare.tracking.outage import warn
from lora_compare.tracking.records import pipeline_record, starting_record
from lora_compare.tracking.server import Server
from lora_compare.tracking.spool import Spool
from lora_compare.tracking.store import connect, quietly, troubles


def live_run(paths: Paths, params: Params, method: str, progress: Progress) -> "LiveRun":
    """Return where a training can show its curves as they grow.

    A run that an earlier, killed training of the same content left is replaced; one that is
    complete is left as it is. `log_stage` completes the run from the files.

    Args:
        paths: The project.
        params: Its parameters.
        method: The method that is trained.
        progress: Where to warn.
    """
    server = Server.configured(paths)
    run = LiveRun(server, params.tracking.experiment, progress)
    run.start(Pipeline(paths, params), method)
    return run


class LiveRun:
    """A run to add points to until the server fails once; `log_stage` has them all again.

    Args:
        server: Where to show it; None: nowhere.
        experiment: Name of the experiment.
        progress: Where to warn.
    """

    def __init__(self, server: Server | None, experiment: str, progress: Progress) -> None:
        self._server = server
        self._experiment = experiment
        self._progress = progress
        self._diary: Diary | None = None
        self._run_id: str | None = None
        self._end_of_watch: Callable[[], None] | None = None

    def start(self, pipeline: Pipeline, method: str) -> None:
        """Make the run of a method that starts to train."""
        if self._server is None or Spool(self._server.state).is_away(self._server.shown):
            return
        try:
            with connect(self._server, self._experiment) as store:
                diary = Diary(store, pipeline.paths.root)
                diary.publish_all([pipeline_record(pipeline)])
                self._run_id = diary.restart(starting_record(pipeline, method))
                self._diary = diary
                if self._run_id is not None:
                    self._end_of_watch = watch_system(self._server, self._run_id)
        except troubles() as error:
            warn(self._server, self._progress, error)

    def log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Show rows of the history, each with the columns of a history file, in one request."""
        points = [point for row in rows for point in curve_points(row)]
        self._call(lambda diary, run_id: diary.log(run_id, points))

    def stop(self) -> None:
        """Log nothing more of the machine; the training has ended."""
        if self._end_of_watch is not None:
            with quietly():
                self._end_of_watch()
            self._end_of_watch = None

    def end(self, status: str) -> None:
        """End the run of a training that did not end well."""
        self.stop()
        self._call(lambda diary, run_id: diary.end(run_id, status))

    def _call(self, action: Callable[[Diary, str], None]) -> None:
        if self._server is None or self._diary is None or self._run_id is None:
            return
        try:
            with quietly():
                action(self._diary, self._run_id)
        except troubles() as error:
            self._diary = None
            warn(self._server, self._progress, error)
