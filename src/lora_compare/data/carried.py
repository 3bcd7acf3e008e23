"""What a source says of a message beside text and label: its group, its time, its split."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

from lora_compare.data.tables import SHOWN, Table
from lora_compare.errors import DataError
from lora_compare.project.paths import SPLITS

EPOCH = {9: 1, 10: 1, 12: 1000, 13: 1000}
"""Parts of a second that a whole number of so many digits counts from 1970 on: seconds from March
1973 on, or milliseconds."""


def as_group(value: Any) -> str:
    """Return the name of a group, empty of a message that is one by itself.

    Raises:
        ValueError: The value is neither text nor a whole number, or text that cannot be kept.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    if not isinstance(value, str | int):
        raise ValueError(f"the group is neither text nor a whole number: {str(value)[:40]!r}")
    name = str(value)
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError(f"a group with a character that cannot be kept: {name[:40]!r}")
    return name


def as_time(value: Any) -> str:
    """Return a date in UTC as ISO 8601 has it, which sorts as text.

    What has no time zone is taken for UTC, and a day for its beginning.

    Args:
        value: A date of Python's, ISO 8601, or seconds or milliseconds since 1970 (`EPOCH`).

    Raises:
        ValueError: It is none of these.
    """
    try:
        moment = _moment(value)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC).replace(tzinfo=None).isoformat()
    except (ValueError, OverflowError):
        shown = "empty" if value in (None, "") else repr(str(value)[:40])
        raise ValueError(f"no date that can be read: {shown}") from None


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    text = value.isoformat() if isinstance(value, date) else str(value).strip()
    if isinstance(value, bool):
        raise ValueError("a truth value")
    if text.isascii() and text.isdigit() and len(text) in EPOCH:
        return datetime.fromtimestamp(int(text) / EPOCH[len(text)], UTC)
    return datetime.fromisoformat(text)


def as_split(value: Any) -> str:
    """Return the name of a split, which `require_splits` has looked at."""
    return str(value)


READERS: dict[str, Callable[[Any], str]] = {
    "group": as_group,
    "time": as_time,
    "split": as_split,
}
"""How a value is read, by what it says."""

EXPECTED = {
    "group": "a text or a whole number as the group, or nothing",
    "time": "a date as ISO 8601 has it, such as 2026-03-05 or 2026-03-05T14:22:01Z, or seconds or "
    "milliseconds since 1970, in every row",
    "split": "train, validation or test in every row",
}
"""What every row should hold, by what it says."""


def read_carried(table: Table, part: str = "") -> dict[str, list[str]]:
    """Return what the rows of a table say beside text and label, by what it is.

    A message without a group stands alone; `table.warnings` says of how many that is so.

    Args:
        table: The rows as they stand in the file.
        part: The split that the whole file is of; empty where it is of none.

    Raises:
        DataError: A row holds something else; the first five are named and all counted.
    """
    require_splits(table)
    found = {key: _read(table, key, values) for key, values in table.carried.items()}
    if alone := found.get("group", []).count(""):
        table.warnings.append(
            f"{alone:,} of {len(table.places):,} rows of {table.name} have no group "
            "(data.group_column): each is one by itself"
        )
    return found | ({"split": [part] * len(table.places)} if part else {})


def require_splits(table: Table) -> None:
    """Refuse a column of splits with other values than theirs.

    Raises:
        DataError: There are others, which are listed with how often they stand there.
    """
    counts = Counter(str(value) for value in table.carried.get("split", []))
    others = {value: n for value, n in counts.most_common() if value not in SPLITS}
    if not others:
        return
    shown = [f"{value[:40]!r} {n:,} times" for value, n in list(others.items())[:SHOWN]]
    more = len(others) - len(shown)
    raise DataError(
        f"The column of the splits holds other values in {table.name}.",
        where=f"{table.name}; params.yaml: data.split_column",
        expected=EXPECTED["split"],
        actual=", ".join(shown + ([f"and {more:,} more values"] if more else [])),
        next="write train, validation or test in each row, or name another column",
    )


def _read(table: Table, key: str, values: Sequence[Any]) -> list[str]:
    read, found, problems = READERS[key], [], []
    for place, value in zip(table.places, values, strict=True):
        try:
            found.append(read(value))
        except ValueError as error:
            problems.append((place, str(error)))
    table.refuse(
        problems, EXPECTED[key], f"correct these rows, or data.{key}_column in params.yaml"
    )
    return found
