"""One training from the base model's folder to its own, as each of its processes does it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_compare.compute.device import choose_machine, keep_freed_memory
from lora_compare.compute.engines.crew import Tell
from lora_compare.compute.ranks import ALONE, Ranks, naming_lost_ranks
from lora_compare.compute.seeding import make_deterministic
from lora_compare.errors import DivergenceError
from lora_compare.models.base import load_base
from lora_compare.models.classifier import loss_and_accuracy, predict_logits
from lora_compare.models.methods import Trained, save_method
from lora_compare.models.tokens import read_examples
from lora_compare.project.corpus import read_classes
from lora_compare.project.paths import require
from lora_compare.project.progress import Relay
from lora_compare.training.finetuning import finetune
from lora_compare.training.finished import MODEL, Job, mark_finished
from lora_compare.training.history import Evaluation, Reporting
from lora_compare.training.meters import cost_figures
from lora_compare.training.ranks.checkpoints import checkpoints_of
from lora_compare.training.ranks.strategies import gather
from lora_compare.training.resume import Checkpoints, require_same

ROW = "row"
"""The kind of message that holds a row of a history; all others are a `Relay`'s."""


def train_one(
    job: Job,
    tell: Tell,
    kept: Callable[[Path], None] = lambda path: None,
    ranks: Ranks = ALONE,
) -> None:
    """Train, in whatever process, and leave what comes of it in the job's folder.

    Args:
        job: The training.
        tell: Called with `(ROW, row)` for every row of the history, and with the messages of
            `Relay`.
        kept: Called with the path of every checkpoint that one process writes.
        ranks: Who trains; all of them call it with the same job, and the first one writes.

    Raises:
        ClusterError: This process would compute something else.
        Interrupted: A signal asked for the end; a checkpoint is kept.
        KilledError: Another rank is gone.
        UserError: As `finetune`.
    """
    training = job.training
    make_deterministic(training.seed, job.facts["threads"])
    keep_freed_memory()
    rows: list[dict[str, float]] = []

    def report(row: Evaluation) -> None:
        rows.append(row.to_dict())
        tell((ROW, rows[-1]))

    reporting = Reporting(Relay(tell), job.description, report, job.is_first)
    every = training.training.checkpoint_every
    state = job.checkpoint, job.lasting_facts, every, reporting.progress
    if ranks.is_first:
        # Of a run that was killed while it wrote.
        shutil.rmtree(job.folder, ignore_errors=True)
    with naming_lost_ranks(ranks):
        try:
            result = _result(job, reporting, checkpoints_of(*state, kept, ranks), ranks)
        except DivergenceError:
            if not job.may_diverge:
                raise
            result = {"cost": {}, "validation_loss": None, "validation_accuracy": None}
        if ranks.is_first:
            mark_finished(job, {"history": rows, **result})
        ranks.wait()


def _result(
    job: Job, reporting: Reporting, checkpoints: Checkpoints, ranks: Ranks
) -> dict[str, Any]:
    """Train, keep what that changes, and return its cost and how well it does on validation."""
    training, paths = job.training, job.shared.paths
    base = load_base(paths.base_of(training.fold))
    machine = choose_machine(training.training, base.width)
    require_same(machine, job.facts)
    classes = read_classes(require(paths.classes, "split"))
    names = ("train", "validation")
    splits = {name: read_examples(paths.tokens(name), training.fold) for name in names}
    head = job.shared.params.classifier
    how = reporting, checkpoints, ranks
    classifier, result = finetune(base, classes, splits, head, training, machine, *how)
    validation, _ = classifier.fit(splits["validation"])
    logits = predict_logits(classifier.model, validation, dtype=machine.dtype, ranks=ranks)
    loss, accuracy = loss_and_accuracy(logits, validation.labels)
    classifier = classifier.decided_by(logits, validation.labels)
    effort = result.seconds, result.examples, result.tokens
    cost = cost_figures(*effort, machine, result.steps, result.state, job.side_by_side)
    if job.keep_model:
        gather(classifier.model, ranks)
        if ranks.is_first:
            kind = Trained.of(training.method)
            save_method(job.folder / MODEL, classifier, kind, training.seed, base)
    return {"cost": cost, "validation_loss": loss, "validation_accuracy": accuracy}
