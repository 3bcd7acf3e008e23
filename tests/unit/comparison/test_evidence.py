"""What compare reads is what the stages of today's methods wrote, and nothing else."""

from pathlib import Path

import pytest

from comparison_inputs import write_inputs
from lora_compare.comparison.evidence import foreign_files, load_evidence, remove_leftovers
from lora_compare.errors import DataError, IntegrityError
from lora_compare.params import read_yaml
from lora_compare.project.files import read_json

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
