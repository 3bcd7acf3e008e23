"""A folder as `save_pretrained` writes it, checked before anything of it is loaded."""

import json
import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_compare.errors import CheckpointError, ParamsError
from lora_compare.models.hub.settings import CONFIG, OTHER_MODEL, check_settings, classifier_name
from lora_compare.models.weights import opened, refusal
from lora_compare.project.files import sha256

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

TOKENIZER = re.compile(
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.json|vocab\.txt|merges\.txt|[\w.-]+\.model"
)
"""Names of the files of a tokenizer."""

VOCABULARY = re.compile(r"tokenizer\.json|vocab\.json|vocab\.txt|[\w.-]+\.model")
"""Names of those of them without which there are no tokens."""

_SHARD = re.compile(r"[\w-][\w.-]*\.safetensors")
_PICKLE = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle)")
_NUMBERS = ("F64", "F32", "F16", "BF16")
_BUFFERS = ("I64", "I32", "I16", "U8", "BOOL")  # positions and masks, which are no weights


@dataclass(frozen=True)
class FolderFacts:
    """What is known of a model's folder before it is loaded.

    Attributes:
        settings: Its config.json.
        architecture: The class of transformers that classifies texts with it.
        weights: Names of the files of its weights; empty where they were not asked for.
        names: Names of all files that make up the model: config, tokenizer, weights.
    """

    settings: dict[str, Any]
    architecture: str
    weights: tuple[str, ...]
    names: tuple[str, ...]


def find_folder(name: str, root: Path) -> Path:
    """Return the folder of a model in the project.

    Args:
        name: `model.name`, a path below the project.
        root: The project's folder.

    Raises:
        ParamsError: It is not there, or is a link, or in one, into which DVC would not look.
    """
    path = Path(name)
    linked = [part for part in (path, *path.parents) if (root / part).is_symlink()]
    if (root / path).is_dir() and not linked:
        return root / path
    raise ParamsError(
        f"DVC would not see a change in {linked[0]}, a link to a folder."
        if linked
        else "There is no folder of that model.",
        where="params.yaml: model.name",
        expected=f"a folder with {CONFIG}, {WEIGHTS} and the files of a tokenizer",
        actual=f"{name}, seen from {root}",
        next="put the files there, as transformers' save_pretrained writes them; experiments that\n"
        f"DVC runs in a copy of the project get them after dvc add {name} and git commit",
    )


def check_folder(folder: Path, with_weights: bool = True, several: bool = False) -> FolderFacts:
    """Return what a model's folder holds, or refuse it; nothing of it is executed.

    Read are JSON and the tensors of safetensors files, one after the other. Whether the tensors
    are those of the architecture is for `loading.load_network` to say.

    Args:
        folder: The model's folder, or a snapshot in the hub's cache.
        with_weights: Whether its weights are wanted, too.
        several: Whether the data has several labels a text.

    Raises:
        ParamsError: transformers is not installed.
        CheckpointError: A file is missing, damaged, leads out of the folder, or is nothing that
            may be loaded: code, a pickle, a quantised checkpoint; or a weight is not finite.
    """
    _refuse_links_out(folder)
    settings = check_settings(folder, several)
    tokenizer = [name for name in _names(folder) if TOKENIZER.fullmatch(name)]
    if not any(VOCABULARY.fullmatch(name) for name in tokenizer):
        raise _no_vocabulary(folder)
    weights = weight_files(folder) if with_weights else ()
    _require_finite(folder, weights)
    index = (INDEX,) if weights and weights != (WEIGHTS,) else ()
    names = (CONFIG, *tokenizer, *index, *weights)
    return FolderFacts(settings, classifier_name(settings), weights, names)


def digests(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return bytes and sha256 of files in a folder by their names, for the records."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        for name in names
    }


def weight_files(folder: Path) -> tuple[str, ...]:
    """Return the names of the safetensors files that hold a model's weights, each once.

    As in transformers, model.safetensors comes before the shards of an index.

    Raises:
        CheckpointError: There are none, or the index is damaged or names what is not there.
    """
    if (folder / WEIGHTS).is_file():
        return (WEIGHTS,)
    if not (folder / INDEX).is_file():
        raise no_weights(str(folder), str(folder), _names(folder), str(folder))
    try:
        shards = sorted(set(json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values()))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise _broken_index(folder, f"{type(error).__name__}: {error}") from error
    for shard in shards:
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise _broken_index(folder, f"the file {shard!r}, which is none of this folder")
        if not (folder / shard).is_file():
            raise _broken_index(folder, f"{shard} is missing")
    if not shards:
        raise _broken_index(folder, "no file at all")
    return tuple(shards)


def count_stored(folder: Path) -> int:
    """Return how many numbers the weights in a model's folder hold, by the files' headers."""
    total = 0
    for name in weight_files(folder):
        with opened(folder / name) as file:
            shapes = (file.get_slice(tensor).get_shape() for tensor in file.keys())  # noqa: SIM118
            total += sum(math.prod(shape) for shape in shapes)
    return total


def no_weights(model: str, folder: str, names: Iterable[str], where: str) -> CheckpointError:
    """Return the error of a model without safetensors, which says how to make them of a pickle.

    Args:
        model: What transformers reads it by, a folder or a name on the hub.
        folder: Where it would be converted to.
        names: Names of the files that it has.
        where: What the error is about.
    """
    pickles = sorted(name for name in names if _PICKLE.fullmatch(name))
    code = (
        f"from transformers import AutoModel, AutoTokenizer; m, d = {json.dumps(model)}, "
        f"{json.dumps(folder)}; "
        "AutoModel.from_pretrained(m, use_safetensors=False).save_pretrained(d); "
        "AutoTokenizer.from_pretrained(m).save_pretrained(d)"
    )
    convert = (
        "if you trust who made it, convert it where transformers is installed:\n"
        f"  {shlex.join(('python', '-c', code))}\n"
        f"set model.name: {folder}"
    )
    return CheckpointError(
        "The model has its weights in a pickle alone, which can execute code when it is opened."
        if pickles
        else "The model has no weights.",
        where=where,
        expected=f"{WEIGHTS}, or {INDEX} and its shards",
        actual=", ".join(pickles) or f"none of them among {', '.join(sorted(names)[:10])}",
        kept="nothing of the model was loaded or executed",
        next=(convert if pickles else "put them there with transformers' save_pretrained")
        + f",\nor {OTHER_MODEL}, or set model.weights to random",
    )


def _refuse_links_out(folder: Path) -> None:
    """Refuse links to files elsewhere; those of the hub's cache lead to its own `blobs`."""
    inside = [folder.resolve()]
    if folder.parent.name == "snapshots":
        inside.append(folder.parent.parent.resolve() / "blobs")
    for parent, folders, names in os.walk(folder):
        for path in (Path(parent) / name for name in (*folders, *names)):
            if not path.is_symlink():
                continue
            target = path.resolve()
            if not any(target.is_relative_to(place) for place in inside):
                raise CheckpointError(
                    "A link in the model's folder leads out of it.",
                    where=str(path),
                    expected="a file, or a link to one in the same folder",
                    actual=f"a link to {target}",
                    kept="nothing of the model was loaded or executed",
                    next="put the file itself there: "
                    + shlex.join(("cp", "--remove-destination", str(target), str(path))),
                )


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _no_vocabulary(folder: Path) -> CheckpointError:
    return CheckpointError(
        "The model has no tokenizer.",
        where=str(folder),
        expected="tokenizer.json, or another vocabulary of which a fast tokenizer can be made",
        actual=", ".join(_names(folder)[:10]),
        next=f"put it there with the save_pretrained of the model's tokenizer,\nor {OTHER_MODEL}",
    )


def _broken_index(folder: Path, actual: str) -> CheckpointError:
    return CheckpointError(
        "The index of the model's weights does not fit its files.",
        where=str(folder / INDEX),
        expected='{"weight_map": {tensor: file}} with files that lie beside it',
        actual=actual,
        next="fetch or save the model's files again, all of them",
    )


def _require_finite(folder: Path, names: Iterable[str]) -> None:
    """Refuse weights that are no numbers, or of a type that is none of a whole model's."""
    stored: Counter[str] = Counter()
    for name in names:
        with opened(folder / name) as file:
            stored.update(file.keys())
            if problems := list(_tensor_problems(file)):
                raise unfit_weights(folder / name, problems)
    if twice := [f"{tensor}: stored twice" for tensor, times in stored.items() if times > 1]:
        raise unfit_weights(folder / INDEX, twice)


def unfit_weights(path: Path, problems: Sequence[str]) -> CheckpointError:
    """Return the error of weights that are not those of the model, by key, in a file or folder."""
    again = "save the model there anew with transformers' save_pretrained"
    return replace(refusal(path, problems), next=f"{again}, or {OTHER_MODEL}")


def _tensor_problems(file: Any) -> Iterator[str]:
    for name in file.keys():  # noqa: SIM118 (the file is no mapping)
        dtype = file.get_slice(name).get_dtype()
        if dtype in _BUFFERS:
            continue
        if dtype not in _NUMBERS:
            yield f"{name}: type {dtype}, allowed are {', '.join(_NUMBERS)}"
            continue
        tensor = file.get_tensor(name)
        if count := int((~tensor.isfinite()).sum()):
            yield f"{name}: {count:,} of {tensor.numel():,} numbers NaN or infinite"
