"""The splits as token ids: made once, where the tokenizer is, and read by every later stage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lora_compare.errors import DataError
from lora_compare.models.batches import Examples
from lora_compare.models.network import Tokenizer
from lora_compare.project import files
from lora_compare.project.checksums import read_verified

TYPES: dict[str, np.dtype[Any]] = {
    "ids": np.dtype(np.int32),
    "offsets": np.dtype(np.int64),
    "labels": np.dtype(np.int64),
}
"""What a file holds: all texts' ids one after the other, shape (tokens,); where each text starts
and the last one ends, shape (n + 1,); and the class indices, shape (n,)."""


def tokenize(tokenizer: Tokenizer, split: Mapping[str, Sequence[Any]]) -> Examples:
    """Return a split as tokens, whole: `TextClassifier.fit` cuts them to what a training takes.

    Args:
        tokenizer: The tokenizer.
        split: Columns Label (class index) and Text.
    """
    return Examples(tokenizer.encode_all(split["Text"]), np.array(split["Label"], dtype=np.int64))


def write_examples(path: Path, examples: Examples) -> None:
    """Write `examples` to `path` atomically as safetensors; equal examples give equal bytes."""
    content = {
        "ids": np.concatenate(examples.tokens),
        "offsets": np.concatenate([[0], np.cumsum(examples.lengths)]),
        "labels": examples.labels,
    }
    files.write_bytes(path, save({name: content[name].astype(TYPES[name]) for name in TYPES}))


def read_examples(path: Path) -> Examples:
    """Return the examples that `write_examples` wrote to `path`.

    Raises:
        MissingArtifactError: The stage base_model has not run.
        IntegrityError: The file has changed since.
        DataError: The file is not what the stage base_model writes.
    """
    content = read_verified(path, "base_model")
    try:
        arrays = load(content)
    except (SafetensorError, KeyError) as error:  # a KeyError of types that NumPy does not have
        raise _damaged(path, str(error)) from None
    if (types := {name: array.dtype for name, array in arrays.items()}) != TYPES:
        raise _damaged(path, f"it holds {', '.join(f'{n} ({t})' for n, t in types.items())}")
    ids, offsets, labels = (arrays[name] for name in TYPES)
    if shapes := [name for name, array in arrays.items() if array.ndim != 1]:
        raise _damaged(path, f"{', '.join(shapes)}: not one row of numbers")
    if len(offsets) != len(labels) + 1:
        raise _damaged(path, f"it holds {len(offsets) - 1} texts and {len(labels)} labels")
    if offsets[0] != 0 or offsets[-1] != len(ids) or (offsets[1:] <= offsets[:-1]).any():
        raise _damaged(path, f"its offsets do not divide its {len(ids)} tokens into texts")
    # Copies: what is made of a file's bytes cannot be written to, of which torch warns.
    return Examples(np.split(ids.astype(np.int64), offsets[1:-1]), labels.copy())


def check_fit(path: Path, examples: Examples, split: Mapping[str, Sequence[Any]]) -> None:
    """Refuse tokens that are not those of a split.

    Args:
        path: Where the tokens come from, for the message.
        examples: The tokens.
        split: The same texts, with the columns Label and Text.

    Raises:
        DataError: Their numbers or their labels differ.
    """
    labels = np.asarray(split["Label"])
    if len(examples) != len(labels):
        actual = f"{len(examples)} texts"
    elif (different := examples.labels != labels).any():
        actual = f"another label at {int(different.sum())} of {len(labels)} texts"
    else:
        return
    raise _damaged(path, actual, f"the {len(labels)} texts of data/splits/{path.stem}.csv")


def _damaged(path: Path, actual: str, expected: str = "") -> DataError:
    return DataError(
        f"{path.name} does not hold a split as tokens.",
        where=str(path),
        expected=expected or "the file that the stage base_model wrote",
        actual=actual,
        next="dvc repro --force base_model",
    )
