"""The comparison: optimizer steps and predictions of every implementation on the same messages."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.jobs import IMPLEMENTATIONS, RANK, Job, Text
from benchmarks.machine import describe_machine, describe_versions
from benchmarks.processes import Run, in_turns, run_in_process
from benchmarks.records import (
    evaluation_record,
    matmul_record,
    training_record,
    with_ratios,
)
from benchmarks.workload import Workload, length_figures
from lora_compare.models.gpt.network import CONFIGS
from lora_compare.project.progress import SILENT, Progress

METHODS = ("lora", "full")


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        model: The network's name.
        methods: `lora`, `full`.
        implementations: Names in jobs.IMPLEMENTATIONS.
        steps: Timed optimizer steps a process.
        warmup: Steps before these.
        repeats: Processes of every implementation and method.
        batch_size: Messages a step.
        threads: CPU threads.
        device: `cpu`, `cuda` or `mps`.
        evaluation_repeats: Processes of every implementation that predict all messages; 0
            leaves the predictions out.
        evaluation_messages: Messages to predict; None: all.
    """

    model: str = "gpt2-small"
    methods: Sequence[str] = METHODS
    implementations: Sequence[str] = tuple(IMPLEMENTATIONS)
    steps: int = 8
    warmup: int = 2
    repeats: int = 3
    batch_size: int = 8
    threads: int = 1
    device: str = "cpu"
    evaluation_repeats: int = 1
    evaluation_messages: int | None = None


def compare(
    settings: Settings,
    workload: Workload,
    progress: Progress = SILENT,
    run: Run = run_in_process,
) -> dict[str, Any]:
    """Return the content of the results file.

    Args:
        settings: How much is measured.
        workload: The messages.
        progress: Where to report.
        run: How a job is done.
    """
    versions = describe_versions()  # the commit may change while this runs
    jobs = training_jobs(settings, workload)
    runs = in_turns(jobs, settings.repeats, progress, run)
    matmul = matmul_record(runs.pop("matmul"))
    rates = {precision: figures["flops_per_second"] for precision, figures in matmul.items()}
    training = [
        training_record(jobs[name], figures, rates[jobs[name].precision])
        for name, figures in runs.items()
    ]
    predicting = evaluation_jobs(settings, workload)
    predicted = in_turns(predicting, settings.evaluation_repeats, progress, run)
    evaluation = [
        evaluation_record(predicting[name], figures, rates[predicting[name].precision])
        for name, figures in predicted.items()
        if figures
    ]
    return {
        "machine": describe_machine(settings.device),
        "versions": versions,
        "settings": described(settings),
        "messages": workload.description,
        "timed_messages": length_figures(
            [len(text) for texts, _ in timed_batches(jobs) for text in texts], settings.batch_size
        ),
        "matmul": matmul,
        "training": with_ratios(training, "step_seconds"),
        "evaluation": with_ratios(evaluation, "seconds"),
    }


def training_jobs(settings: Settings, workload: Workload) -> dict[str, Job]:
    """Return, by name, the machine's matrix products and every implementation's steps."""
    needed = (settings.warmup + settings.steps) * settings.batch_size
    rounds = -(-needed // len(workload.train))  # a small corpus goes round
    shared = {
        **_shared(settings, workload),
        "texts": (workload.train * rounds)[:needed],
        "labels": (workload.labels * rounds)[:needed],
        "vocabulary": sorted({token for text in workload.train for token in text}),
    }
    jobs = {"matmul": Job("notebook", "matmul", "lora", **shared)}
    for method in settings.methods:
        for name in settings.implementations:
            jobs[f"{method}, {name}"] = Job(name, "train", method, **shared)
    return jobs


def evaluation_jobs(settings: Settings, workload: Workload) -> dict[str, Job]:
    """Return, by name, every implementation's predictions with adapters."""
    texts = workload.everything[: settings.evaluation_messages]
    shared = {**_shared(settings, workload), "texts": texts, "labels": []}
    return {
        f"predictions, {name}": Job(name, "predict", "lora", **shared)
        for name in settings.implementations
        if IMPLEMENTATIONS[name].evaluated
    }


def timed_batches(jobs: dict[str, Job]) -> list[tuple[list[Text], list[int]]]:
    """Return texts and labels of the timed steps, which all jobs have in common."""
    job = jobs["matmul"]
    return job.batches()[job.warmup :]


def _shared(settings: Settings, workload: Workload) -> dict[str, Any]:
    return {
        "shape": CONFIGS[settings.model].to_dict(),
        "batch_size": settings.batch_size,
        "padded_length": workload.padded_length,
        "warmup": settings.warmup,
        "threads": settings.threads,
        "device": settings.device,
    }


def described(settings: Settings) -> dict[str, Any]:
    """Return the settings for the results file."""
    return {**asdict(settings), "rank": RANK}
