"""A method trained with several seeds: side by side or not, one added, one imported."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lora_compare.project.files import read_json
from lora_compare.project.paths import Paths
from lora_compare.project.seeds import read_seeds
from lora_compare.tracking.tracker import Tracker
from lora_compare.training import trainings
from small_project import ROOT, environment, run, run_stages, write_settings

SEEDS = {"seeds": "[1, 2]", "lora_dropout": 0.1}


@pytest.fixture(scope="module")
def seeds(trained_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose adapter was trained with two seeds, one after the other."""
    folder = tmp_path_factory.mktemp("seeds") / "project"
    shutil.copytree(trained_project, folder)
    shutil.rmtree(folder / "models" / "lora")
    write_settings(folder, **SEEDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_COMPARE_PROCESSES", "1")
        return run_stages(folder, "finetune@lora", "evaluate@lora")


@pytest.fixture
def project(seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    folder = shutil.copytree(seeds, tmp_path / "project")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    monkeypatch.setenv("LORA_COMPARE_PROCESSES", "1")
    return folder


def outputs(project: Path) -> dict[str, bytes]:
    """Return the bytes of all that the stages write of the method, but for times and memory."""
    names = ("models/lora", "reports/training/lora/history.csv", "reports/evaluation/lora")
    found = [p for name in names for p in [project / name, *(project / name).rglob("*")]]
    files = [*filter(Path.is_file, found), project / "metrics" / "lora.json"]
    return {str(p.relative_to(project)): p.read_bytes() for p in files}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of all trainings that are done in this process from now on."""
    done: list[int] = []
    original = trainings.train_one

    def counting(job: trainings.Job, tell: Callable[[Any], object]) -> None:
        done.append(job.training.seed)
        original(job, tell)

    monkeypatch.setattr(trainings, "train_one", counting)
    return done


def test_every_seed_leaves_its_model_its_history_and_its_answers(seeds: Path) -> None:
    paths = Paths(seeds)
    known = read_seeds(paths.model("lora"))
    assert known.seeds == (1, 2)
    assert known.chosen == min((1, 2), key=known.validation_loss.__getitem__)
    history = pd.read_csv(paths.history("lora"))
    assert history.columns[0] == "seed"
    assert history["seed"].tolist() == [1] * 4 + [2] * 4
    metrics = read_json(paths.metrics("lora"))
    assert metrics["seeds"] == [1, 2]
    for seed in known.seeds:
        rows = pd.read_csv(paths.predictions("lora", seed))
        accuracy = (rows["label"] == rows["predicted"]).mean()
        assert metrics["per_seed"][str(seed)]["test"]["accuracy"] == accuracy
        loss = metrics["per_seed"][str(seed)]["validation"]["log_loss"]
        assert known.validation_loss[seed] == pytest.approx(loss, rel=1e-4)
    weights = [paths.trained("lora", s) / "model.safetensors" for s in known.seeds]
    assert len({file.read_bytes() for file in weights}) == 2
    assert sum(map(sum, metrics["test"]["confusion_matrix"])) == 2 * metrics["test"]["n"]


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(
    seeds: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(project / ".checkpoints")
    shutil.rmtree(project / "models" / "lora")
    monkeypatch.setenv("LORA_COMPARE_PROCESSES", "2")
    result = run("finetune", "lora")
    assert result.exit_code == 0, result.output
    assert "finetune lora: 2 trainings, 2 at a time" in result.output
    assert read_json(Paths(project).cost("lora"))["side_by_side"] == 2
    assert run("evaluate", "lora").exit_code == 0
    assert outputs(project) == outputs(seeds)


def test_a_seed_that_is_added_is_trained_alone(
    seeds: Path, project: Path, trained: list[int]
) -> None:
    before = outputs(project)
    write_settings(project, **{**SEEDS, "seeds": "[3, 1, 2]"})
    assert run("finetune", "lora").exit_code == 0
    assert trained == [3]
    assert read_seeds(project / "models" / "lora").seeds == (3, 1, 2)
    for seed in (1, 2):
        name = f"models/lora/seed-{seed}/model.safetensors"
        assert (project / name).read_bytes() == before[name]
    write_settings(project, **SEEDS)
    assert run("finetune", "lora").exit_code == 0
    assert run("evaluate", "lora").exit_code == 0
    assert trained == [3]
    assert outputs(project) == before
    # What the last run has not named is not kept.
    left = sorted(p.name.split("-")[1] for p in (project / ".checkpoints/finetune@lora").iterdir())
    assert left == ["1", "2"]


def test_what_is_kept_is_used_only_if_it_is_whole_and_of_the_same_facts(
    project: Path, trained: list[int]
) -> None:
    (kept,) = (project / ".checkpoints" / "finetune@lora").glob("seed-1-*/model/model.safetensors")
    content = kept.read_bytes()
    kept.unlink()  # the model of the stage may be the same file
    kept.write_bytes(content[:-1] + b"!")
    result = run("finetune", "lora")
    assert result.exit_code == 0
    assert "finetune lora, seed 1 is trained again: model.safetensors is not what" in result.output
    assert trained == [1]
    write_settings(project, **SEEDS, lora_alpha=8)
    assert run("finetune", "lora").exit_code == 0
    assert trained == [1, 1, 2]


def test_all_rows_are_shown_with_their_seeds_also_of_what_was_trained_before(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict] = []
    monkeypatch.setattr(Tracker, "log", lambda self, row: shown.append(dict(row)))
    write_settings(project, **{**SEEDS, "seeds": "[1, 2, 3]"})
    assert run("finetune", "lora").exit_code == 0
    history = pd.read_csv(project / "reports/training/lora/history.csv")
    pd.testing.assert_frame_equal(pd.DataFrame(shown), history)


@pytest.mark.slow
def test_a_stage_that_trains_one_at_a_time_starts_no_process(project: Path) -> None:
    shutil.rmtree(project / ".checkpoints")
    code = (
        "import runpy, sys; sys.argv = ['stages/finetune.py', 'lora']\n"
        f"try: runpy.run_path({str(ROOT / 'stages' / 'finetune.py')!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'joblib' not in sys.modules"
    )
    variables = {"LORA_COMPARE_TRACKING": "off", "LORA_COMPARE_PROCESSES": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment(**variables), check=True)
