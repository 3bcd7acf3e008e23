"""What provenance.json says of a model: all that it was made from, and nothing of the moment."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_compare.errors import IntegrityError
from lora_compare.params import load_params
from lora_compare.project.checksums import seal
from lora_compare.project.files import sha256
from lora_compare.project.lineage import dvc_md5
from lora_compare.project.paths import Paths
from lora_compare.project.provenance import provenance
from tracked_project import write_project


def of_lora(root: Path, method: str = "lora") -> dict[str, Any]:
    paths = Paths(root)
    params = load_params(paths.params)
    inputs = {"split": [paths.split("train")], "base_model": [paths.base]}
    machine = {"device": "cpu", "cuda": None, "cpu_capability": "AVX2", "threads": 3}
    return provenance(paths, params, "finetune", inputs, machine, method)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "project")


def make(root: Path) -> Path:
    root.mkdir()
    paths, _ = write_project(root)
    seal(paths.splits, paths.base)
    return root


def test_it_names_stage_command_inputs_and_code_by_their_checksums(root: Path) -> None:
    content = of_lora(root)
    assert content["stage"] == "finetune@lora"
    assert content["command"] == "python stages/finetune.py lora"
    assert content["inputs"] == {
        "data/splits/train.csv": sha256(root / "data/splits/train.csv"),
        "models/base": sha256(root / "models/base/SHA256SUMS"),
    }
    assert content["code"]["stages/finetune.py"] == dvc_md5(root / "stages/finetune.py")
    assert "src/lora_compare/training" in content["code"]
    assert "src/lora_compare/report" not in content["code"]
    assert content["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert content["device"] == "cpu"
    assert content["threads"] == 3
    assert content["platform"]["cpu_capability"] == "AVX2"
    assert "cuda" not in content["versions"]


def test_it_says_nothing_of_the_place_or_the_moment(root: Path, tmp_path: Path) -> None:
    assert of_lora(make(tmp_path / "elsewhere")) == of_lora(root)
    assert str(tmp_path) not in json.dumps(of_lora(root))


@pytest.mark.parametrize(
    ("file", "old", "new", "differ"),
    [
        ("params.yaml", "r: 16", "r: 8", {"params"}),
        ("params.yaml", "5.0e-5", "6.0e-5", set()),  # the other method's
        ("params.yaml", "a comparison", "another one", set()),
        ("stages/finetune.py", "finetune", "another", {"code"}),
        ("stages/evaluate.py", "evaluate", "another", set()),
        ("data/splits/train.csv", "train", "other", {"inputs"}),
        ("data/splits/test.csv", "test", "other", set()),
    ],
)
def test_it_changes_with_what_the_model_is_made_from(
    root: Path, file: str, old: str, new: str, differ: set[str]
) -> None:
    before = of_lora(root)
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))
    seal(root / "data/splits")
    after = of_lora(root)
    assert {key for key in before if before[key] != after[key]} == differ


def test_an_input_without_a_checksum_is_refused(root: Path) -> None:
    (root / "data/splits/SHA256SUMS").unlink()
    with pytest.raises(IntegrityError, match=r"no checksum of train\.csv"):
        of_lora(root)
