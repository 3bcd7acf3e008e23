"""YAML into typed parameters, every mistake named at once."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lora_compare.errors import ParamsError
from lora_compare.params.experiment import Params


def load_params(path: Path) -> Params:
    """Return the parameters that `path` holds.

    Raises:
        ParamsError: The file is missing, is not YAML, or breaks a rule; every broken rule is
            listed with its key, its value and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(
            "There is no project here: params.yaml is missing.",
            where=str(path),
            next="run the command in the project's folder, or git checkout params.yaml",
        ) from None
    except UnicodeDecodeError as error:
        raise ParamsError(
            "params.yaml is not UTF-8.", where=str(path), actual=str(error), next="save it as UTF-8"
        ) from None
    return parse_params(text, str(path.name))


def parse_params(text: str, name: str = "params.yaml") -> Params:
    """Return the parameters that YAML `text` holds; `name` stands for it in errors.

    Raises:
        ParamsError: As `load_params`.
    """
    try:
        values = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506
    except yaml.YAMLError as error:
        raise ParamsError(
            "The parameters are not valid YAML.", where=name, actual=str(error)
        ) from None
    except RecursionError:
        raise ParamsError("The parameters are nested too deeply.", where=name) from None
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors(include_url=False)]
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise ParamsError(
            f"{name} has {count}.",
            where="\n".join(problems),
            kept="every result: what DVC removed before a stage comes back with dvc repro",
            next=f"correct {name} (README.md lists every parameter with its range), then dvc repro",
        ) from None


def _describe(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    value, kind = problem["input"], problem["type"]
    if kind == "missing":
        return f"{key}: missing"
    if kind == "extra_forbidden":
        return f"{key}: unknown key"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    if isinstance(value, str) and _reads_as_float(value):
        return f"{key}: {value!r} is text in YAML; write {_as_yaml_float(value)}"
    shown = repr(value) if not isinstance(value, dict | BaseModel) else ""
    return f"{key}: {message}" + (f", not {_shorten(shown)}" if shown else "")


def _reads_as_float(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _as_yaml_float(value: str) -> str:
    mantissa, exponent, power = value.lower().partition("e")
    if "." not in mantissa:
        mantissa += ".0"
    sign = "" if power.startswith(("+", "-")) or not exponent else "+"
    return f"{mantissa}{exponent}{sign}{power}"


def _shorten(text: str, length: int = 80) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, but a key that stands twice is an error, not the last one's value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of `node`; refuse repeated and unhashable keys."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            key = self.construct_object(key_node)
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file of DVC (dvc.yaml, dvc.lock); empty if there is none."""
    if not path.is_file():
        return {}
    # libyaml, where PyYAML has it: every stage reads DVC's files, and dvc.lock is long.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader) or {}  # noqa: S506
