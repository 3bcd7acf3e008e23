"""Whether the parts of params.yaml fit together: every adapter its network, every name its file."""

import difflib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice, product
from typing import Any, TypeVar

from pydantic import ValidationError

from lora_compare.errors import ParamsError
from lora_compare.params.data import contradictions, misfits_of_several, n_folds
from lora_compare.params.methods import LoraParams, MethodParams
from lora_compare.params.mistakes import describe
from lora_compare.params.network import (
    CONFIGS,
    Architecture,
    GPTConfig,
    ModelParams,
    gpt_architecture,
)
from lora_compare.params.search import Space, TuningParams, count_trials, is_whole
from lora_compare.params.sections import Section

MAX_CLASSES = 1000
"""Most classes that a corpus may have."""

KNOWN_CLASSES = {"bundled": 2, "uci": 2}
"""Number of classes of the sources that are known before they are read."""

MOST_COMBINATIONS = 2000
"""Combinations of a search's values that are tried out before anything runs."""

Part = TypeVar("Part", bound=Section)


def describe_misfits(
    values: Any, n_classes: int | None = None, architecture: Architecture | None = None
) -> list[str]:
    """Return everything that does not fit together, each with its key and what is allowed.

    What is no setting at all is passed over: the models of the sections tell that. So this also
    finds what is wrong with one method while there are mistakes in another section.

    Args:
        values: params.yaml as YAML has it.
        n_classes: Number of classes, where it is known. Otherwise only an adapter that fits no
            number of classes is refused.
        architecture: The network, where it is known; GPT-2's are known by their names.
    """
    return [
        *_splits(values),
        *_several_labels(values),
        *_folds(values),
        *_equal_names(values),
        *_too_long(values),
        *_head_of_an_architecture(values),
        *_seeds_of_the_comparison(values),
        *_misfits(values, architecture or _known(values, n_classes)),
    ]


def _splits(values: Any) -> Iterator[str]:
    """Yield what of `split` and of `data` says two things of one split."""
    data, split = (_mapping(_look_up(values, key)) for key in ("data", "split"))
    if data and split:
        yield from contradictions(data, split)


def _folds(values: Any) -> Iterator[str]:
    """Yield which trainings are not one a fold."""
    if (folds := n_folds(_mapping(_look_up(values, "split")))) < 2:
        return
    seeds = _look_up(values, "training", "seeds")
    if isinstance(seeds, list) and len(seeds) != folds:
        yield f"training.seeds: {folds} folds need {folds} seeds, one each, not {len(seeds)}"
    for name, method in _mapping(_look_up(values, "methods")).items():
        if _look_up(method, "trainable") == "imported":
            yield f"methods.{name}: imported, and so not trained without each fold's test messages"


def _several_labels(values: Any) -> Iterator[str]:
    """Yield what does not go with several labels a message, where a setting says that there are."""
    if _look_up(values, "data", "labels_separator") is not None:
        yield from misfits_of_several(lambda key: _look_up(values, *key.split(".")))


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


def _head_of_an_architecture(values: Any) -> Iterator[str]:
    """Yield what a classifier of transformers decides by itself and the settings decide, too."""
    model = _section(ModelParams, values, "model")
    if model is None or model.kind == "gpt":
        return
    for key, only in {"position": "last_token", "bias": True}.items():
        found = _look_up(values, "classifier", key)
        if found is not None and found != only:
            yield (
                f"classifier.{key}: {str(only).lower()} for {model.name}, whose architecture has "
                f"a head of its own, not {str(found).lower()}"
            )
    if _look_up(values, "training", "compile") is True and not _is_recorded(values):
        yield (
            f"training.compile: false for {model.name}, or device: cuda without "
            "gradient_checkpointing, which records passes; only GPT-2's blocks are compiled"
        )


def _is_recorded(values: Any) -> bool:
    anew = _look_up(values, "training", "gradient_checkpointing")
    return _look_up(values, "training", "device") == "cuda" and anew is not True


def _seeds_of_the_comparison(values: Any) -> Iterator[str]:
    tuning, compared = (
        _section(TuningParams, values, "tuning"),
        _look_up(values, "training", "seeds"),
    )
    if tuning is None or not isinstance(compared, list):
        return
    for seed in tuning.seeds:
        if seed in compared:
            yield (
                f"tuning.seeds: {seed} is one of training.seeds; what was chosen by a training "
                "must not be compared by the same one"
            )


def _known(values: Any, n_classes: int | None) -> Architecture | None:
    """Return the network that `model.name` means, if it is a GPT."""
    config, source = _config(values), _look_up(values, "data", "source")
    if config is None:
        return None
    classes = KNOWN_CLASSES.get(source) if isinstance(source, str) else None
    return gpt_architecture(config, n_classes or classes or MAX_CLASSES)


def _misfits(values: Any, network: Architecture | None) -> Iterator[str]:
    tuning = _section(TuningParams, values, "tuning")
    for name, method in _mapping(_look_up(values, "methods")).items():
        mistakes = _unfit(network, _section(LoraParams, method, "lora"))
        yield from (f"methods.{name}.{mistake}" for mistake in mistakes)
        spaces = _spaces(_look_up(method, "search"))
        plain = {key: value for key, value in _mapping(method).items() if key != "search"}
        # A mistake of the method would come back with every value of its search.
        if spaces and not mistakes and (found := _section(MethodParams, plain)):
            unfit = _wrong_searches(found, spaces, tuning, network)
            yield from (f"methods.{name}.search{mistake}" for mistake in unfit)


def _unfit(network: Architecture | None, settings: LoraParams | None) -> list[str]:
    """Return what of an adapter does not fit the network, each with its key."""
    if settings is None or network is None:
        return []
    mistakes = network.choose(settings).mistakes
    return [f"{mistake.where}: {_in_a_line(mistake)}" for mistake in mistakes]


def _wrong_searches(
    method: MethodParams,
    spaces: Mapping[str, Space],
    tuning: TuningParams | None,
    network: Architecture | None,
) -> Iterator[str]:
    """Yield what is wrong with a search: its keys, its size, values that cannot be."""
    unknown = [key for key in spaces if key not in method.searchable]
    for key in unknown:
        meant = difflib.get_close_matches(key, method.searchable, n=1)
        hint = f"; did you mean {meant[0]}?" if meant else f": {', '.join(method.searchable)}"
        yield f".{key}: no setting of this method that can be searched{hint}"
    if unknown:
        return
    if tuning and tuning.sampler == "grid":
        counts = [space.count(tuning.trials) for space in spaces.values()]
        if (total := count_trials(spaces, tuning)) > tuning.trials:
            shown = " x ".join(map(str, counts)) + (f" = {total}" * (len(counts) > 1))
            yield (
                f": {shown} values are more than tuning.trials: {tuning.trials}; name fewer by "
                "choices or step, raise tuning.trials, or take tuning.sampler: tpe"
            )
    wrong = [*_impossible(method, spaces, network)]
    yield from wrong or _impossible_together(method, spaces, network)


def _impossible(
    method: MethodParams, spaces: Mapping[str, Space], network: Architecture | None
) -> Iterator[str]:
    """Yield the values that cannot be, each alone, with the setting's key."""
    for key, space in spaces.items():
        whole = is_whole(MethodParams, key)
        if whole and space.step and space.step % 1:
            yield f".{key}.step: should be a whole number, not {space.step:g}"
        for value in space.extremes(whole):
            for mistake in _mistakes(method, {key: value}, network):
                same = mistake.startswith(f"{key}: ")
                said = mistake.removeprefix(f"{key}: ") if same else f"{value!r} gives {mistake}"
                yield f".{key}: {said}"


def _impossible_together(
    method: MethodParams, spaces: Mapping[str, Space], network: Architecture | None
) -> Iterator[str]:
    """Yield the first values that cannot be together."""
    extremes = [space.extremes(is_whole(MethodParams, key)) for key, space in spaces.items()]
    for values in islice(product(*extremes), MOST_COMBINATIONS):
        settings = dict(zip(spaces, values, strict=True))
        if mistakes := _mistakes(method, settings, network):
            shown = ", ".join(f"{key} {value!r}" for key, value in settings.items())
            yield f": {shown} cannot be together: {mistakes[0]}"
            return


def _mistakes(
    method: MethodParams, settings: Mapping[str, Any], network: Architecture | None
) -> list[str]:
    """Return why a method cannot have these settings, each reason with its key."""
    try:
        changed = method.with_settings(settings)
    except ValidationError as error:
        return [describe(problem) for problem in error.errors(include_url=False)]
    return _unfit(network, changed.lora)


def _spaces(search: Any) -> dict[str, Space]:
    """Return a search; nothing where a part of it is no search, which its section tells."""
    found = {key: _section(Space, space) for key, space in _mapping(search).items()}
    if not all(isinstance(key, str) for key in found):
        return {}
    return {key: space for key, space in found.items() if space is not None}


def _section(kind: type[Part], values: Any, *keys: str) -> Part | None:
    """Return a section of the parameters; None where it is not there or not valid."""
    found = _look_up(values, *keys)
    if found is None and kind is TuningParams and isinstance(values, dict):
        found = {}
    try:
        return kind.model_validate(found)
    except ValidationError:
        return None


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
