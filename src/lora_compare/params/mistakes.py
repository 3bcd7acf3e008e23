"""What pydantic finds wrong with params.yaml, in the words of who wrote it."""

import difflib
import reprlib
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from lora_compare.params.experiment import Params, describe_method_name
from lora_compare.params.sections import Section

SECTIONS = ("dict_type", "model_type")
"""pydantic's names for a value where a section, or a mapping of them, should be."""

QUOTED: dict[str, Callable[[str], object]] = {
    "int_type": int,
    "float_type": float,
    "bool_type": {"true": True, "false": False}.get,
}
"""What is read from a text where a number or a truth value should be."""

PLAIN = {
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
    "string_type": "should be text",
}


def describe(problem: Any) -> str:
    """Return one mistake: its key, what is allowed, what is there.

    Args:
        problem: One of the errors of pydantic's ValidationError.
    """
    path = [str(part) for part in problem["loc"]]
    value, kind = problem["input"], problem["type"]
    is_key = path[-1:] == ["[key]"]
    key = ".".join(part for part in path if part != "[key]") or "the file"
    if kind == "missing":
        return f"{key}: missing"
    if kind == "extra_forbidden":
        return f"{key}: unknown key{_meant(path)}"
    if kind in SECTIONS:
        return f"{key}: {_no_section(path, value)}"
    if is_key and kind == "string_type":
        return f"{key}: {_no_name(path, value)}"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    message = PLAIN.get(kind, message)
    # The value of a wrong key is in the key, that of a contradiction is not what is wrong.
    is_shown = kind != "contradiction" and not is_key
    # Not repr: a few lines of YAML can stand for a list of a billion.
    shown = reprlib.repr(value) if is_shown and not isinstance(value, dict | BaseModel) else ""
    said = f"{key}: {message}" + (f", not {_shorten(shown)}" if shown else "")
    return said + _hint(kind, value, path)


def _shorten(text: str, length: int = 80) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _hint(kind: str, value: Any, path: Sequence[str]) -> str:
    """Return what a text was meant to be, as far as it can be told."""
    if not isinstance(value, str):
        return ""
    if value.lower() == "none":
        section = _section(path[:-1])
        field = section.model_fields.get(path[-1]) if section else None
        is_optional = field is not None and type(None) in get_args(field.annotation)
        return "; the word for nothing is null" if is_optional else ""
    try:
        meant = QUOTED[kind](value) if kind in QUOTED else None
    except ValueError:
        return ""
    return f", a text; without quotes: {value}" if meant is not None else ""


def _no_section(path: Sequence[str], value: Any) -> str:
    if path:
        what = "is empty" if value is None else f"is {_shorten(reprlib.repr(value))}"
        return f"{what}; here should be settings (docs/params.md), each on a line of its own"
    if value is None:
        return "it is empty: cp recipes/default.yaml params.yaml brings the default"
    return f"should be sections of settings, such as data: and split:, not {reprlib.repr(value)}"


def _no_name(path: Sequence[str], value: Any) -> str:
    if path[0] == "methods" and len(path) == 3 and (problem := describe_method_name(str(value))):
        return problem
    return f"a name should be text, not {_shorten(reprlib.repr(value))}; in quotes it is one"


def _meant(path: Sequence[str]) -> str:
    """Return the setting that an unknown key may be, as an addition to the mistake."""
    section = _section(path[:-1])
    if section is None:
        return ""
    close = difflib.get_close_matches(path[-1], section.model_fields, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    elsewhere = [key for key in _keys(Params, "") if key.rpartition(".")[2] == path[-1]]
    return f"; it belongs elsewhere: {' or '.join(elsewhere)}" if elsewhere else ""


def _section(path: Sequence[str]) -> type[Section] | None:
    """Return the section at a path of keys; None if there is none."""
    section: type[Section] = Params
    parts = list(path)
    while parts:
        field = section.model_fields.get(parts.pop(0))
        inner = None if field is None else _inner(field.annotation)
        if field is None or inner is None:
            return None
        if is_by_name(field.annotation):
            parts = parts[1:]
        section = inner
    return section


def _inner(kind: Any) -> type[Section] | None:
    """Return the section in the type of a field, which may be null, or one by name."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind
    return next((found for argument in get_args(kind) if (found := _inner(argument))), None)


def is_by_name(kind: Any) -> bool:
    """Return whether a field of the type `kind` is a mapping of names, or may be one."""
    return get_origin(kind) is dict or any(map(is_by_name, get_args(kind)))


def _keys(section: type[Section], prefix: str) -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        inner = _inner(field.annotation)
        by_name = ".M" if is_by_name(field.annotation) else ""
        keys += [f"{prefix}{name}"]
        keys += _keys(inner, f"{prefix}{name}{by_name}.") if inner else []
    return keys
