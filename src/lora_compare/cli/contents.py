"""What `check` says of one's own text: its columns, its classes, how it will be split."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_compare.cli.terminal import Output

if TYPE_CHECKING:
    from lora_compare.params import Params, SplitParams
    from lora_compare.project.corpus import Messages
    from lora_compare.project.paths import Paths


@dataclass(frozen=True)
class Plan:
    """How a corpus will be split.

    Attributes:
        sizes: Messages of each split, before twins are looked for.
        pool: Messages of each class that are balanced.
        groups: How many groups of the data its test messages are in; None where it has none.
        dealt: How they are dealt, where the data says so.
        warning: What is wrong with that; empty if nothing is.
    """

    sizes: dict[str, int]
    pool: dict[str, int]
    groups: int | None = None
    dealt: str = ""
    warning: str = ""


def _plan(messages: "Messages", available: dict[str, int], settings: "SplitParams") -> Plan:
    """Return how large the splits will be: near-duplicates may move a few messages."""
    from lora_compare.data import classes

    sizes = classes.stratified_sizes(available, settings)
    if settings.mode == "stratified":
        dealt = classes.dealt_sizes(available, settings)
        classes.require_in_every_split(dealt, available, settings)
    shares = classes.proportional_sizes(available, settings)
    pool = classes.balanced_pool(shares, available, settings)
    return Plan({name: sum(parts.values()) for name, parts in sizes.items()}, pool)


def _plan_by_columns(
    messages: "Messages", available: dict[str, int], settings: "SplitParams"
) -> Plan:
    """Return the same of messages that are dealt: in folds, or as columns of the data have it.

    So are messages with several labels: how many a split gets cannot be told otherwise.
    """
    from lora_compare.data.classes import balanced_pool
    from lora_compare.data.splits import plan
    from lora_compare.data.splits.coverage import describe_missing
    from lora_compare.data.splits.describing import describe_split

    found = plan(messages, settings)
    counts = {name: part["classes"] for name, part in found["splits"].items()}
    return Plan(
        {name: part["n"] for name, part in found["splits"].items() if name != "unused"},
        balanced_pool(counts, available, settings),
        found.get("groups", {}).get("test"),
        describe_split(found, settings),
        describe_missing(found),
    )


def read_data(output: Output, paths: "Paths", params: "Params") -> dict[str, Any]:
    """Return what there is in the files that data.source names; refuse them as the stages would.

    Args:
        output: Where it is shown what is being read.
        paths: The project.
        params: The experiment.

    Raises:
        DataError: A file cannot be used, or not be split as params.yaml has it.
        ParamsError: params.yaml names classes that the data does not have.
    """
    from lora_compare.data import classes
    from lora_compare.data.messages import make_messages
    from lora_compare.data.sources import read_sources
    from lora_compare.params import (
        require_costs,
        require_fit,
        require_kind,
        require_positive,
        require_prior,
    )
    from lora_compare.project.corpus import MAIN, are_several, class_order, every_label

    started = time.perf_counter()
    with output.working(f"read {params.data.described}"):
        tables, _ = read_sources(params.data, paths)
        messages = make_messages(*tables, separator=params.data.labels_separator)
    counts, several = Counter(every_label(messages["label"])), are_several(messages["label"])
    require_kind(params, several)
    available = classes.count_available(messages, params.split)
    require_fit(params, len(available))
    require_prior(params, list(available))
    require_positive(params.classifier.positive, list(available))
    require_costs(params, list(available))
    are_dealt = several or {*messages} - {*MAIN} or params.split.folds > 1
    make_plan = _plan_by_columns if are_dealt else _plan
    plan = make_plan(messages, available, params.split)
    is_exact = params.split.deduplicate == "exact"
    warnings = [
        plan.warning,
        *(warning for table in tables for warning in table.warnings),
        classes.likely_cause(available),
        classes.describe_balance(plan.pool, params.split).removeprefix("warning: "),
    ]
    return {
        "rows": len(messages["label"]),
        "distinct": len({*messages["text"]} if is_exact else messages["text"]),
        "columns": list(dict.fromkeys(name for table in tables for name in table.columns)),
        "classes": {name: counts[name] for name in class_order(counts)},
        "labels": several,
        "splits": plan.sizes,
        "dealt": plan.dealt,
        "test_groups": plan.groups,
        "warnings": list(filter(None, warnings)),
        "seconds": time.perf_counter() - started,
    }


def say_data(output: Output, data: Mapping[str, Any]) -> None:
    """Say what `read_data` has found."""
    from lora_compare.data.classes import show_counts

    columns = ", ".join(data["columns"]) or "none are named: label, tab, text"
    output.say(f"{data['rows']:,} messages, read in {data['seconds']:.1f} s; columns: {columns}")
    repeats = data["rows"] - data["distinct"]
    counts = show_counts(data["classes"]) + (f"; {repeats:,} repeats" if repeats else "")
    kind = "labels, of which a message may have several" if data["labels"] else "classes"
    output.say(f"{len(data['classes']):,} {kind}: {counts}")
    sizes = ", ".join(f"{n:,} {name}" for name, n in data["splits"].items())
    output.say(f"to be split into about {sizes}")
    if data["dealt"]:
        output.say(data["dealt"])
    for warning in data["warnings"]:
        output.say(f"warning: {warning}")
