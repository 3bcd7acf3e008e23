"""What compare reads is what the stages of today's methods wrote, and nothing else."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from comparison_inputs import write_inputs
from lora_compare.comparison.evidence import foreign_files, load_evidence, remove_leftovers
from lora_compare.errors import DataError, IntegrityError, MissingArtifactError
from lora_compare.params import read_yaml
from lora_compare.project.checksums import seal
from lora_compare.project.files import read_json
from lora_compare.report.tables import MEAN, answers, curves

LOCK = """schema: '2.0'
stages:
  split:
    cmd: python stages/split.py
    outs:
    - path: metrics/split.json
  finetune@old:
    cmd: python stages/finetune.py old
    params:
      params.yaml:
        text: 'a line

          after an empty one'
    outs:
    - path: models/old
    - path: metrics/old_cost.json
  finetune@full:
    cmd: python stages/finetune.py full
    outs:
    - path: models/full
"""


@pytest.mark.parametrize("name", ["baseline", "split"])
@pytest.mark.parametrize("byte", [0, 1, 40, 100])
def test_a_changed_byte_of_a_metrics_file_is_named_with_the_way_out(
    name: str, byte: int, tmp_path: Path
) -> None:
    paths, params = write_inputs(tmp_path)
    load_evidence(paths, params)
    content = bytearray(paths.metrics(name).read_bytes())
    content[byte] ^= 1
    paths.metrics(name).write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{name}.json is not what the stage {name}") as error:
        load_evidence(paths, params)
    assert error.value.where == str(paths.metrics(name))
    assert error.value.next == "lora-compare repair\ndvc repro"


def test_damaged_json_is_a_mistake_that_names_the_file(tmp_path: Path) -> None:
    for content in (b"{", b"\xff", b"[" * 100_000):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.json is damaged") as error:
            read_json(tmp_path / "a.json")
        assert error.value.where == str(tmp_path / "a.json")
        assert error.value.next


def test_what_a_removed_method_left_goes_and_its_record_with_it(tmp_path: Path) -> None:
    paths, params = write_inputs(tmp_path)
    paths.lock.write_text(LOCK)
    left = [paths.model("old"), paths.evaluated("old"), paths.training("older")]
    for folder in (*left, paths.model("full")):
        folder.mkdir(parents=True)
    paths.cost("old").write_text("{}")
    assert remove_leftovers(paths, params) == sorted([*left, paths.cost("old")])
    assert not [path for path in (*left, paths.cost("old")) if path.exists()]
    assert paths.model("full").is_dir()
    assert paths.metrics("split").is_file()
    assert [*read_yaml(paths.lock)["stages"]] == ["split", "finetune@full"]
    assert remove_leftovers(paths, params) == []


def test_a_file_of_no_stage_among_the_inputs_of_compare_is_named_and_kept(tmp_path: Path) -> None:
    paths, params = write_inputs(tmp_path)
    assert foreign_files(paths, params) == []
    notes = paths.training() / "notes.txt"
    notes.write_text("mine")
    assert foreign_files(paths, params) == [notes]
    remove_leftovers(paths, params)
    assert notes.is_file()


SEEDS = (3, 1)
"""In an order that sorting would change."""


def test_every_seeds_answers_are_read_in_the_order_of_the_seeds(tmp_path: Path) -> None:
    paths, params = write_inputs(tmp_path, n=40, seeds=SEEDS)
    evidence = load_evidence(paths, params)
    for outcome in evidence.methods:
        assert outcome.seeds == SEEDS
        assert outcome.chances.shape == (2, 40, 2)
        for place, seed in enumerate(SEEDS):
            frame = pd.read_csv(paths.predictions(outcome.name, seed))
            right = (frame["label"] == frame["predicted"]).tolist()
            assert outcome.right[place].tolist() == right
            names = [outcome.classes[i] for i in outcome.predicted[place]]
            assert names == frame["predicted"].tolist()
        assert [outcome.classes[i] for i in outcome.labels] == evidence.labels
    assert [baseline.right.shape for baseline in evidence.baselines] == [(1, 40)] * 2


def test_a_missing_and_a_changed_file_of_one_seed_are_named(tmp_path: Path) -> None:
    paths, params = write_inputs(tmp_path, n=40, seeds=SEEDS)
    file = paths.predictions("lora", 1)
    content = file.read_bytes()
    file.write_bytes(content.replace(b",ham,ham,", b",ham,spam,", 1))
    with pytest.raises(IntegrityError, match=r"predictions-1\.csv is not what the stage evaluate"):
        load_evidence(paths, params)
    file.unlink()
    with pytest.raises(MissingArtifactError, match=r"predictions-1\.csv is missing") as error:
        load_evidence(paths, params)
    assert error.value.next == "dvc repro evaluate@lora"


def test_a_seed_that_answered_other_messages_is_named(tmp_path: Path) -> None:
    paths, params = write_inputs(tmp_path, n=40, seeds=SEEDS)
    file = paths.predictions("lora", 1)
    pd.read_csv(file).iloc[::-1].to_csv(file, index=False)
    seal(file.parent)
    with pytest.raises(DataError, match="full and lora with the seed 1 did not") as error:
        load_evidence(paths, params)
    assert error.value.where == str(file)


def test_a_mean_curve_has_the_steps_of_all_seeds_and_the_range_of_their_values(
    tmp_path: Path,
) -> None:
    paths, params = write_inputs(tmp_path, n=40, seeds=SEEDS)
    history = pd.read_csv(paths.history("lora"))
    # One training has ended early.
    cut = history[(history["seed"] == 3) | (history["step"] <= 300)]
    cut.to_csv(paths.history("lora"), index=False)
    seal(paths.training("lora"))
    mean = load_evidence(paths, params).methods[1].mean_history
    assert mean["step"].tolist() == list(range(0, 301, 50))
    losses = cut.pivot_table(index="step", columns="seed", values="train_loss").dropna()
    assert np.allclose(mean["train_loss"], losses.mean(axis=1))
    assert np.allclose(mean["train_loss_low"], losses.min(axis=1))
    assert np.allclose(mean["train_loss_high"], losses.max(axis=1))


def test_the_tables_for_dvc_name_the_seed_and_begin_with_the_mean(tmp_path: Path) -> None:
    evidence = load_evidence(*write_inputs(tmp_path, n=40, seeds=SEEDS))
    table = pd.DataFrame(curves(evidence))
    assert table["seed"].drop_duplicates().tolist() == [MEAN, 3, 1]
    own = table[(table["method"] == "lora") & (table["split"] == "validation")]
    by_seed = own[own["seed"] != MEAN].groupby("step")["accuracy"].mean()
    assert np.allclose(own[own["seed"] == MEAN]["accuracy"], by_seed)
    given = pd.DataFrame(answers(evidence))
    assert given.groupby(["method", "seed"]).size().to_dict() == {
        **{(name, seed): 40 for name in ("full", "lora") for seed in SEEDS},
        **{(name, ""): 40 for name in ("tfidf", "untuned")},
    }
