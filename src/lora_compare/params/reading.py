"""YAML into typed parameters, every mistake named at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode

from lora_compare.errors import ParamsError
from lora_compare.params.data import misfits_of_several
from lora_compare.params.experiment import Params
from lora_compare.params.fit import describe_misfits
from lora_compare.params.mistakes import describe
from lora_compare.params.network import Architecture


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
    values, problems = _load(text, name)
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        problems += [describe(problem) for problem in error.errors(include_url=False)]
    problems += describe_misfits(values)
    if problems:
        raise _mistakes(problems, name)
    return params


def require_fit(params: Params, n_classes: int, network: Architecture | None = None) -> None:
    """Refuse an adapter that does not fit the network, now that the classes are known.

    Args:
        params: The parameters.
        n_classes: Number of classes of the data.
        network: The network, where it is known; GPT-2's are known by their names.

    Raises:
        ParamsError: An adapter of any method does not fit; all of them are named.
    """
    if problems := describe_misfits(params.model_dump(), n_classes, network):
        raise _mistakes(problems, "params.yaml")


def require_kind(params: Params, several: bool) -> None:
    """Refuse settings that are not for this kind of labels, now that it is known.

    Args:
        params: The parameters.
        several: Whether a message may have several labels.

    Raises:
        ParamsError: A setting is of the other kind; all of them are named.
    """
    flat, metric = params.flat(), params.comparison.metric
    problems = list(misfits_of_several(flat.get)) if several else []
    if not several and metric in ("jaccard", "micro_f1"):
        problems = [f"comparison.metric: accuracy, which {metric} is where a message has one class"]
    if problems:
        raise _mistakes(problems, "params.yaml")


def require_positive(named: str | None, classes: Sequence[str]) -> None:
    """Refuse a positive class that the data does not have.

    Args:
        named: `classifier.positive`; None needs no class.
        classes: Names of the data's classes.

    Raises:
        ParamsError: No class has that name.
    """
    if named is not None and named not in classes:
        raise ParamsError(
            "The positive class is none of the data's.",
            where="params.yaml: classifier.positive",
            expected=_names(classes),
            actual=named,
            next="name one of these, or set it to null for the rarest, then dvc repro",
        )


def is_possible(
    params: Params,
    name: str,
    settings: Mapping[str, Any],
    n_classes: int,
    network: Architecture | None = None,
) -> bool:
    """Return whether a method can have other values of some settings.

    Args:
        params: The parameters.
        name: The method's name.
        settings: The values by dotted key.
        n_classes: Number of classes of the data.
        network: As for `require_fit`.
    """
    try:
        changed = params.method(name).with_settings(settings)
    except ValidationError:
        return False
    values = params.model_copy(update={"methods": {name: changed}}).model_dump()
    return not describe_misfits(values, n_classes, network)


def require_prior(params: Params, classes: Sequence[str]) -> None:
    """Refuse shares of other classes than the data's, now that these are known.

    Args:
        params: The parameters.
        classes: Names of the data's classes, in their order.

    Raises:
        ParamsError: A class has no share, or a share no class; they are named.
    """
    prior = params.data.prior
    if prior is None or set(prior) == set(classes):
        return
    named = {
        "no share of": [name for name in classes if name not in prior],
        "no class of the data:": [name for name in prior if name not in classes],
    }
    raise ParamsError(
        "data.prior does not name the classes of the data.",
        where="params.yaml: data.prior",
        expected=f"a share of each of {_names(classes)}",
        actual="; ".join(f"{words} {_names(names)}" for words, names in named.items() if names),
        next="name each class once, with shares that sum to 1, or set data.prior: null",
    )


def require_costs(params: Params, classes: Sequence[str]) -> None:
    """Refuse costs and a threshold that the data's classes cannot have, now that these are known.

    Args:
        params: The parameters.
        classes: Names of the data's classes, in their order.

    Raises:
        ParamsError: `comparison.costs` names no class of the data, or lets every mistake be free;
            or `classifier.threshold` is of two classes, and the data has more.
    """
    if params.classifier.threshold != "argmax" and len(classes) > 2:
        raise ParamsError(
            "A threshold is of two classes.",
            where="params.yaml: classifier.threshold",
            expected=f"argmax, as the data has {len(classes):,} classes",
            actual=params.classifier.threshold,
            next="set classifier.threshold: argmax, then dvc repro",
        )
    costs = params.comparison.costs or {}
    named = dict.fromkeys(name for true, row in costs.items() for name in (true, *row))
    if unknown := [name for name in named if name not in classes]:
        raise ParamsError(
            "comparison.costs names no class of the data.",
            where="params.yaml: comparison.costs",
            expected=f"classes among {_names(classes)}",
            actual=_names(unknown),
            next="name classes of the data, then dvc repro",
        )
    prices = [cost for row in costs.values() for cost in row.values()]
    if len(prices) == len(classes) * (len(classes) - 1) and not any(prices):
        raise ParamsError(
            "No mistake costs anything.",
            where="params.yaml: comparison.costs",
            expected="a cost above 0 of one mistake at least",
            actual="0 of every mistake",
            next="correct the costs, or set comparison.costs: null, then dvc repro",
        )


def _names(names: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(map(repr, names[:shown])) + more


def _load(text: str, name: str) -> tuple[Any, list[str]]:
    """Return the values in YAML `text`, and every key that stands twice there."""
    reader = YAML(typ="safe", pure=True)
    reader.Constructor = _UniqueKeyConstructor
    reader.allow_duplicate_keys = True  # each of them is one of many mistakes, not the end
    try:
        return reader.load(text), reader.constructor.repeated
    except YAMLError as error:
        what, actual = "The parameters are not valid YAML.", str(error)
    except RecursionError:
        what, actual = "The parameters are nested too deeply.", "brackets or indents in hundreds"
    # A tag such as !!int or !!timestamp before something else; the errors of Python's own
    # constructors come through.
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        what, actual = "A value of the parameters is not what its form or tag says.", str(error)
    raise ParamsError(what, where=name, actual=actual, next=f"correct {name}, then dvc repro")


def _mistakes(problems: list[str], name: str) -> ParamsError:
    count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    return ParamsError(
        f"{name} has {count}.",
        where="\n".join(problems),
        kept="every result: what DVC removed before a stage comes back with dvc repro",
        next=f"correct {name} (docs/params.md has every setting with its range), then dvc repro",
    )


class _UniqueKeyConstructor(SafeConstructor):
    """Makes values of YAML 1.2 as DVC does, and notes every key that stands twice in one mapping.

    Attributes:
        repeated: What to say of each.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.repeated: list[str] = []

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Return the mapping of `node`, in which the first of equal keys counts."""
        seen: set[Any] = set()
        for key_node, _ in node.value if isinstance(node, MappingNode) else ():
            if not isinstance(key_node, ScalarNode):
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen and key != "<<":
                line = key_node.start_mark.line + 1
                self.repeated.append(f"line {line}: the key {key!r} stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file of DVC (dvc.yaml, dvc.lock); empty if there is none."""
    if not path.is_file():
        return {}
    return YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}
