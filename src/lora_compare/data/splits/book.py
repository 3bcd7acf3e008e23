"""The split of the book's notebook, row for row."""

import io

import numpy as np
import pandas as pd

from lora_compare.errors import DataError
from lora_compare.params import SplitParams
from lora_compare.project.corpus import count_classes


def as_the_book_reads(corpus: pd.DataFrame) -> pd.DataFrame:
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


def split_as_the_book(pool: pd.DataFrame, params: SplitParams) -> dict[str, pd.DataFrame]:
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
    assert params.train is not None
    assert params.validation is not None
    train_end = int(len(shuffled) * params.train)
    validation_end = train_end + int(len(shuffled) * params.validation)
    return {
        "train": shuffled.iloc[:train_end],
        "validation": shuffled.iloc[train_end:validation_end],
        "test": shuffled.iloc[validation_end:],
        "unused": unused,
    }
