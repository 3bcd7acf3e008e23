"""A stage loads only what it uses: nobody waits for a library that has nothing to do."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lora_compare.evaluation.noise import is_installed
from pipeline.imports import ROOT
from small_project import environment

HEAVY = {
    *("torch", "torch._dynamo", "transformers", "mlflow", "sklearn", "pandas", "scipy"),
    "matplotlib",
}
"""What takes a noticeable time to import."""

USES = {
    ("download",): set(),
    ("split",): {"pandas", "scipy"},
    ("base_model",): {"torch"},
    ("baseline",): {"torch", "pandas", "sklearn", "scipy"},
    ("tune", "lora"): set(),  # there is no search
    ("finetune", "lora"): {"torch"},
    ("evaluate", "lora"): {"torch"},
    ("compare",): {"pandas", "scipy", "matplotlib", *(["sklearn"] if is_installed() else [])},
}
"""What each stage's process loads of these, in the pipeline's order."""

SCRIPT = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as exit:
    assert not exit.code, exit.code
print(*sys.modules)
"""


def loaded(folder: Path, *arguments: str) -> set[str]:
    """Run Python in `folder` and return those of HEAVY that it has loaded at its end."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=folder,
        env=environment(LORA_COMPARE_QUIET="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return HEAVY & {*done.stdout.splitlines()[-1].split()}


@pytest.fixture(scope="module")
def used(
    trained_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, ...], set[str]]:
    """What each stage loads when it runs once more in a small project, with tracking."""
    folder = shutil.copytree(trained_project, tmp_path_factory.mktemp("copy") / "project")
    return {
        stage: loaded(folder, str(ROOT / "stages" / f"{stage[0]}.py"), *stage[1:]) for stage in USES
    }


@pytest.mark.slow
@pytest.mark.parametrize("stage", USES, ids="@".join)
def test_a_stage_loads_only_what_it_uses(
    used: dict[tuple[str, ...], set[str]], stage: tuple[str, ...]
) -> None:
    assert used[stage] == USES[stage]


@pytest.mark.parametrize("name", sorted({stage[0] for stage in USES}))
def test_nothing_heavy_is_loaded_before_a_stage_starts_its_work(name: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, str(ROOT / "stages" / f"{name}.py"), "--help") == set()
