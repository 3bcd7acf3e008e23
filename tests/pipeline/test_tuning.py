"""The stage tune: its trials are trained once, and finetune takes its choice."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dvc_runs import dvc, ran
from lora_compare.training import trainings
from reproducible import read_lock
from small_project import commit, copy_project, make_project, run, run_stages

pytestmark = pytest.mark.slow

RATE = "learning_rate: 2.0e-3"
BUDGET = "tuning: {trials: 4, seeds: [101, 102]"


def with_search(text: str, search: str, budget: str = "trials: 2, seeds: [101]") -> str:
    """Return parameters in which lora has a search."""
    for old, new in ((RATE, f"{RATE}\n    search: {search}"), (BUDGET, f"tuning: {{{budget}")):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def set_search(folder: Path, search: str, budget: str = "trials: 2, seeds: [101]") -> Path:
    params = folder / "params.yaml"
    params.write_text(with_search(params.read_text(), search, budget))
    return folder


RATES = "{learning_rate: {low: 1.0e-3, high: 4.0e-3, log: true}}"
TWO_SEEDS = "trials: 2, seeds: [101, 102]"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project before any training."""
    return make_project(tmp_path_factory.mktemp("base"), "download", "split", "base_model")


@pytest.fixture
def project(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, whose stages train in their own process, which is faster for a few trainings."""
    monkeypatch.setenv("LORA_COMPARE_PROCESSES", "1")
    return shutil.copytree(base, tmp_path / "project")


def tuned(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "reports" / "tuning" / "lora").iterdir()}


@pytest.fixture(scope="module")
def done(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after a search with two seeds, two trainings at a time."""
    folder = shutil.copytree(base, tmp_path_factory.mktemp("tuned") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_COMPARE_PROCESSES", "2")
        return run_stages(set_search(folder, RATES, TWO_SEEDS), "tune@lora")


def counting(monkeypatch: pytest.MonkeyPatch, limit: int = 1000) -> list[str]:
    """Note the name of every training, and end the stage where there are more than `limit`."""
    monkeypatch.setenv("LORA_COMPARE_PROCESSES", "1")
    original, names = trainings.train_one, []

    def train_one(job: Any, tell: Callable[..., None]) -> None:
        if len(names) == limit:
            raise RuntimeError("cut off")
        names.append(job.training.name)
        original(job, tell)

    monkeypatch.setattr(trainings, "train_one", train_one)
    return names


def test_every_trial_is_written_down_and_one_is_chosen(done: Path) -> None:
    folder = done / "reports" / "tuning" / "lora"
    choice = json.loads((folder / "choice.json").read_text())
    trials, history = (pd.read_csv(folder / f"{name}.csv") for name in ("trials", "history"))
    assert [*trials.columns] == [
        *("trial", "learning_rate", "seed", "validation_loss", "validation_accuracy", "status"),
    ]
    assert choice["searched"] is True
    assert choice["trials"] == 2 + choice["extended"] == trials["trial"].nunique()
    assert trials["seed"].tolist() == [101, 102] * choice["trials"]
    assert trials["learning_rate"].tolist()[:4] == [0.001, 0.001, 0.004, 0.004]
    assert {*trials["status"]} == {"finished"}
    means = trials.groupby("learning_rate")["validation_loss"].mean()
    assert choice["settings"]["learning_rate"] in [*means.index]
    # Each trial's history is that of the rate which stands beside it.
    last = history.groupby(["trial", "seed"]).agg({"learning_rate": "max", "step": "max"})
    assert last["step"].nunique() == 1
    peaks = trials.set_index(["trial", "seed"])["learning_rate"]
    assert (last["learning_rate"] <= peaks).all()
    assert (last["learning_rate"] > 0.7 * peaks).all()


def test_a_search_repeats_its_bytes_and_trains_nothing_twice(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(done, tmp_path / "project")
    before, names = tuned(folder), counting(monkeypatch)
    run_stages(folder, "tune@lora")
    assert names == []
    assert tuned(folder) == before
    # A third seed is trained alone.
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("[101, 102]", "[101, 102, 103]"))
    run_stages(folder, "tune@lora")
    assert len(names) >= 2
    assert all(name.endswith("seed 103") for name in names)


def test_a_search_goes_on_where_it_was_cut_off_to_the_bytes_of_two_processes(
    project: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_search(project, RATES, TWO_SEEDS)
    monkeypatch.chdir(project)
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    with monkeypatch.context() as patch:
        first = counting(patch, limit=3)
        assert run("tune", "lora").exit_code != 0
    assert not (project / "reports" / "tuning").exists()
    second = counting(monkeypatch)
    assert run("tune", "lora").exit_code == 0
    assert not {*first} & {*second}
    assert second[0] == "trial 2, seed 102"
    assert tuned(project) == tuned(done)


def test_without_a_search_there_is_nothing_to_train(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = counting(monkeypatch)
    set_search(project, RATES)
    params = project / "params.yaml"
    searched = params.read_text()
    run_stages(project, "tune@lora")
    assert names
    params.write_text(searched.replace(f"search: {RATES}", "search: null"))
    names.clear()
    run_stages(project, "tune@lora")
    assert names == []
    assert {*tuned(project)} == {"choice.json", "SHA256SUMS"}
    choice = json.loads(tuned(project)["choice.json"])
    assert (choice["searched"], choice["settings"]) == (False, {})


def test_a_trial_that_diverges_is_noted_and_not_chosen(project: Path) -> None:
    set_search(project, "{learning_rate: {choices: [1.0e+30, 2.0e-3]}}")
    run_stages(project, "tune@lora")
    trials = pd.read_csv(project / "reports" / "tuning" / "lora" / "trials.csv")
    assert trials["status"].tolist() == ["diverged", "finished"]
    assert trials["validation_loss"].isna().tolist() == [True, False]
    choice = json.loads(tuned(project)["choice.json"])
    assert (choice["settings"], choice["at_edge"]) == ({"learning_rate": 2e-3}, [])


def test_a_search_in_which_all_diverges_says_what_to_do(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_search(project, "{learning_rate: {choices: [1.0e+30, 1.0e+31]}}")
    monkeypatch.chdir(project)
    result = run("tune", "lora")
    assert result.exit_code == 2
    assert "No trial of the search has a finite loss" in result.output
    assert "2 trials of learning_rate" in result.output


def test_finetune_takes_the_choice(done: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(done, tmp_path / "project")
    choice = folder / "reports" / "tuning" / "lora" / "choice.json"
    rate = json.loads(choice.read_text())["settings"]["learning_rate"]
    run_stages(folder, "finetune@lora")
    history = pd.read_csv(folder / "reports" / "training" / "lora" / "history.csv")
    assert 0.7 * rate < history["learning_rate"].max() <= rate
    provenance = json.loads((folder / "reports/training/lora/provenance.json").read_text())
    assert "reports/tuning/lora/choice.json" in provenance["inputs"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda folder: shutil.rmtree(folder / "reports"), "dvc repro tune@lora"),
        (
            lambda folder: (folder / "reports/tuning/lora/choice.json").write_text("{}"),
            "is not what the stage tune@lora wrote",
        ),
        (
            lambda folder: (folder / "params.yaml").write_text(
                (folder / "params.yaml").read_text().replace(RATES, "{lora.r: {choices: [1, 2]}}")
            ),
            "What was chosen is not of this search",
        ),
    ],
)
def test_finetune_refuses_a_choice_that_is_not_of_this_search(
    edit: Callable[[Path], object],
    said: str,
    done: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = shutil.copytree(done, tmp_path / "project")
    edit(folder)
    monkeypatch.chdir(folder)
    result = run("finetune", "lora")
    assert result.exit_code == 2
    assert said in result.output
    assert not (folder / "models" / "lora").exists()


def test_tpe_tries_rank_and_rate(project: Path) -> None:
    search = "{learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}, lora.r: {low: 1, high: 4}}"
    set_search(project, search, "trials: 15, seeds: [101]")
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("sampler: grid", "sampler: tpe"))
    run_stages(project, "tune@lora")
    trials = pd.read_csv(project / "reports" / "tuning" / "lora" / "trials.csv")
    assert trials["trial"].tolist() == list(range(1, 16))
    assert {*trials["lora.r"]} <= {1, 2, 3, 4}
    assert trials["learning_rate"].between(1e-3, 1e-2).all()
    settings = json.loads(tuned(project)["choice.json"])["settings"]
    best = trials.loc[trials["validation_loss"].idxmin()]
    assert settings == {"learning_rate": best["learning_rate"], "lora.r": best["lora.r"]}


def test_another_rank_tunes_and_trains_lora_alone(tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "project")
    set_search(folder, RATES)
    commit(folder, "a search")
    first = ran(dvc(folder, "repro", LORA_COMPARE_TRACKING="off"))
    assert first.index("tune@lora") < first.index("finetune@lora")
    before = read_lock(folder)
    forced = dvc(folder, "repro", "-f", "-s", "tune@lora", LORA_COMPARE_TRACKING="off")
    assert "trainings," not in forced
    assert read_lock(folder) == before
    commit(folder, "results")
    output = dvc(folder, "exp", "run", "-S", "methods.lora.lora.r=2", LORA_COMPARE_TRACKING="off")
    assert ran(output) == ["tune@lora", "finetune@lora", "evaluate@lora", "compare"]
    # One more tuning seed changes what is tried, and perhaps nothing that is chosen.
    output = dvc(folder, "exp", "run", "-S", "tuning.seeds=[101, 103]", LORA_COMPARE_TRACKING="off")
    assert ran(output)[:2] == ["tune@full", "tune@lora"]
    assert "finetune@full" not in ran(output)
