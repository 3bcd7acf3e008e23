"""dvc.yaml names, for every stage, the wings that can change what it writes, and no others."""

from pathlib import Path
from typing import Any

import pytest

from lora_compare.params import read_yaml
from pipeline.imports import ROOT, closure, wing

PIPELINE = read_yaml(ROOT / "dvc.yaml")
STAGES: dict[str, Any] = {n: stage.get("do", stage) for n, stage in PIPELINE["stages"].items()}
WINGS = "src/lora_compare/"

OBSERVERS = frozenset({"cli", "tracking", "serving", "exchange"})
"""What looks on while a stage works, or uses its results, and changes nothing that it writes:
import-linter holds that no other wing imports them, tests/faults/test_determinism.py and
tests/faults/test_tracking_faults.py that the bytes stay the same without them."""

TEXTS = {"__init__", "errors"}
"""What holds the version's name and the texts of mistakes, beside the wings."""


def wings(stage: str) -> set[str]:
    script = ROOT / "stages" / f"{stage}.py"
    return {wing(module) for module in closure(script, without=OBSERVERS)} - TEXTS


def test_the_stages_are_those_of_the_folder() -> None:
    scripts = {path.stem for path in (ROOT / "stages").glob("*.py")}
    assert set(STAGES) == scripts


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_exactly_the_wings_that_it_runs(name: str) -> None:
    code = [d for d in STAGES[name]["deps"] if d.startswith(("src/", "stages/"))]
    assert sorted(code) == sorted([f"stages/{name}.py", *(WINGS + w for w in wings(name))])


def test_the_closure_sees_through_functions_and_folders() -> None:
    modules = {str(m.relative_to(ROOT / WINGS)) for m in closure(ROOT / "stages" / "finetune.py")}
    assert {"training/loop.py", "lora/__init__.py", "lora/layer.py", "cli/stage.py"} <= modules
    assert "data/bundled.py" not in modules


def test_training_does_not_depend_on_the_test_split() -> None:
    deps = STAGES["finetune"]["deps"]
    assert not [d for d in deps if "test" in d]
    # Where a folder is read, every file in it is.
    assert not {"data", "data/splits", "data/tokens"} & {*deps}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_writes_folders_which_hold_their_checksums(name: str) -> None:
    outs = STAGES[name]["outs"]
    # DVC's run cache takes no stage with any other output that it does not keep.
    assert all(isinstance(out, str) and not Path(out).suffix for out in outs)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_described_and_its_metrics_stay_in_git(name: str) -> None:
    assert STAGES[name]["desc"]
    for output in [*STAGES[name].get("metrics", []), *STAGES[name].get("plots", [])]:
        ((path, options),) = output.items()
        assert path.startswith("metrics/")
        assert options == {"cache": False}


def test_dvc_yaml_is_a_table_of_contents() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 160


def test_dvcs_tables_show_two_small_files() -> None:
    listed = [metric for stage in STAGES.values() for metric in stage.get("metrics", [])]
    files = ["metrics/summary.json", "metrics/comparison.json"]
    assert [next(iter(metric)) for metric in listed] == files
    assert "metrics" not in PIPELINE


def test_every_model_has_a_name_to_register_it_under() -> None:
    params = read_yaml(ROOT / "recipes" / "default.yaml")
    paths = {name: artifact["path"] for name, artifact in PIPELINE["artifacts"].items()}
    assert paths == {name: f"models/{name}" for name in ("base", "tfidf", *params["methods"])}
    assert {artifact["type"] for artifact in PIPELINE["artifacts"].values()} == {"model"}


def test_the_package_is_its_wings() -> None:
    package = ROOT / WINGS
    entries = [p for p in package.iterdir() if p.name != "__pycache__"]
    assert len(entries) <= 18
    for folder in filter(Path.is_dir, entries):
        modules = [p for p in folder.iterdir() if p.suffix == ".py"]
        assert 3 <= len(modules) <= 12, folder.name
        assert (folder / "__init__.py").read_text().startswith('"""'), folder.name
