"""What a classifier is measured on: the splits of a fold, or the only ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_compare.evaluation.results import Truth
from lora_compare.models.batches import Examples
from lora_compare.models.tokens import check_fit, read_examples
from lora_compare.project.corpus import read_split
from lora_compare.project.paths import SPLITS, Paths, require


@dataclass(frozen=True)
class Fold:
    """The messages of a fold, or of all where there are no folds.

    Attributes:
        number: The fold's, from 1; None where there are none.
        splits: The columns of each split that was asked for.
        tokens: Every split as tokens.
    """

    number: int | None
    splits: Mapping[str, Mapping[str, Sequence[Any]]]
    tokens: Mapping[str, Examples]

    @property
    def texts(self) -> dict[str, Sequence[str]]:
        """The messages of each split that was asked for."""
        return {name: split["Text"] for name, split in self.splits.items()}

    @property
    def labels(self) -> Truth:
        """The right classes' indices of each split."""
        return {name: examples.labels for name, examples in self.tokens.items()}


def read_fold(paths: Paths, number: int | None, texts: Sequence[str] = SPLITS) -> Fold:
    """Return the messages of a fold.

    Args:
        paths: The project.
        number: The fold's; None where there are none.
        texts: The splits that are wanted as texts, too.

    Raises:
        MissingArtifactError: The stage split or base_model has not run.
        IntegrityError: A file has changed since.
        DataError: The tokens are not those of the texts.
    """
    splits = {name: read_split(require(paths.split(name), "split"), number) for name in texts}
    tokens = {name: read_examples(paths.tokens(name), number) for name in SPLITS}
    for name in texts:
        check_fit(paths.tokens(name), tokens[name], splits[name])
    return Fold(number, splits, tokens)
