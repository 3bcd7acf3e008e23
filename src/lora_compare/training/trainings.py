"""The trainings of a stage: as many at once as the machine has room for, and none done twice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_compare.compute.device import Machine, choose_machine
from lora_compare.compute.engines.crew import WORKER, Cluster, Work
from lora_compare.compute.parallel import BACKEND, choose_cluster, choose_processes, run_tasks
from lora_compare.compute.seeding import make_deterministic
from lora_compare.errors import ClusterError, KilledError, TrainingError
from lora_compare.models.base import read_description
from lora_compare.project.checksums import SUMS, digest, verified, verified_part
from lora_compare.project.corpus import read_classes
from lora_compare.project.interruption import Interrupted, deferred
from lora_compare.project.paths import require
from lora_compare.project.progress import Message, Progress
from lora_compare.training.finetuning import Training
from lora_compare.training.finished import Finished, Job, Shared, read_finished
from lora_compare.training.ranks import joining, launching
from lora_compare.training.ranks.environment import is_joined
from lora_compare.training.ranks.one import ROW, train_one
from lora_compare.training.ranks.places import shared_out
from lora_compare.training.resume import circumstances, refusal

Show = Callable[[Mapping[str, Any]], None]
"""What is called with every row of the histories, under whose key `seed` the training's stands."""

OF_ONE = (TrainingError, KilledError)
"""What is the fault of one training: the others go on."""


def run_trainings(
    shared: Shared,
    trainings: Sequence[Training],
    progress: Progress,
    show: Show = lambda row: None,
    keep_model: bool = True,
    may_diverge: bool = False,
) -> list[Finished]:
    """Train all that is not trained yet, and return all trainings in the order given.

    What comes out of one depends neither on the others nor on how many run at once. What is
    finished is kept, whatever becomes of the others.

    Args:
        shared: What they share.
        trainings: What to train.
        progress: Where to report.
        show: Called with every row of their histories as soon as it is known.
        keep_model: Whether to keep what they change.
        may_diverge: Whether one whose loss is not finite has ended, rather than failed.

    Raises:
        Interrupted: A signal asked for the end; checkpoints are kept.
        KilledError: The process of one was killed; the others have ended.
        TrainingError: The loss of one is not finite, or memory ran out; the others have ended.
        UserError: They cannot be trained.
    """
    make_deterministic(trainings[0].seed, shared.params.threads)
    machine, facts = _origin(shared, trainings)
    jobs = [
        Job(shared, t, f, keep_model, may_diverge) for t, f in zip(trainings, facts, strict=True)
    ]
    left: dict[Path, Job] = {}
    for job in jobs:
        if finished := read_finished(job, progress):
            for row in finished.history:
                show({"seed": job.training.seed, **row})
        else:
            left[job.folder] = job
    if left:
        _say_what_is_not_used(jobs, progress)
        _train(list(left.values()), machine, progress, show)
    return [_require_finished(job, progress) for job in jobs]


def _origin(shared: Shared, trainings: Sequence[Training]) -> tuple[Machine, list[dict[str, Any]]]:
    """Return what trainings compute with, and all that the result of each depends on.

    Their inputs are checked here, because of those that are finished nobody reads them again.
    """
    paths, params = shared.paths, shared.params
    tokens = {name: paths.tokens(name) for name in ("train", "validation")}
    verified_part(paths.base, paths.base, "base_model")
    for path in tokens.values():
        verified(path, "base_model")
    machine = choose_machine(params.training, read_description(paths.base)["width"])
    if params.training.strategy != "single":
        machine = shared_out(machine, params)
    common = {
        "classifier": params.classifier.model_dump(),
        "classes": read_classes(require(paths.classes, "split")),
        **{name: digest(path, "base_model") for name, path in tokens.items()},
        **circumstances(machine),
    }
    bases = (read_description(paths.base_of(training.fold))["sha256"] for training in trainings)
    own = [t.facts | {"base": base} for t, base in zip(trainings, bases, strict=True)]
    return machine, [facts | common for facts in own]


def _say_what_is_not_used(jobs: Sequence[Job], progress: Progress) -> None:
    """Say what differs where a training with one of the seeds was cut off with other facts."""
    by_seed = {job.training.seed: job for job in jobs}
    if len(by_seed) < len(jobs):
        return  # which of several trainings with one seed it was cannot be told
    own = {job.checkpoint for job in jobs}
    for seed, job in by_seed.items():
        for other in sorted(job.shared.folder.glob(f"seed-{seed}-*{job.checkpoint.suffix}")):
            if other not in own:
                progress.say(f"{job.description}: {refusal(other, job.lasting_facts)}")


def _train(jobs: Sequence[Job], machine: Machine, progress: Progress, show: Show) -> None:
    shared, cluster = jobs[0].shared, choose_cluster()
    work, processes = _who_trains(shared, cluster, choose_processes(len(jobs), machine))
    jobs = [replace(job, is_first=job is jobs[0], side_by_side=processes) for job in jobs]
    if cluster or len(jobs) > 1 or work is not train_one:
        where = _where(shared, cluster, processes)
        count = f"{len(jobs)} training{'s' * (len(jobs) > 1)}"
        progress.say(f"{shared.stage} {shared.method}: {count}, {where}")
    with progress.board() as report:
        audience = _Audience(jobs, progress, report, show)
        try:
            with deferred():
                if cluster is None:
                    run_tasks(work, jobs, processes, audience.hear, audience.ended)
                else:
                    from lora_compare.training.remote import train_on

                    train_on(cluster, jobs, machine, audience.hear, audience.ended)
        except Interrupted as end:
            kept = f"its trainings are kept in {shared.folder}; dvc repro goes on from there"
            raise Interrupted(end.signum, str(end) or kept) from None
    if audience.failed:
        raise _with_what_is_kept(audience.failed[0], jobs)


def _where(shared: Shared, cluster: Cluster | None, processes: int) -> str:
    training = shared.params.training
    if training.strategy != "single":
        return f"{training.devices} processes each ({training.strategy})"
    return cluster.describe() if cluster else f"{processes} at a time"


def _who_trains(
    shared: Shared, cluster: Cluster | None, processes: int
) -> tuple[Work[Job, None], int]:
    """Return what does a training, and how many of these go on at once."""
    training = shared.params.training
    if training.strategy == "single":
        return train_one, processes
    if cluster is not None:
        raise ClusterError(
            "A cluster's workers train alone.",
            where=f"environment variable {BACKEND}",
            expected="training.strategy: single",
            actual=f"strategy {training.strategy}, on {cluster.describe()}",
            next=f"unset {BACKEND}, or set training.strategy: single and devices: 1",
        )
    return (joining.lead if is_joined() else launching.launch), 1


class _Audience:
    """Who hears of trainings and of their ends.

    Attributes:
        failed: The errors of those that have failed.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        progress: Progress,
        report: Callable[[int, Message], None],
        show: Show,
    ) -> None:
        self._jobs, self._progress, self._report, self._show = jobs, progress, report, show
        self.failed: list[Exception] = []
        self._last_steps: dict[int, float] = {}
        self._workers: dict[int, str] = {}

    def hear(self, number: int, message: Message) -> None:
        kind, *content = message
        if kind == ROW:
            self._hear_row(number, *content)
        elif kind == WORKER:
            self._hear_worker(number, *content)
        else:
            self._report(number, message)

    def _hear_row(self, number: int, row: Mapping[str, float]) -> None:
        if row["step"] > self._last_steps.get(number, -1):  # else told before its worker was lost
            self._last_steps[number] = row["step"]
            self._show({"seed": self._jobs[number].training.seed, **row})

    def _hear_worker(self, number: int, name: str) -> None:
        if before := self._workers.get(number):
            said = f"its worker ({before}) is gone; it is trained again ({name})"
            self._progress.say(f"{self._jobs[number].description}: {said}")
        self._workers[number] = name

    def ended(self, number: int, outcome: Exception | None) -> bool:
        """Take note of an error, and return whether the others are to go on."""
        if outcome is None:
            return True
        job = self._jobs[number]
        self.failed.append(_named(outcome, job))
        if not isinstance(outcome, OF_ONE):
            return False
        if len(self._jobs) > 1:
            self._progress.say(f"{job.description}: {outcome.what} The others go on.")
        return True


def _named(error: Exception, job: Job) -> Exception:
    if isinstance(error, OF_ONE):
        error.where = f"{job.training.name}, {error.where}"
    return error


def _with_what_is_kept(error: Exception, jobs: Sequence[Job]) -> Exception:
    if isinstance(error, OF_ONE):
        done = [job.training.name for job in jobs if (job.folder / SUMS).is_file()]
        kept = [error.kept or "the last checkpoint"]
        error.kept = "\n".join(kept + [f"and, finished: {'; '.join(done)}"] * bool(done))
    return error


def _require_finished(job: Job, progress: Progress) -> Finished:
    finished = read_finished(job, progress)
    assert finished is not None, job.folder
    return finished
