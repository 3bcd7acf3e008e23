"""How seconds and memory of a step grow with rank, length, batch size and model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from benchmarks.jobs import Job
from benchmarks.machine import available_memory_bytes, describe_machine, describe_versions
from benchmarks.processes import Run, in_turns, run_in_process
from benchmarks.workload import random_texts
from lora_compare.models.gpt.network import CONFIGS
from lora_compare.project.progress import SILENT, Progress

IMPLEMENTATIONS = ("lora-compare", "transformers")
"""What is measured unless asked otherwise."""

BYTES_A_PARAMETER = {"lora": 4, "full": 16}
"""float32 weights, and for trained ones the gradient and AdamW's two moments."""

MEMORY_SHARE = 0.8
"""Share of the free memory that weights and optimizer may take, so that activations fit."""


@dataclass(frozen=True)
class Point:
    """One setting of a step.

    Attributes:
        model: The network's name.
        rank: The adapters' rank.
        length: Tokens of every text.
        batch_size: Texts.
    """

    model: str = "gpt2-small"
    rank: int = 16
    length: int = 64
    batch_size: int = 8


Sweeps = Mapping[str, Sequence[Point]]


def _along(field: str, values: Sequence[Any], base: Point) -> list[Point]:
    return [replace(base, **{field: value}) for value in values]


SWEEPS: Sweeps = {
    "rank": _along("rank", (4, 16, 64, 256), Point()),
    "length": _along("length", (32, 128, 512, 1024), Point(batch_size=4)),
    "batch_size": _along("batch_size", (1, 4, 16, 32), Point()),
    "model": _along(
        "model", ("gpt2-nano", "gpt2-small", "gpt2-medium", "gpt2-large"), Point(batch_size=4)
    ),
}
"""The points by what changes along them."""

QUICK_SWEEPS: Sweeps = {"rank": _along("rank", (4, 16), Point("gpt2-nano", length=8, batch_size=2))}


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        sweeps: The points by what changes along them.
        methods: `lora`, `full`; along the rank only `lora`.
        implementations: Names in jobs.IMPLEMENTATIONS.
        steps: Timed steps a point, after one that is not.
        threads: CPU threads.
        device: `cpu`, `cuda` or `mps`.
    """

    sweeps: Sweeps
    methods: Sequence[str] = ("lora", "full")
    implementations: Sequence[str] = IMPLEMENTATIONS
    steps: int = 2
    threads: int = 1
    device: str = "cpu"


def sweep(
    settings: Settings, progress: Progress = SILENT, run: Run = run_in_process
) -> dict[str, Any]:
    """Return the content of the results file.

    A point that would need more memory than the machine has is left out and listed.

    Args:
        settings: How much is measured.
        progress: Where to report.
        run: How a job is done.
    """
    versions = describe_versions()  # the commit may change while this runs
    limit = MEMORY_SHARE * available_memory_bytes(settings.device)
    jobs: dict[str, Job] = {}
    facts: dict[str, dict[str, Any]] = {}
    left_out = []
    for along, points in settings.sweeps.items():
        for point in points:
            for method in settings.methods if along != "rank" else ["lora"]:
                if parameters(point.model) * BYTES_A_PARAMETER[method] > limit:
                    left_out.append({"along": along, "method": method, **asdict(point)})
                    continue
                for name in settings.implementations:
                    key = f"{along} {getattr(point, along)}, {method}, {name}"
                    jobs[key] = _job(settings, point, method, name)
                    facts[key] = {"along": along, "implementation": name, "method": method}
                    facts[key] |= asdict(point)
    runs = in_turns(jobs, 1, progress, run)
    return {
        "machine": describe_machine(settings.device),
        "versions": versions,
        "settings": {
            "steps": settings.steps,
            "threads": settings.threads,
            "device": settings.device,
        },
        "points": [
            {
                **facts[key],
                "step_seconds": median(figures[0]["seconds"]),
                "peak_memory_bytes": figures[0]["peak_memory_bytes"],
                "trainable_parameters": figures[0]["trainable_parameters"],
            }
            for key, figures in runs.items()
        ],
        "left_out": left_out,
    }


def parameters(model: str) -> int:
    """Return the parameters of a network, its head and biases left out."""
    c = CONFIGS[model]
    return (c.vocab_size + c.context_length + 12 * c.n_layer * c.n_embd) * c.n_embd


def _job(settings: Settings, point: Point, method: str, implementation: str) -> Job:
    shape = CONFIGS[point.model].to_dict()
    # gpt2-nano's shorter context is no property of its time.
    shape["context_length"] = max(shape["context_length"], point.length)
    n = (settings.steps + 1) * point.batch_size
    return Job(
        implementation=implementation,
        task="train",
        method=method,
        shape=shape,
        texts=random_texts(n, point.length, shape["vocab_size"]),
        labels=[i % 2 for i in range(n)],
        batch_size=point.batch_size,
        padded_length=point.length,
        warmup=1,
        threads=settings.threads,
        device=settings.device,
        rank=point.rank,
    )
