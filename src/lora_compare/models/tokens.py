"""The splits as token ids: made once, where the tokenizer is, and read by every later stage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lora_compare.errors import DataError
from lora_compare.models.answers.targets import are_right, sum_by_class
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

OF_SEVERAL = TYPES | {"labels": np.dtype(np.uint8)}
"""The same where a text may have several labels: 0 and 1, shape (n, k)."""

FOLDS = np.dtype(np.int64)
"""Of the numbers of the folds for which the texts are there, shape (n,), where there are folds."""

FRAGMENTED = 1.0
"""Tokens a character above which a tokenizer does not fit the text: then they are single bytes.
English is a quarter of a token a character, Korean half of one and Chinese up to one in tokenizers
made for them; GPT-2's makes more than one and a half of both."""

UNKNOWN = 0.05
"""Share of unknown tokens above which a tokenizer does not fit the text: rare signs give less."""

MULTILINGUAL = "FacebookAI/xlm-roberta-base"
"""A base that knows a hundred languages, to be named where a tokenizer does not fit.

Source: Conneau et al. 2020, arXiv:1911.02116, table 6.
"""


def tokenize(tokenizer: Tokenizer, split: Mapping[str, Sequence[Any]]) -> Examples:
    """Return a split as tokens, whole: `TextClassifier.fit` cuts them to what a training takes.

    Args:
        tokenizer: The tokenizer.
        split: Columns Label (class index) and Text.
    """
    return Examples(tokenizer.encode_all(split["Text"]), np.array(split["Label"], dtype=np.int64))


def measure_tokens(
    name: str,
    tokenizer: Tokenizer,
    parts: Sequence[Examples],
    texts: Sequence[Sequence[str]],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Return how many tokens a tokenizer makes of a character, and whether it fits the texts.

    Args:
        name: The model's name, for the warning.
        tokenizer: The tokenizer.
        parts: Splits as tokens, of which every class has at least one text.
        texts: The same as texts.
        classes: Names of the classes.

    Returns:
        The content of reports/base/tokens.json: `tokens_per_character` of all texts, the same of
        each class under `classes`, and `warning`, a sentence or None.
    """
    labels = np.concatenate([part.labels for part in parts])
    counted = (
        np.concatenate([part.lengths for part in parts]),
        np.array([len(text) for part in texts for text in part]),
        np.array([(ids == tokenizer.unknown).sum() for part in parts for ids in part.tokens]),
    )
    tokens, characters, unknown = (sum_by_class(labels, n, len(classes)) for n in counted)
    shares, unread = (
        dict(zip(classes, (part / whole).tolist(), strict=True))
        for part, whole in ((tokens, characters), (unknown, tokens))
    )
    return {
        "tokens_per_character": float(counted[0].sum() / counted[1].sum()),
        "classes": shares,
        "warning": _warn(name, shares, unread),
    }


def _warn(name: str, shares: Mapping[str, float], unread: Mapping[str, float]) -> str | None:
    """Return what does not fit, by the tokens a character and the unknown share of each class."""
    if places := _above(FRAGMENTED, shares):
        made = f"makes {max(shares.values()):.1f} tokens of a character in {places}"
        why = "it knows this script as single bytes"
    elif places := _above(UNKNOWN, unread):
        made = f"does not know {max(unread.values()):.0%} of the tokens in {places}"
        why = "the model reads all of them as one"
    else:
        return None
    return (
        f"The tokenizer of {name} {made}: {why}. A base that was trained on the language, or on "
        f"many as {MULTILINGUAL} was, fits better (model.name)."
    )


def _above(limit: float, shares: Mapping[str, float]) -> str:
    """Return the class that is furthest above a limit and how many others are, or nothing."""
    if not (found := [name for name, share in shares.items() if share > limit]):
        return ""
    others = len(found) - 1
    beside = f" and {others} other class{'es' * (others > 1)}" * bool(others)
    return max(found, key=lambda name: shares[name]) + beside


def write_examples(path: Path, *folds: Examples) -> None:
    """Write examples to `path` atomically as safetensors; equal examples give equal bytes.

    Args:
        path: The file.
        folds: Those of each fold; of one alone, it is no fold.
    """
    tokens = [ids for examples in folds for ids in examples.tokens]
    lengths = np.concatenate([examples.lengths for examples in folds])
    content = {
        "ids": np.concatenate(tokens),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]),
        "labels": np.concatenate([examples.labels for examples in folds]),
    }
    types = TYPES if content["labels"].ndim == 1 else OF_SEVERAL
    content = {name: content[name].astype(types[name]) for name in types}
    if len(folds) > 1:
        sizes = [len(examples) for examples in folds]
        content["folds"] = np.repeat(np.arange(1, len(folds) + 1, dtype=FOLDS), sizes)
    files.write_bytes(path, save(content))


def read_examples(path: Path, fold: int | None = None) -> Examples:
    """Return the examples that `write_examples` wrote to `path`.

    Args:
        path: The file.
        fold: The fold whose examples are wanted; None: there are no folds.

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
    types = {name: array.dtype for name, array in arrays.items()}
    if types not in ((TYPES, OF_SEVERAL) if fold is None else (TYPES | {"folds": FOLDS},)):
        raise _damaged(path, f"it holds {', '.join(f'{n} ({t})' for n, t in types.items())}")
    ids, offsets, labels = (arrays[name] for name in TYPES)
    several = types == OF_SEVERAL
    if shapes := [n for n, a in arrays.items() if a.ndim != 1 + (several and n == "labels")]:
        raise _damaged(path, f"{', '.join(shapes)}: not one row of numbers")
    if len(offsets) != len(labels) + 1:
        raise _damaged(path, f"it holds {len(offsets) - 1} texts and {len(labels)} labels")
    if offsets[0] != 0 or offsets[-1] != len(ids) or (offsets[1:] <= offsets[:-1]).any():
        raise _damaged(path, f"its offsets do not divide its {len(ids)} tokens into texts")
    # Copies: what is made of a file's bytes cannot be written to, of which torch warns.
    examples = Examples(np.split(ids.astype(np.int64), offsets[1:-1]), labels.astype(np.int64))
    return examples if fold is None else examples.take(np.flatnonzero(arrays["folds"] == fold))


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
    elif examples.labels.shape != labels.shape:
        actual = f"labels of shape {examples.labels.shape}, not {labels.shape}"
    elif (different := ~are_right(examples.labels, labels)).any():
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
