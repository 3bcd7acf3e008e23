"""From the figures of single processes to the rows of the tables."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.floor import prediction_flops, step_flops
from benchmarks.jobs import Job

REFERENCES = {
    "notebook": {"float32": "notebook", "bfloat16": "notebook"},
    "transformers": {"float32": "transformers", "bfloat16": "transformers-bfloat16"},
}
"""What an implementation is compared with, by the name of the ratio and its own precision."""


def training_record(
    job: Job, runs: Sequence[dict[str, Any]], flops_per_second: float
) -> dict[str, Any]:
    """Return the figures of an implementation's optimizer steps.

    Args:
        job: What was done.
        runs: Of every repeat, the seconds of its steps, its parameters and its peak memory.
        flops_per_second: What the machine reaches in the job's precision.
    """
    lengths = [[len(text) for text in texts] for texts, _ in job.batches()[job.warmup :]]
    flops = [step_flops(job.shape, job.method, batch, job.rank) for batch in lengths]
    examples = sum(map(len, lengths))
    record = {
        **_common(job, runs),
        "step_seconds": median(median(run["seconds"]) for run in runs),
        "step_seconds_of_repeats": [median(run["seconds"]) for run in runs],
        "examples_per_second": median(examples / sum(run["seconds"]) for run in runs),
        "step_flops": median(flops),
        "floor_seconds": median(flops) / flops_per_second,
    }
    return {**record, "times_floor": record["step_seconds"] / record["floor_seconds"]}


def evaluation_record(
    job: Job, runs: Sequence[dict[str, Any]], flops_per_second: float
) -> dict[str, Any]:
    """Return the figures of an implementation's predictions; arguments as above."""
    seconds = median(run["seconds"][0] for run in runs)
    flops = prediction_flops(job.shape, [len(text) for text in job.texts])
    floor = flops / flops_per_second
    return {
        **_common(job, runs),
        "messages": len(job.texts),
        "seconds": seconds,
        "examples_per_second": len(job.texts) / seconds,
        "floor_seconds": floor,
        "times_floor": seconds / floor,
    }


def _common(job: Job, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "implementation": job.implementation,
        "method": job.method,
        "precision": job.precision,
        "padded_length": job.width,
        "trainable_parameters": runs[0]["trainable_parameters"],
        "total_parameters": runs[0]["total_parameters"],
        "peak_memory_bytes": median(run["peak_memory_bytes"] for run in runs),
    }


def with_ratios(records: Sequence[dict[str, Any]], seconds: str) -> list[dict[str, Any]]:
    """Return the records with how many times as fast each is as the references.

    Args:
        records: Rows of one table.
        seconds: The field that is compared.

    Returns:
        The records with `times_as_fast_as_notebook`, `times_as_fast_as_transformers` and
        `memory_of_notebook`, `memory_of_transformers` (fractions), each None where the
        reference was not measured with the same method. transformers is that of the same
        precision; the notebook has one.
    """
    by_key = {(record["implementation"], record["method"]): record for record in records}
    result = []
    for record in records:
        ratios: dict[str, float | None] = {}
        for name, implementations in REFERENCES.items():
            other = by_key.get((implementations[record["precision"]], record["method"]))
            ratios[f"times_as_fast_as_{name}"] = other[seconds] / record[seconds] if other else None
            ratios[f"memory_of_{name}"] = (
                record["peak_memory_bytes"] / other["peak_memory_bytes"] if other else None
            )
        result.append({**record, **ratios})
    return result


def matmul_record(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the machine's matrix products: of every one the fastest of the repeats."""
    result = {}
    for precision in runs[0]:
        columns = zip(*(run[precision]["products"] for run in runs), strict=True)
        products = [max(column, key=lambda p: p["flops_per_second"]) for column in columns]
        best = max(product["flops_per_second"] for product in products)
        result[precision] = {"products": products, "flops_per_second": best}
    return result
