"""Whether the parts of params.yaml fit together: every adapter its network, every name its file."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from lora_compare.errors import ParamsError
from lora_compare.params.layers import choose_layers
from lora_compare.params.methods import LoraParams
from lora_compare.params.network import CONFIGS, GPTConfig, classifier_modules, gpt2_paths

MAX_CLASSES = 1000
"""Most classes that a corpus may have."""

KNOWN_CLASSES = {"bundled": 2, "uci": 2}
"""Number of classes of the sources that are known before they are read."""


def describe_misfits(values: Any, n_classes: int | None = None) -> list[str]:
    """Return everything that does not fit together, each with its key and what is allowed.

    What is no setting at all is passed over: the models of the sections tell that. So this also
    finds what is wrong with one method while there are mistakes in another section.

    Args:
        values: params.yaml as YAML has it.
        n_classes: Number of classes, where it is known. Otherwise only an adapter that fits no
            number of classes is refused.
    """
    return [*_equal_names(values), *_too_long(values), *_misfits(values, n_classes)]


def _equal_names(values: Any) -> Iterator[str]:
    by_file = defaultdict(list)
    for name in _mapping(_look_up(values, "methods")):
        by_file[str(name).lower()].append(str(name))
    for names in by_file.values():
        if len(names) > 1:
            shown = ", ".join(names)
            yield f"methods: names must differ in more than upper and lower case, not {shown}"


def _too_long(values: Any) -> Iterator[str]:
    config, length = _config(values), _look_up(values, "training", "max_length")
    if config and isinstance(length, int) and length > config.context_length:
        name, limit = _look_up(values, "model", "name"), config.context_length
        yield f"training.max_length: at most {limit} for {name}, not {length}; null is the most"


def _misfits(values: Any, n_classes: int | None) -> Iterator[str]:
    config = _config(values)
    if config is None:
        return
    source = _look_up(values, "data", "source")
    known = KNOWN_CLASSES.get(source) if isinstance(source, str) else None
    modules = classifier_modules(config, n_classes or known or MAX_CLASSES)
    for name, method in _mapping(_look_up(values, "methods")).items():
        try:
            settings = LoraParams.model_validate(_look_up(method, "lora"))
        except ValidationError:
            continue
        for mistake in choose_layers(modules, settings, gpt2_paths).mistakes:
            yield f"methods.{name}.{mistake.where}: {_in_a_line(mistake)}"


def _config(values: Any) -> GPTConfig | None:
    name = _look_up(values, "model", "name")
    config = CONFIGS.get(name) if isinstance(name, str) else None
    size = _look_up(values, "model", "pretraining", "vocabulary_size")
    if config is not None and name == "gpt2-nano" and isinstance(size, int):
        # A corpus may give fewer tokens; then the last word is `lora.inject`'s.
        return replace(config, vocab_size=size)
    return config


def _in_a_line(mistake: ParamsError) -> str:
    what = mistake.what[0].lower() + mistake.what[1:].removesuffix(".")
    if not mistake.expected:
        return what
    return f"{what}; expected {mistake.expected}, not {mistake.actual}"


def _look_up(values: Any, *keys: str) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
