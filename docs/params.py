"""Write docs/params.md, the tables of all settings, from the models of `lora_compare.params`.

    python docs/params.py

Values and defaults are those that the models check; what a setting means stands under its field.
"""

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from lora_compare.params import Params, Section

HEAD = """\
# params.yaml

Every setting: what it may be, what it is where params.yaml leaves it out (one without a default
must be there), what it means, in which unit and range. `lora-compare check` names every mistake at
once; `recipes/` has complete files. M is the name of a method: a letter, then letters, digits, `_`
or `-`.

The order of keys means nothing, and DVC sees no change of it; only tables list the methods in it
(after a mere change of their order: `dvc repro --force compare`).

`make params-page` writes this page from the fields in `src/lora_compare/params/`.
"""


def settings_page() -> str:
    """Return docs/params.md."""
    return "\n".join([HEAD, *_tables(Params, "")])


def sections(kind: Any) -> Iterator[type[Section]]:
    """Yield the sections in the type of a field: itself, one that may be null, one by name."""
    if isinstance(kind, type) and issubclass(kind, Section):
        yield kind
    for argument in get_args(kind):
        yield from sections(argument)


def _tables(section: type[Section], path: str) -> Iterator[str]:
    """Yield the lines on `section`, which stands at `path` in the file, and on those within."""
    rows, inner, meanings = [], [], dict(meanings_of(section))
    for name, field in section.model_fields.items():
        if found := next(sections(field.annotation), None):
            names = {"methods": ".M", "search": ".KEY"}
            inner.append((found, f"{path}.{name}{names.get(name, '')}".removeprefix(".")))
            continue
        values = " or ".join(dict.fromkeys(_values(field.annotation)))
        default = "" if field.is_required() else _yaml(field.get_default(call_default_factory=True))
        meaning = " ".join(meanings[name].split())
        rows.append(f"| `{name}` | {values} | {default} | {meaning} |")
    if rows:
        introduction = (section.__doc__ or "").replace("\n    ", "\n").strip()
        yield from (f"## {path}", "", introduction, "", "| key | values | default | meaning |")
        yield from ("|---|---|---|---|", *rows, "")
    for found, below in inner:
        yield from _tables(found, below)


def meanings_of(section: type[Section]) -> Iterator[tuple[str, str]]:
    """Yield the fields of a section with the text that stands under each."""
    (definition,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(definition, ast.ClassDef)
    for field, text in pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            yield ast.unparse(field.target), str(ast.literal_eval(text.value))


def _values(kind: Any) -> Iterator[str]:
    """Yield what may stand for a setting of the type `kind`, in words."""
    names = {bool: "true, false", int: "integer", float: "number", str: "text", NoneType: "null"}
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in names:
        yield names[kind]
    elif origin is Annotated:
        yield from _values(arguments[0])
    elif origin is list:
        plurals = {"text": "names", "integer": "integers"}
        yield f"list of {plurals.get(next(_values(arguments[0]), ''), 'values')}"
    elif origin is dict:
        yield f"`{{name: {next(_values(arguments[1]))}}}`"
    elif all(isinstance(argument, type) or get_origin(argument) for argument in arguments):
        for argument in arguments:
            yield from _values(argument)
    else:
        yield ", ".join(f"`{_yaml(choice)}`" for choice in arguments)


def _yaml(value: Any) -> str:
    return "null" if value is None else str(value).lower()


if __name__ == "__main__":
    (Path(__file__).parent / "params.md").write_text(settings_page(), encoding="utf-8")
