"""dvc.yaml names every file that a stage runs, and nothing that it does not."""

from pathlib import Path

import pytest
import yaml

from pipeline.imports import ROOT, closure

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = {name: stage.get("do", stage) for name, stage in PIPELINE["stages"].items()}


def test_the_stages_are_those_of_the_folder() -> None:
    scripts = {path.stem for path in (ROOT / "stages").glob("*.py")}
    assert set(STAGES) == scripts


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_code_that_it_imports(name: str) -> None:
    script = ROOT / "stages" / f"{name}.py"
    expected = {str(p.relative_to(ROOT)) for p in {script, *closure(script)}}
    listed = [d for d in STAGES[name]["deps"] if d.startswith(("src/", "stages/"))]
    assert sorted(listed) == sorted(expected)


def test_training_does_not_depend_on_the_test_split() -> None:
    assert not [d for d in STAGES["finetune"]["deps"] if "test" in d]
    # Where a folder is read, every file in it is.
    assert not [
        d for d in STAGES["finetune"]["deps"] if d in ("data", "data/splits", "data/tokens")
    ]


@pytest.mark.parametrize("name", STAGES)
def test_every_file_that_a_stage_writes_has_its_checksum_beside_it(name: str) -> None:
    outs = set(STAGES[name]["outs"])
    files = {out for out in outs if Path(out).suffix not in ("", ".sha256")}
    # A folder holds its own.
    folders = {out for out in outs if not Path(out).suffix}
    assert outs == files | {f"{file}.sha256" for file in files} | folders
    assert all(out.startswith(("models/", "reports/plots")) for out in folders)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_described_and_its_metrics_stay_in_git(name: str) -> None:
    assert STAGES[name]["desc"]
    for output in [*STAGES[name].get("metrics", []), *STAGES[name].get("plots", [])]:
        ((path, options),) = output.items()
        assert path.startswith("metrics/")
        assert options == {"cache": False}
    # DVC's run cache takes no stage with any other output that it does not keep.
    assert all(isinstance(out, str) for out in STAGES[name]["outs"])


def test_dvcs_tables_show_two_small_files() -> None:
    listed = [metric for stage in STAGES.values() for metric in stage.get("metrics", [])]
    files = ["metrics/summary.json", "metrics/comparison.json"]
    assert [next(iter(metric)) for metric in listed] == files
    assert "metrics" not in PIPELINE


def test_every_model_has_a_name_to_register_it_under() -> None:
    params = yaml.safe_load((ROOT / "recipes" / "default.yaml").read_text())
    paths = {name: artifact["path"] for name, artifact in PIPELINE["artifacts"].items()}
    assert paths == {name: f"models/{name}" for name in ("base", *params["methods"])}
    assert {artifact["type"] for artifact in PIPELINE["artifacts"].values()} == {"model"}
