"""What a change of the code or of the methods runs again, and what it leaves."""

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from dvc_runs import count_runs, dvc, ran

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, results: Path) -> Path:
    """One project with results goes through the tests of this file in their order."""
    folder = tmp_path_factory.mktemp("changes") / "project"
    return shutil.copytree(results, folder, symlinks=True)


def test_an_experiment_reruns_only_what_its_parameter_touches(project: Path) -> None:
    runs = count_runs(project)
    output = dvc(project, "exp", "run", "-S", "methods.lora.lora.r=1")
    assert ran(output) == ["tune@lora", "finetune@lora", "evaluate@lora", "compare"]
    assert count_runs(project) == runs + 3
    diff = json.loads(dvc(project, "metrics", "diff", "--json").splitlines()[-1])
    assert {*diff} == {"metrics/summary.json", "metrics/comparison.json"}
    parameters = diff["metrics/summary.json"]["parameters.lora"]
    assert parameters["new"] * 4 == parameters["old"]
    assert "parameters.full" not in diff["metrics/summary.json"]
    # Every figure of a file is there for the asking.
    every = json.loads(
        dvc(project, "metrics", "diff", "--json", "--targets", "metrics/lora.json").splitlines()[-1]
    )
    assert every["metrics/lora.json"]["trainable_parameters"] == parameters
    params = json.loads(dvc(project, "params", "diff", "--json").splitlines()[-1])
    assert params == {"params.yaml": {"methods.lora.lora.r": {"old": 4, "new": 1, "diff": -3}}}
    shown = json.loads(dvc(project, "exp", "show", "--json").splitlines()[-1])
    assert len(shown) >= 2
    subprocess.run(["git", "checkout", "-q", "."], cwd=project, check=True)
    dvc(project, "checkout", "-f")


@pytest.mark.parametrize(
    ("wings", "stages"),
    [
        (("tracking", "cli", "serving", "exchange"), []),
        (("report",), ["compare"]),
    ],
)
def test_an_edited_comment_reruns_what_its_wing_can_change(
    project: Path, wings: tuple[str, ...], stages: list[str]
) -> None:
    for wing in wings:
        module = project / "src" / "lora_compare" / wing / "__init__.py"
        module.write_text(module.read_text() + "# a comment\n")
    assert ran(dvc(project, "repro")) == stages
    subprocess.run(["git", "checkout", "-q", "."], cwd=project, check=True)
    dvc(project, "checkout", "-f")


def test_an_edited_comment_in_training_trains_again_and_evaluates_only_other_bytes(
    project: Path,
) -> None:
    module = project / "src" / "lora_compare" / "training" / "__init__.py"
    before = module.read_text()
    module.write_text(before + "# a comment\n")
    trained = ["tune@full", "tune@lora", "finetune@full", "finetune@lora"]
    # What a training costs is never the same twice, and compare reads it.
    assert ran(dvc(project, "repro")) == [*trained, "compare"]
    module.write_text(before)
    assert ran(dvc(project, "repro")) == []


def test_a_method_joins_the_comparison_by_a_block_in_params(project: Path) -> None:
    params = project / "params.yaml"
    block = "  last_block: {trainable: last_block, learning_rate: 1.0e-3, weight_decay: 0.1}\n"
    params.write_text(params.read_text().replace("  lora:\n", f"{block}  lora:\n", 1))
    own = [f"{stage}@last_block" for stage in ("tune", "finetune", "evaluate")]
    assert ran(dvc(project, "repro")) == [*own, "compare"]
    comparison = json.loads((project / "metrics/comparison.json").read_text())
    names = [record["method"] for record in comparison["methods"]]
    assert names == ["full", "last_block", "lora"]
    others = {pair["a"]: pair["b"] for pair in comparison["pairs"] if not pair["baseline"]}
    assert others == {"last_block": "full", "lora": "full"}
    plots = json.loads(dvc(project, "plots", "show", "--json").splitlines()[-1])["data"]
    assert "last_block" in {row["method"] for row in plots["loss"][0]["content"]["data"]["values"]}
    page = project / "reports" / "comparison" / "comparison.html"
    assert "last_block" in page.read_text()
    with sqlite3.connect(project / "mlflow.db") as store:
        assert store.execute("select count(*) from runs where name = 'last_block'").fetchone() == (
            1,
        )


def test_nothing_is_left_of_a_method_that_is_removed(project: Path) -> None:
    params = project / "params.yaml"
    lines = params.read_text().splitlines(keepends=True)
    params.write_text("".join(line for line in lines if not line.startswith("  last_block:")))
    assert ran(dvc(project, "repro")) == ["compare"]
    assert not list(project.glob("reports/*/last_block"))
    assert ran(dvc(project, "repro")) == []
    assert dvc(project, "status", "--json").splitlines()[-1] == "{}"
