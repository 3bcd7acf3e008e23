"""Messages whose label may be wrong: a model that has not seen them is sure of another class."""

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from lora_compare.project.checksums import read_verified
from lora_compare.project.files import write_bytes

FOLDS = 5
"""Parts of the training split, each answered by a model of the others."""

INSTALL = 'pip install "lora-compare[noise]" (here: pip install -e ".[noise]")'

ONE_CLASS_ALONE = "Labels that may be wrong are looked for where each message has one class."
"""What is said where a message may have several labels."""

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Suspect:
    """A message whose label may be wrong.

    Attributes:
        split: The split in which it stands.
        text: The message.
        label: Its class.
        likely: The class of which the model is surest.
        chance: The model's probability of that class, in 0..1.
    """

    split: str
    text: str
    label: str
    likely: str
    chance: float


def out_of_sample(
    name: str,
    texts: Sequence[str],
    labels: npt.ArrayLike,
    seed: int,
    groups: Sequence[str] = (),
) -> npt.NDArray[np.float32] | None:
    """Return what models that have not seen them make of the messages of the training split.

    Args:
        name: The baseline, of `baselines.CANDIDATES`.
        texts: The messages.
        labels: Their class indices, each class from 0 on.
        seed: Of the dealing into FOLDS parts, each class in its proportion.
        groups: Name of each message's group, empty of one that is alone: no group is in two parts.
            Without any, messages are dealt one by one.

    Returns:
        Probabilities, shape (n, n_classes); None where a class has one message only, or a part
        would leave no message of a class to learn from.
    """
    from lora_compare.evaluation.baselines import candidates, fit

    truth, rows = np.asarray(labels), np.asarray(texts, dtype=object)
    chances = np.zeros((len(rows), int(truth.max()) + 1), dtype=np.float32)
    parts = _deal(truth, groups, seed)
    # All of a class may be one group.
    if not parts or any(len(np.unique(truth[known])) < chances.shape[1] for known, _ in parts):
        return None
    for known, held in parts:
        learnt = rows[known].tolist()
        made = candidates(learnt)
        model = fit(made.get(name, made["characters"]), learnt, truth[known])
        chances[held] = model.predict_proba(rows[held])
    return chances


def _deal(truth: IntArray, groups: Sequence[str], seed: int) -> list[tuple[IntArray, IntArray]]:
    """Return the rows outside and inside of each part; none where a class is too small."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    names = [group or place for place, group in enumerate(groups)] or range(len(truth))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    together = np.array([numbers[name] for name in names])
    of_class = [len(np.unique(together[truth == c])) for c in range(int(truth.max()) + 1)]
    if (folds := min(FOLDS, *of_class)) < 2:
        return []
    if not groups:
        return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(truth, truth))
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return list(dealer.split(truth, truth, together))


def write_out_of_sample(path: Path, chances: npt.NDArray[np.float32] | None) -> None:
    """Write probabilities to `path` atomically; where there are none, an array of shape (0, 0)."""
    content = np.zeros((0, 0), dtype=np.float32) if chances is None else chances
    write_bytes(path, save({"probabilities": content}))


def read_out_of_sample(path: Path) -> npt.NDArray[np.float32]:
    """Return what `write_out_of_sample` wrote to `path`.

    Raises:
        MissingArtifactError: The stage baseline has not run.
        IntegrityError: The file has changed since.
    """
    chances: npt.NDArray[np.float32] = load(read_verified(path, "baseline"))["probabilities"]
    return chances


def is_installed() -> bool:
    """Return whether cleanlab is."""
    return importlib.util.find_spec("cleanlab") is not None


def find_suspects(
    split: str,
    texts: Sequence[str],
    labels: Sequence[int],
    chances: FloatArray,
    classes: Sequence[str],
) -> list[Suspect]:
    """Return the messages of a split whose label may be wrong, the least likely labels first.

    They are those that confident learning would prune by the noise of each class: where a model
    is surer of another class than it is on average of messages of that class. Needs cleanlab.

    Args:
        split: The name of the split.
        texts: Its messages.
        labels: Their class indices.
        chances: Probabilities by a model that has not seen them, shape (n, n_classes).
        classes: Names of the classes.

    Source: Northcutt, Jiang and Chuang 2021, doi 10.1613/jair.1.12125, section 3.3.
    Checked by tests/unit/evaluation/test_noise.py, which swaps labels and finds them.
    """
    from cleanlab.filter import find_label_issues

    if not len(chances):
        return []
    given: IntArray = np.asarray(labels)
    with warnings.catch_warnings():
        # Of a class with a message or two nothing can be said, and nothing is.
        warnings.filterwarnings("ignore", "May not flag all label issues", UserWarning)
        ranked = find_label_issues(
            *(given, np.asarray(chances, np.float64)),
            return_indices_ranked_by="self_confidence",
            n_jobs=1,
        )
    likely = chances.argmax(axis=1)
    return [
        Suspect(
            split, texts[i], classes[given[i]], classes[likely[i]], float(chances[i, likely[i]])
        )
        for i in map(int, ranked)
        if likely[i] != given[i]
    ]
