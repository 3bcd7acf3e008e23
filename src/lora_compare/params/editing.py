"""params.yaml with another method, everything else in it as it was."""

import json
from collections.abc import Mapping, Sequence

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node

from lora_compare.errors import ParamsError
from lora_compare.params.experiment import Params
from lora_compare.params.methods import MethodParams
from lora_compare.params.reading import parse_params

Settings = Mapping[str, str | Sequence[str]]


def with_method(text: str, name: str, settings: Settings) -> str:
    """Return the YAML `text` of params.yaml with one more method, the last one.

    Only lines are added; comments, order and quotes stay as they are.

    Args:
        text: Valid parameters.
        name: The new method's name.
        settings: Its settings, texts and lists of texts.

    Raises:
        ParamsError: The parameters are not valid, the name cannot be a method's, or the file is
            written in a way in which the place is not found.
    """
    before = parse_params(text)
    block = [f"{name}:", *(f"  {key}: {_yaml(value)}" for key, value in settings.items())]
    changed = _with_lines(text, block)
    expected = {**before.methods, name: MethodParams.model_validate(dict(settings))}
    if _methods(changed) != (before.model_copy(update={"methods": expected}), list(expected)):
        raise ParamsError(
            "The method could not be added to params.yaml.",
            where="params.yaml: methods",
            kept="params.yaml as it was",
            next="add it yourself:\n" + "\n".join(f"  {line}" for line in block),
        )
    return changed


def _methods(text: str) -> tuple[Params | None, list[str]]:
    try:
        params = parse_params(text)
    except ParamsError:
        return None, []
    return params, list(params.methods)


def _with_lines(text: str, block: Sequence[str]) -> str:
    """Return `text` with the lines of `block` behind the last method, as far as it is found."""
    root = YAML(typ="safe", pure=True).compose(text)
    assert isinstance(root, MappingNode)
    (methods,) = (value for key, value in root.value if key.value == "methods")
    first, _ = methods.value[0]
    newline = "\r\n" if "\r\n" in text else "\n"
    end = text.find("\n", _end(methods)) + 1
    if not end:
        text, end = text + newline, len(text + newline)
    indent = " " * first.start_mark.column
    added = "".join(f"{indent}{line}{newline}" for line in block)
    return text[:end] + added + text[end:]


def _end(node: Node) -> int:
    """Return where the last thing written in `node` ends; its own mark is behind comments."""
    if isinstance(node, MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    return int(node.end_mark.index)


def _yaml(value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        return value
    # JSON is YAML too, and quotes what YAML would take for something else than text.
    return json.dumps(list(value), ensure_ascii=False)
