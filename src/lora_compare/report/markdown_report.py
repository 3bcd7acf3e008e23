"""The comparison as markdown: reports/comparison.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_compare.comparison import formats
from lora_compare.comparison import leaks
from lora_compare.report import origins
from lora_compare.comparison.verdict import differing_settings, shown_settings
from lora_compare.comparison.disagreements import find_cases
from lora_compare.comparison.evidence import Evidence
from lora_compare.report.markdown import render_results, table
from lora_compare.params import Params
from lora_compare.data.twins import Twin

PAIR_HEADER = ("A", "B", "A - B in points (95 % interval)", "McNemar p", "Holm p", "verdict")
LEAK_HEADER = ("method", "all", "without a twin in train", "with a twin in train")
MOST_CASES = 20
"""Messages on which methods disagree that the markdown shows; the page shows more."""

LONGEST_MESSAGE = 200
"""Characters of a message that the markdown shows."""

CHART_TITLES = {
    "parameters": "Test accuracy by trained parameters",
    "loss": "Loss by epoch",
    "accuracy": "Accuracy by epoch",
}


def render_markdown(
    params: Params, evidence: Evidence, comparison: Mapping[str, Any], twins: Sequence[Twin]
) -> str:
    """Return the verdict, tables, disagreements, leaks, differing settings and versions.

    Args:
        params: The experiment, for the settings.
        evidence: What the methods and baselines did.
        comparison: The content of metrics/comparison.json.
        twins: Of the test messages in the training split, from `leaks.find_leaks`.
    """
    names = evidence.names
    differing = shown_settings(differing_settings(params, names))
    parts = [
        "# Comparison of fine-tuning methods",
        render_results(comparison),
        "## Every pair",
        table(
            PAIR_HEADER,
            [_pair_row(pair) for pair in comparison["pairs"]],
        ),
        "## Charts",
        *(f"![{title}](plots/{file}.svg)" for file, title in CHART_TITLES.items()),
        *_disagreements(evidence, twins),
        "## Test messages that also stand in the training split",
        *_leaks(evidence, twins),
        "## Settings in which the methods differ",
        table(("setting", *names), [[key, *values.values()] for key, values in differing.items()]),
        "## Versions",
        *_versions(evidence),
        "More messages, all mistakes and all settings are in comparison.html.",
    ]
    return "\n\n".join(parts) + "\n"


def _disagreements(evidence: Evidence, twins: Sequence[Twin]) -> list[str]:
    """Return the section on the messages that methods dispute; nothing of one method."""
    if len(evidence.methods) == 1:
        return []
    cases = find_cases(evidence, leaks.leaked(evidence, twins).tolist())
    disputed = [case for case in cases.shown if case.disputed][:MOST_CASES]
    told = (
        f"{cases.disputed:,} of {len(evidence.texts):,} test messages got different answers; "
        f"{cases.shared:,} more were wrong in the same way by all. Wrong answers are in bold."
    )
    rows = [
        [
            formats.shorten(case.text, LONGEST_MESSAGE),
            case.label,
            *(
                f"{given.predicted} {formats.percent(given.confidence, 0)}"
                for given in case.answers
            ),
        ]
        for case in disputed
    ]
    bold = [[not given.right for given in case.answers] for case in disputed]
    shown = table(("message", "is", *evidence.names), rows, bold)
    return ["## Where the methods disagree", told, *([shown] if rows else [])]


def _leaks(evidence: Evidence, twins: Sequence[Twin]) -> list[str]:
    counts = evidence.split["test_rows_with_twin_in_train"]
    rows = [
        [str(record["method"]), *(_accuracy(record[part]) for part in ("all", "clean", "leaked"))]
        for record in leaks.accuracies(evidence, twins)
    ]
    return [
        table(tuple(counts), [[formats.count(value) for value in counts.values()]]),
        *([table(LEAK_HEADER, rows)] if twins else []),
    ]


def _accuracy(found: tuple[float, tuple[float, float], int] | None) -> str:
    if found is None:
        return formats.UNKNOWN
    accuracy, interval, n = found
    return f"{formats.percent(accuracy)} ({formats.percent_interval(interval)}) of {n:,}"


def _versions(evidence: Evidence) -> list[str]:
    return [
        table((kind, *evidence.names), [[name, *row.values()] for name, row in rows.items()])
        for kind, rows in origins.environments(evidence).items()
        if rows
    ]


def _pair_row(pair: Mapping[str, Any]) -> list[str]:
    low, high = (formats.points(end) for end in pair["accuracy_difference_ci95"])
    return [
        pair["a"],
        pair["b"],
        f"{formats.points(pair['accuracy_difference'])} ({low} to {high})",
        formats.p_value(pair["mcnemar_p"]),
        formats.p_value(pair["holm_p"]),
        pair["verdict"],
    ]
