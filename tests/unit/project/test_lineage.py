"""Checksums and freshness as DVC itself sees them, and the commit as git does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lora_compare.params import load_params, read_yaml
from lora_compare.project.lineage import Pipeline, git_tags
from lora_compare.project.paths import Paths
from tracked_project import PARAMS

DVC = """
stages:
  split:
    cmd: mkdir -p data/sub && echo 1 > data/x && echo 2 > data/sub/y && echo 3 > "data/a.b ü"
    deps: [stages/stage.py]
    params: [split, training.epochs]
    outs: [data]
  finetune:
    foreach: ${methods}
    do:
      cmd: echo ${item.learning_rate} > ${key}.txt && echo 1 > ${key}.json
      deps: [data, stages/stage.py]
      params: ["methods.${key}"]
      outs: ["${key}.txt"]
      metrics: [{"${key}.json": {cache: false}}]
"""


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that DVC has run."""
    root = tmp_path_factory.mktemp("dvc")
    (root / "params.yaml").write_text(PARAMS)
    (root / "dvc.yaml").write_text(DVC)
    (root / "stages").mkdir()
    (root / "stages" / "stage.py").write_text("# nothing\n")
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    for arguments in (["init", "--no-scm", "-q"], ["repro"]):
        command = [sys.executable, "-m", "dvc", *arguments]
        subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)
    return root


def _pipeline(root: Path) -> Pipeline:
    return Pipeline(Paths(root), load_params(root / "params.yaml"))


def test_checksums_are_those_that_dvc_writes(reproduced: Path) -> None:
    locked = read_yaml(reproduced / "dvc.lock")["stages"]
    pipeline = _pipeline(reproduced)
    for stage, method in (("split", None), ("finetune", "full"), ("finetune", "lora")):
        entry = locked[f"{stage}@{method}" if method else stage]
        lineage = pipeline.lineage(stage, method)
        assert lineage.deps == {file["path"]: file["md5"] for file in entry["deps"]}
        assert lineage.outs == {file["path"]: file["md5"] for file in entry["outs"]}
        assert set(lineage.settings) == set(entry["params"]["params.yaml"])


def test_a_stage_is_current_until_an_input_an_output_or_a_setting_changes(
    reproduced: Path,
) -> None:
    def current() -> list[bool]:
        pipeline = _pipeline(reproduced)
        return [
            pipeline.is_current("split"),
            pipeline.is_current("finetune", "full"),
            pipeline.is_current("finetune", "lora"),
        ]

    assert current() == [True, True, True]
    _edit(reproduced / "params.yaml", "5.0e-5", "6.0e-5")
    assert current() == [True, False, True]
    _edit(reproduced / "params.yaml", "6.0e-5", "5.0e-5")
    _edit(reproduced / "data" / "x", "1", "2")
    assert current() == [False, False, False]
    _edit(reproduced / "data" / "x", "2", "1")
    _edit(reproduced / "stages" / "stage.py", "nothing", "something")
    assert current() == [False, False, False]
    _edit(reproduced / "stages" / "stage.py", "something", "nothing")
    assert current() == [True, True, True]


def test_a_missing_file_can_be_believed_but_no_other_one(reproduced: Path, tmp_path: Path) -> None:
    clone = shutil.copytree(reproduced, tmp_path / "clone")
    shutil.rmtree(clone / "data")
    pipeline = _pipeline(clone)
    assert not pipeline.is_current("split")
    assert pipeline.is_current("split", without_files=True)
    (clone / "data").mkdir()
    assert not _pipeline(clone).is_current("split", without_files=True)


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    # DVC's files may be links into its cache: a new file, not a changed one.
    path.unlink()
    path.write_text(text.replace(old, new))


def test_sources_are_the_code_that_stages_depend_on(reproduced: Path) -> None:
    assert list(_pipeline(reproduced).sources()) == ["stages/stage.py"]


def test_git_tags_name_commit_and_branch_and_see_edits_of_inputs_only(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        command = ["git", *identity, *arguments]
        result = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        return result.stdout.strip()

    assert git_tags(tmp_path) == {}
    git("init", "--initial-branch=trunk")
    assert git_tags(tmp_path) == {}
    for name in ("dvc.lock", "params.yaml", "metrics/lora.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "--no-gpg-sign", "-m", "first")
    (tmp_path / "dvc.lock").write_text("2")
    (tmp_path / "metrics" / "lora.json").write_text("2")
    assert git_tags(tmp_path) == {
        "mlflow.source.git.commit": git("rev-parse", "HEAD"),
        "mlflow.source.git.branch": "trunk",
        "git.dirty": "false",
    }
    (tmp_path / "params.yaml").write_text("2")
    assert git_tags(tmp_path)["git.dirty"] == "true"


def test_settings_that_dvc_looks_for_and_params_leave_out_have_their_defaults(
    tmp_path: Path,
) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS, encoding="utf-8")
    stages = "{one: {params: [data.prior, training.class_weights, data]}, "
    each = "two: {foreach: {}, do: {params: ['methods.${key}', tuning, data.text_column]}}}"
    (tmp_path / "dvc.yaml").write_text(f"stages: {stages}{each}", encoding="utf-8")
    params = load_params(tmp_path / "params.yaml")
    assert Pipeline(Paths(tmp_path), params).defaults() == {
        "data.prior": None,
        "training.class_weights": "none",
        "tuning": params.tuning.model_dump(mode="json"),
    }
