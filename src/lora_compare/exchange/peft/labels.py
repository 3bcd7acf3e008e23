"""Which class each row of an adapter's head means."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_compare.errors import CheckpointError, DataError
from lora_compare.exchange.peft.names import CONFIG_FILE
from lora_compare.project.files import is_file, read_json

MODEL_CONFIG = "config.json"
"""The settings of a model of transformers; `id2label` there names the rows of its head."""

_NO_NAME = re.compile(r"LABEL_\d+")


@dataclass(frozen=True)
class HeadRows:
    """The classes in the order of an adapter's head.

    Attributes:
        classes: Names of the classes, one a row.
        origin: What says so.
    """

    classes: list[str]
    origin: str

    def __str__(self) -> str:
        """Return every row with its class, and what says so."""
        rows = ", ".join(f"{row} is {name}" for row, name in enumerate(self.classes))
        return f"rows of its head, by {self.origin}: {rows}"


def head_rows(
    config: Mapping[str, Any], source: Path, classes: list[str], given: Sequence[str] | None = None
) -> HeadRows:
    """Return what the rows of an adapter's head mean.

    Its own `id2label` decides, then the user, then the base's `id2label` where it names the
    data's classes, and then the data's order.

    Args:
        config: adapter_config.json.
        source: The adapter's folder.
        classes: The data's classes in their order, which is taken where nothing says another.
        given: The order that the user names, all of `classes`.

    Raises:
        CheckpointError: The adapter's own names are not the data's, or contradict the user's.
    """
    for file, labels, is_own in _settings(config, source):
        names = _names(labels, file)
        if all(map(_NO_NAME.fullmatch, names)) and sorted(names) != sorted(classes):
            continue  # transformers' words for "nobody has named them"
        if sorted(names) != sorted(classes):
            if is_own and given is None:
                raise _refusal(
                    "The adapter names its classes otherwise than the data.",
                    *(file, classes, names),
                    advice="say with --classes which class of the data each row means, in the "
                    "order of actual",
                )
        elif given is None or list(given) == names:
            return HeadRows(names, f"id2label in {file}")
        elif is_own:
            raise _refusal(
                "--classes contradicts the adapter's own order of the classes.",
                *(file, names, given),
                advice="leave --classes out; where id2label is wrong, correct it there",
            )
    if given is not None:
        return HeadRows(list(given), "--classes")
    return HeadRows(classes, "the order of the data's classes, for the adapter says none")


def _settings(config: Mapping[str, Any], source: Path) -> Iterator[tuple[Path, Any, bool]]:
    """Yield every `id2label` with its file, and whether it is the adapter's own or its base's."""
    if config.get("id2label"):
        yield source / CONFIG_FILE, config["id2label"], True
    name = str(config.get("base_model_name_or_path") or "base")
    for folder in dict.fromkeys((source, source / "base", Path(name), source / name)):
        file = folder / MODEL_CONFIG
        if not is_file(file):
            continue
        try:
            values = read_json(file)
        except DataError as error:
            raise CheckpointError(
                "The model's settings are no JSON.",
                where=str(file),
                actual=error.actual,
                next="save the model again, or take the file away",
            ) from None
        if isinstance(values, dict) and values.get("id2label"):
            yield file, values["id2label"], folder == source


def _names(labels: Any, file: Path) -> list[str]:
    """Return the names of `id2label` by row."""
    rows = [str(row) for row in range(len(labels))] if isinstance(labels, dict) else []
    if not rows or sorted(rows) != sorted(labels):
        raise CheckpointError(
            "id2label does not name every row of a head.",
            where=str(file),
            expected='{"0": NAME, "1": NAME, ...}',
            actual=json.dumps(labels, ensure_ascii=False)[:200],
            next="correct it, or take it out and name the classes with --classes",
        )
    return [name if isinstance(name := labels[row], str) else json.dumps(name) for row in rows]


def _refusal(
    what: str, file: Path, expected: Sequence[str], actual: Sequence[str], advice: str
) -> CheckpointError:
    return CheckpointError(
        what,
        where=f"{file}: id2label",
        expected=", ".join(expected),
        actual=", ".join(actual),
        kept="nothing was written",
        next=advice,
    )
