"""Which of a method's trainings is used, and what is said of one that there is not."""

from pathlib import Path

import pytest

from lora_compare.errors import MissingArtifactError
from lora_compare.project.paths import Paths
from lora_compare.project.seeds import base_of, chosen, read_seeds, save_seeds


def test_of_a_methods_seeds_the_one_of_the_lowest_validation_loss_is_used(tmp_path: Path) -> None:
    save_seeds(tmp_path, {3: 0.2, 1: 0.1, 2: 0.1})

    assert read_seeds(tmp_path).seeds == (3, 1, 2)
    assert read_seeds(tmp_path).validation_loss == {3: 0.2, 1: 0.1, 2: 0.1}
    assert chosen(tmp_path) == tmp_path / "seed-1"
    assert chosen(tmp_path, 3) == tmp_path / "seed-3"


def test_an_unknown_seed_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    save_seeds(tmp_path / "lora", {3: 0.2, 1: 0.1})

    with pytest.raises(MissingArtifactError, match="lora was not trained with the seed 7") as error:
        chosen(tmp_path / "lora", 7)
    assert error.value.expected == "one of its seeds: 3, 1"


def test_without_seeds_the_stage_to_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()

    with pytest.raises(MissingArtifactError, match=r"seeds\.json is missing") as error:
        chosen(tmp_path / "lora")
    assert error.value.next == "dvc repro finetune@lora"


def test_of_folds_the_first_is_used_and_each_finds_the_base_that_it_started_from(
    tmp_path: Path,
) -> None:
    paths = Paths(tmp_path)
    save_seeds(paths.model("lora"), {3: 0.3, 1: 0.1, 2: 0.2}, in_folds=True)
    seeds = read_seeds(paths.model("lora"))
    assert seeds.chosen == 3
    assert [seeds.fold(seed) for seed in (3, 1, 2)] == [1, 2, 3]
    assert base_of(paths, "lora", 2) == paths.base  # one that no messages have made
    for fold in (2, 3):
        (paths.base / f"fold-{fold}").mkdir(parents=True)
    assert base_of(paths, "lora") == paths.base
    assert base_of(paths, "lora", 2) == paths.base / "fold-3"


def test_seeds_of_one_split_are_of_no_fold(tmp_path: Path) -> None:
    save_seeds(tmp_path, {3: 0.2, 1: 0.1})
    assert read_seeds(tmp_path).fold(3) is None
    assert "in_folds" not in (tmp_path / "seeds.json").read_text()
