"""Where a comparison comes from, as the report shows it: machines, versions and messages."""

from collections.abc import Mapping
from typing import Any

from lora_compare.comparison import formats
from lora_compare.comparison.evidence import Evidence
from lora_compare.comparison.outcomes import Outcome

Row = dict[str, str]
"""A value by the name of the method."""


def environments(evidence: Evidence) -> dict[str, dict[str, Row]]:
    """Return where every method was trained and evaluated, and by which versions.

    Rows by their name under `training` and `evaluation`; of what no file tells there is no row.
    """
    training = {method.name: _training(method) for method in evidence.methods}
    evaluation = {
        method.name: dict(method.metrics.get("versions", {})) for method in evidence.methods
    }
    return {"training": _rows(training), "evaluation": _rows(evaluation)}


def alike(rows: Mapping[str, Row]) -> bool:
    """Return whether every row has one value for all methods."""
    return all(len(set(row.values())) == 1 for row in rows.values())


def source(evidence: Evidence) -> dict[str, str]:
    """Return where the messages come from, with the checksum of the file."""
    facts = evidence.source
    address = {} if facts.get("url") == facts.get("source") else {"Address": "url"}
    titles = {
        "Source": "source",
        **address,
        "Member of the archive": "member",
        "SHA-256 of the source": "sha256",
        "SHA-256 of the messages": "messages_sha256",
    }
    files = {f"SHA-256 of {part}": one["sha256"] for part, one in facts.get("files", {}).items()}
    return {title: str(facts[key]) for title, key in titles.items() if key in facts} | files


def _training(method: Outcome) -> dict[str, Any]:
    cost: Mapping[str, Any] = method.cost or {}
    environment = cost.get("environment", {})
    platform = environment.get("platform", {})
    return {
        "device": environment.get("device", cost.get("device")),
        "arithmetic": cost.get("dtype"),
        "CPU threads": cost.get("threads"),
        "system": " ".join(filter(None, map(platform.get, ("system", "machine")))) or None,
        "CPU instructions": platform.get("cpu_capability"),
        **environment.get("versions", {}),
    }


def _rows(columns: Mapping[str, Mapping[str, Any]]) -> dict[str, Row]:
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = {
        name: {method: _shown(column.get(name)) for method, column in columns.items()}
        for name in names
    }
    return {name: row for name, row in rows.items() if set(row.values()) != {formats.UNKNOWN}}


def _shown(value: Any) -> str:
    return formats.UNKNOWN if value is None else str(value)
