"""From the corpus to train, validation, test and unused messages."""

import io
from typing import Any

import numpy as np
import pandas as pd

from lora_compare.data.classes import require_in_every_split, stratified_sizes
from lora_compare.data.twins import find_twins
from lora_compare.errors import DataError
from lora_compare.params import SplitParams
from lora_compare.project.corpus import count_classes, make_split
from lora_compare.project.paths import SPLITS

Frames = dict[str, pd.DataFrame]
"""The splits by name: train, validation, test and unused."""


def split(corpus: pd.DataFrame, params: SplitParams) -> tuple[Frames, dict[str, Any]]:
    """Return the splits of a corpus, and their sizes and leaks for metrics/split.json.

    The result depends on the corpus and the parameters alone: the random choices come from
    NumPy's RandomState, whose streams are frozen, so every machine draws the same split.

    Returns:
        The frames (columns Label, an index into the class names in order, and Text) and the
        metrics. `unused` holds what balancing left out, but no text that stands word for
        word in validation or test: models may be pre-trained on it.

    Raises:
        DataError: A class is too small to be in every split, or, for the book's mode, the
            messages do not fit on lines.
    """
    if params.mode == "appendix_e":
        pool = _as_the_book_reads(corpus)
        parts = _split_as_the_book(pool, params)
        removed = 0
    else:
        pool = deduplicate(corpus) if params.deduplicate == "exact" else corpus
        parts = _split_stratified(pool, params)
        removed = len(corpus) - len(pool)
    classes = list(count_classes(corpus))
    sizes = {name: count_classes(parts[name]) for name in SPLITS}
    available = dict.fromkeys(classes, 0) | count_classes(pool)
    require_in_every_split(sizes, available, params)
    evaluated = set(parts["validation"]["text"]) | set(parts["test"]["text"])
    unused = parts["unused"]
    parts["unused"] = unused[~unused["text"].isin(evaluated)]
    frames = {name: _encode(part, classes) for name, part in parts.items()}
    twins = find_twins(list(parts["test"]["text"]), list(parts["train"]["text"]))
    metrics = {
        "rows": len(corpus),
        "classes": count_classes(corpus),
        "duplicates_removed": removed,
        "conflicting_texts": count_conflicting(corpus),
        "splits": {name: _describe(part, classes) for name, part in parts.items()},
        "unused_rows_dropped_as_twins": len(unused) - len(parts["unused"]),
        "test_rows_with_twin_in_train": {kind: int(mask.sum()) for kind, mask in twins.items()},
    }
    return frames, metrics


def deduplicate(corpus: pd.DataFrame) -> pd.DataFrame:
    """Return the corpus with the first message of each text only.

    A text that stands under two labels keeps the label it has first: dropping it would favour
    the models on exactly the messages about which people disagree.
    """
    return corpus.drop_duplicates("text", keep="first", ignore_index=True)


def count_conflicting(corpus: pd.DataFrame) -> int:
    """Return the number of distinct texts that stand under more than one label."""
    return int((corpus.groupby("text")["label"].nunique() > 1).sum())


def _split_stratified(pool: pd.DataFrame, params: SplitParams) -> Frames:
    """Return the splits, each with every class in proportion to its share of all messages.

    One permutation decides everything: the first messages of a class go to train, the next
    to validation and to test, the last, where classes are balanced, are unused. The splits
    keep the permutation's order, `unused` the corpus's.
    """
    order = np.random.RandomState(params.seed).permutation(len(pool))
    labels = pool["label"].to_numpy()[order]
    classes = count_classes(pool)
    sizes = stratified_sizes(classes, params)
    chosen: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in (*SPLITS, "unused")}
    for name in classes:
        positions = np.flatnonzero(labels == name)
        bounds = np.cumsum([sizes[part][name] for part in SPLITS])
        for part, piece in zip(chosen, np.split(positions, bounds), strict=True):
            chosen[part].append(piece)
    rows = {part: order[np.sort(np.concatenate(pieces))] for part, pieces in chosen.items()}
    rows["unused"] = np.sort(rows["unused"])
    return {part: pool.iloc[index] for part, index in rows.items()}


def _as_the_book_reads(corpus: pd.DataFrame) -> pd.DataFrame:
    """Return the corpus as pandas reads `label<TAB>text` lines when quotes are quotes.

    The book reads the file so. A message that begins with a quote swallows the following
    lines up to the next quote: 5,572 rows of the 5,574 of the SMS Spam Collection.
    """
    unfit = corpus["text"].str.contains(r"[\t\r\n]") | corpus["label"].str.contains(r"[\t\r\n]")
    if unfit.any():
        raise DataError(
            f"{int(unfit.sum())} messages hold a tab or a line break.",
            where=f"data/raw/messages.tsv:{int(np.flatnonzero(unfit)[0]) + 2} is the first",
            expected="messages on one line each: split.mode appendix_e reads lines",
            next="set split.mode: stratified in params.yaml",
        )
    lines = corpus["label"] + "\t" + corpus["text"] + "\n"
    try:
        frame = pd.read_csv(
            io.StringIO("".join(lines)),
            sep="\t",
            header=None,
            names=["label", "text"],
            dtype="str",
            keep_default_na=False,
        )
    except pd.errors.ParserError as error:
        raise _unreadable(str(error)) from None
    known = set(corpus["label"])
    if frame["text"].isna().any() or not set(frame["label"]) <= known:
        raise _unreadable("a quote swallows a label")
    return frame


def _unreadable(actual: str) -> DataError:
    return DataError(
        "The book's split reads quotes as quotes, and cannot read this corpus so.",
        where="data/raw/messages.tsv",
        expected="an even number of quotes at the beginnings of messages, for mode appendix_e",
        actual=actual,
        next="set split.mode: stratified in params.yaml",
    )


def _split_as_the_book(pool: pd.DataFrame, params: SplitParams) -> Frames:
    """Return the split of the book's notebook: sample to the smallest class, shuffle, cut.

    With the classes ham and spam, the fractions 0.7 and 0.1 and the seed 123 the files of the
    SMS Spam Collection are the book's, byte by byte.

    Source: Raschka 2024, Build a Large Language Model (From Scratch), appendix E.2.
    Checked by tests/unit/data/test_golden_split.py.
    """
    classes = count_classes(pool)
    smallest = min(classes.values())
    members = {name: pool[pool["label"] == name] for name in classes}
    sampled = [
        rows.sample(smallest, random_state=params.seed) if len(rows) > smallest else rows
        for rows in members.values()
    ]
    balanced = pd.concat(sampled)
    unused = pool.drop(balanced.index)
    shuffled = balanced.sample(frac=1, random_state=params.seed)
    train_end = int(len(shuffled) * params.train)
    validation_end = train_end + int(len(shuffled) * params.validation)
    return {
        "train": shuffled.iloc[:train_end],
        "validation": shuffled.iloc[train_end:validation_end],
        "test": shuffled.iloc[validation_end:],
        "unused": unused,
    }


def _encode(part: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    index = {name: number for number, name in enumerate(classes)}
    return make_split([index[label] for label in part["label"]], list(part["text"]))


def _describe(part: pd.DataFrame, classes: list[str]) -> dict[str, Any]:
    counts = count_classes(part)
    return {"n": len(part), "classes": {name: counts.get(name, 0) for name in classes}}
