"""Swapped labels are found, by probabilities of models that had not seen the messages."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

from lora_compare.data import bundled
from lora_compare.evaluation import noise
from lora_compare.evaluation.baselines import word_model
from lora_compare.project.checksums import seal

SWAPPED = 20


@pytest.fixture(scope="module")
def noisy() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return messages, their labels, some of them swapped, and the rows of these."""
    rows = bundled.messages()
    chosen = [row for row in rows if row[0] == "spam"][:300]
    chosen += [row for row in rows if row[0] == "ham"][:300]
    labels = np.array([label == "spam" for label, _ in chosen], dtype=np.int64)
    swapped = np.random.RandomState(1).choice(len(labels), SWAPPED, replace=False)
    labels[swapped] = 1 - labels[swapped]
    return [text for _, text in chosen], labels, swapped


def test_probabilities_are_those_of_cross_validation(
    noisy: tuple[list[str], np.ndarray, np.ndarray],
) -> None:
    texts, labels, _ = noisy
    folds = StratifiedKFold(noise.FOLDS, shuffle=True, random_state=7)
    expected = cross_val_predict(word_model(), texts, labels, cv=folds, method="predict_proba")
    found = noise.out_of_sample("words", texts, labels.tolist(), seed=7)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_swapped_labels_are_found(noisy: tuple[list[str], np.ndarray, np.ndarray]) -> None:
    pytest.importorskip("cleanlab")
    texts, labels, swapped = noisy
    chances = noise.out_of_sample("characters", texts, labels.tolist(), seed=7)
    assert chances is not None
    found = noise.find_suspects("train", texts, labels.tolist(), chances, ["ham", "spam"])
    right = {texts[row] for row in swapped}
    # One of thirty is swapped: most of those, and hardly any other.
    assert len(right & {suspect.text for suspect in found}) > SWAPPED / 2
    assert len(found) < 1.5 * SWAPPED
    assert all(suspect.label != suspect.likely for suspect in found)
    own = [1 - suspect.chance for suspect in found]  # of two classes, the chance of the label
    assert own == sorted(own)


def test_a_class_of_one_message_has_no_part_without_it(tmp_path: Path) -> None:
    assert noise.out_of_sample("words", ["one word", "two words"] * 3, [0] * 5 + [1], 1) is None
    noise.write_out_of_sample(tmp_path / "chances.safetensors", None)
    seal(tmp_path)
    chances = noise.read_out_of_sample(tmp_path / "chances.safetensors")
    assert noise.find_suspects("train", [], [], chances, ["ham", "spam"]) == []


def test_no_group_is_learnt_from_and_answered(
    noisy: tuple[list[str], np.ndarray, np.ndarray],
) -> None:
    texts, labels, _ = noisy
    groups = [f"g{i // 3}" if i % 10 else "" for i in range(len(texts))]
    names = [group or str(i) for i, group in enumerate(groups)]
    folds = StratifiedGroupKFold(noise.FOLDS, shuffle=True, random_state=7)
    expected = cross_val_predict(
        word_model(), texts, labels, groups=_numbers(names), cv=folds, method="predict_proba"
    )
    found = noise.out_of_sample("words", texts, labels.tolist(), 7, groups)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def _numbers(names: list[str]) -> list[int]:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names]


def test_a_class_of_one_group_has_no_part_without_it() -> None:
    texts = [f"some words {i}" for i in range(20)]
    groups = ["one"] * 10 + [f"g{i}" for i in range(10)]
    assert noise.out_of_sample("words", texts, [1] * 10 + [0] * 10, 1, groups) is None
