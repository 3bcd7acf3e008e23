"""A model of transformers through the whole pipeline, as a user with a folder of one has it."""

import re
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from dvc_runs import dvc, ran
from lora_compare.project.files import read_json
from small_project import METHODS, STAGES, commit, copy_project
from tiny_models import make_model

MODEL = "inputs/models/tiny"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def name_model(folder: Path) -> None:
    """Let params.yaml name the folder, with text that is cut and what differs between models."""
    path = folder / "params.yaml"
    text = path.read_text(encoding="utf-8").replace("name: gpt2-nano", f"name: {MODEL}")
    text = re.sub(r"target_modules: .*", "target_modules: default", text)
    path.write_text(re.sub(r"max_length: null", "max_length: 12", text), encoding="utf-8")


@pytest.mark.parametrize("architecture", ["bert", "llama", "t5"])
def test_a_folder_of_a_model_is_compared_and_watched(architecture: str, tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "project", truncation="head_tail")
    name_model(folder)
    make_model(folder / MODEL, architecture)
    commit(folder, "another model")
    assert sorted(ran(dvc(folder, "repro"))) == sorted(STAGES)
    base = read_json(folder / "models/base/config.json")
    assert (base["kind"], base["model_type"], base["name"]) == ("hub", architecture, MODEL)
    assert base["source"]["files"].keys() >= {"config.json", "model.safetensors", "tokenizer.json"}
    for method in METHODS:
        metrics = read_json(folder / f"metrics/{method}.json")
        assert 0 < metrics["trainable_parameters"] <= metrics["total_parameters"]
        assert metrics["test"]["accuracy"] >= 0.5
    config = read_json(folder / "models/lora/seed-123/config.json")
    assert (config["max_length"], config["truncation"]) == (12, "head_tail")
    assert str(folder) not in (folder / "models/base/transformers/config.json").read_text()

    make_model(folder / MODEL, architecture, seed=1)
    assert re.search(
        r"base_model:\s+changed deps:\s+modified: +inputs/models", dvc(folder, "status")
    )
