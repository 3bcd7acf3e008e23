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
    for metric in STAGES[name].get("metrics", []):
        ((path, options),) = metric.items()
        assert path.startswith("metrics/")
        assert options == {"cache": False}
