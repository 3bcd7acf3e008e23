"""The results as Markdown, and docs/performance.md with them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.charts import steps_chart, sweep_chart
from benchmarks.growth_page import growth_section
from benchmarks.jobs import IMPLEMENTATIONS
from lora_compare.comparison.formats import DASH, UNKNOWN, count, percent, size
from lora_compare.errors import DataError
from lora_compare.project.files import write_text

MARKS = re.compile(
    r"(.*<!-- measurements -->\n).*(<!-- /measurements -->.*)",
    re.DOTALL,
)

ALONG = {
    "rank": "rank",
    "length": "tokens a message",
    "batch_size": "messages a step",
    "model": "model",
}
"""What a sweep's points are called, by the field that changes."""


def write_page(path: Path, found: Mapping[str, dict[str, Any]]) -> None:
    """Put tables and charts of all results between the page's marks.

    Args:
        path: The page; charts go to the folder `images` beside it.
        found: Results by the name of their file: `steps-cpu`, `scale-cuda`, ...

    Raises:
        DataError: The page does not have the marks.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    parts = MARKS.fullmatch(text)
    if parts is None:
        raise DataError(
            "The page has no place for measurements.",
            where=str(path),
            expected="the lines <!-- measurements --> and <!-- /measurements -->",
        )
    sections = []
    for name in sorted(found, key=lambda stem: (not stem.startswith("steps"), stem)):
        results, images = found[name], path.parent / "images"
        if name.startswith("steps"):
            write_text(images / f"{name}.svg", steps_chart(results, name))
            picture = f"![Seconds of an optimizer step](images/{name}.svg)"
            sections += [steps_section(results, picture)]
        elif name.startswith("pipeline"):
            sections += [growth_section(results, images, name, _machine_line(results))]
        else:
            pictures = []
            for along in dict.fromkeys(point["along"] for point in results["points"]):
                write_text(images / f"{name}-{along}.svg", sweep_chart(results, along, name))
                title = f"Seconds and memory by {ALONG[along]}"
                pictures.append(f"![{title}](images/{name}-{along}.svg)")
            sections.append(scale_section(results, pictures))
    write_text(path, f"{parts[1]}\n" + "\n\n".join(sections) + f"\n\n{parts[2]}")


def steps_section(results: Mapping[str, Any], picture: str = "") -> str:
    """Return the comparison of the implementations as Markdown.

    Args:
        results: The content of a results file of `steps`.
        picture: A line with its chart.
    """
    settings = results["settings"]
    parts = [
        f"### Optimizer steps: {settings['model']}, {settings['device']}",
        _machine_line(results),
        _work_line(results),
        *([picture] if picture else []),
    ]
    for method in settings["methods"]:
        rows = [row for row in results["training"] if row["method"] == method]
        parts += [f"**{method}**", _table(STEP_HEADER, [_step_row(row) for row in rows])]
    if results["evaluation"]:
        rows = results["evaluation"]
        parts += [
            f"### Predicting all {count(rows[0]['messages'])} messages: "
            f"{settings['model']} with LoRA, {settings['device']}",
            _table(EVALUATION_HEADER, [_evaluation_row(row) for row in rows]),
        ]
    parts += ["### What the machine reaches in plain matrix products", _matmul_table(results)]
    return "\n\n".join(parts)


STEP_HEADER = (
    "implementation",
    "precision",
    "padded to",
    "trained parameters",
    "a step (lowest to highest repeat)",
    "messages a second",
    "peak memory",
    "times as fast as the notebook",
    "as transformers in this precision",
    "times its memory",
    "times the lower bound",
)

EVALUATION_HEADER = (
    "implementation",
    "precision",
    "padded to",
    "time",
    "messages a second",
    "peak memory",
    "times as fast as the notebook",
    "as transformers in this precision",
    "times its memory",
    "times the lower bound",
)


def _step_row(row: Mapping[str, Any]) -> list[str]:
    repeats = row["step_seconds_of_repeats"]
    seconds = f"{_seconds(row['step_seconds'])} ({_bare(min(repeats))}{DASH}{_bare(max(repeats))})"
    return _row(row, count(row["trainable_parameters"]), seconds)


def _evaluation_row(row: Mapping[str, Any]) -> list[str]:
    return _row(row, _seconds(row["seconds"]))


def _row(row: Mapping[str, Any], *own: str) -> list[str]:
    """Return the cells of a row, those of its own table between what both tables have."""
    return [
        row["implementation"],
        row["precision"],
        _padding(row),
        *own,
        f"{row['examples_per_second']:.3g}",
        size(row["peak_memory_bytes"]),
        *_ratios(row),
    ]


def _ratios(row: Mapping[str, Any]) -> list[str]:
    names = (
        "times_as_fast_as_notebook",
        "times_as_fast_as_transformers",
        "memory_of_transformers",
        "times_floor",
    )
    return [UNKNOWN if row[name] is None else f"{row[name]:.2f}" for name in names]


def _padding(row: Mapping[str, Any]) -> str:
    width = row["padded_length"]
    if width:
        return f"{width} tokens"
    packed = IMPLEMENTATIONS[row["implementation"]].family == "lora-compare"
    return "nothing" if packed else "longest of the batch"


def _seconds(value: float) -> str:
    return f"{_bare(value)} s"


def _bare(value: float) -> str:
    """Return a number with three digits and no exponent."""
    return f"{value:.3g}" if value < 0.9995 else f"{value:.2f}"


def _machine_line(results: Mapping[str, Any]) -> str:
    machine, versions = results["machine"], results["versions"]
    edited = ", with local changes" if versions["edited"] == "yes" else ""
    hardware = [
        machine["gpu"],
        f"{machine['cpu']} ({machine['architecture']}, {', '.join(machine['capabilities'])})",
        f"{machine['cores']} cores, {results['settings']['threads']} threads",
        f"{machine['memory_bytes'] / 1e9:.0f} GB of memory",
    ]
    software = [
        f"{name} {number}"
        for name, number in versions.items()
        if name not in ("edited", "commit", "lora-compare")
    ]
    return (
        f"{', '.join(part for part in hardware if part)}. {', '.join(software)}; "
        f"commit {versions['commit']}{edited}."
    )


def _work_line(results: Mapping[str, Any]) -> str:
    settings, all_, timed = (results[k] for k in ("settings", "messages", "timed_messages"))
    return (
        f"{all_['source']}, balanced; tokens: {all_['tokenizer']}. Of {count(all_['messages'])} "
        f"training messages a mean of {all_['mean_tokens']:.1f} tokens, the longest "
        f"{all_['longest_tokens']}; padded to that, {percent(all_['padding_to_longest_of_all'])} "
        f"of all positions are padding, to the longest of each batch "
        f"{percent(all_['padding_to_longest_of_batch'])}. Timed: {settings['steps']} steps of "
        f"{settings['batch_size']} messages (mean {timed['mean_tokens']:.1f} tokens) after "
        f"{settings['warmup']} others, in each of {settings['repeats']} processes of every "
        f"implementation, in turns."
    )


def _matmul_table(results: Mapping[str, Any]) -> str:
    matmul = results["matmul"]
    rates = {name: [p["flops_per_second"] for p in m["products"]] for name, m in matmul.items()}
    rows = [
        [*map(str, product["shape"]), *(f"{rates[name][i] / 1e9:,.0f}" for name in matmul)]
        for i, product in enumerate(matmul["float32"]["products"])
    ]
    return _table(("rows", "inputs", "outputs", *(f"{n}, GFLOP/s" for n in matmul)), rows)


def scale_section(results: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """Return the sweeps as Markdown: their charts, and the table folded away.

    Args:
        results: The content of a results file of `scale`.
        pictures: Lines with the charts.
    """
    return "\n\n".join(
        [
            f"### Scale: {results['settings']['device']}",
            _machine_line(results),
            *pictures,
            "<details><summary>The numbers</summary>",
            scale_table(results),
            "</details>",
        ]
    )


def scale_table(results: Mapping[str, Any]) -> str:
    """Return every point as a row, and the points that were left out."""
    header = ("along", "model", "rank", "tokens a message", "messages a step", "method")
    keys = ("model", "rank", "length", "batch_size", "method")
    rows = [
        [ALONG[point["along"]]]
        + ["" if (k, point["method"]) == ("rank", "full") else str(point[k]) for k in keys]
        + [point["implementation"], _seconds(point["step_seconds"])]
        + [size(point["peak_memory_bytes"])]
        for point in results["points"]
    ]
    table = _table((*header, "implementation", "step", "peak memory"), rows)
    left_out = {f"{point['model']} with {point['method']}" for point in results["left_out"]}
    if not left_out:
        return table
    return f"{table}\n\nLeft out for want of memory: {', '.join(sorted(left_out))}."


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell or ' ' for cell in line)} |" for line in lines)
