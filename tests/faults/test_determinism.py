"""What surrounds a run leaves no trace in what it writes: locale, time zone, umask, path, home."""

import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from reproducible import derived, differences, different, repeatable
from small_project import ROOT, copy_project, environment, write_settings

CHAIN = """
import runpy, sys
from lora_compare.models import latency
from lora_compare.training import meters as cost

def steady(measure):
    return lambda *run: {
        key: value if value is None or isinstance(value, str) else 8
        for key, value in measure(*run).items()
    }

# Times and memory never repeat; with these, all that is made from them has to.
cost.cost_figures = steady(cost.cost_figures)
latency.measure_latency = steady(latency.measure_latency)

def refuse(event, arguments):
    if event == "pickle.find_class":
        raise RuntimeError(f"unpickles {arguments}")

sys.addaudithook(refuse)

def run(stage, *arguments):
    command = runpy.run_path(f"{sys.argv[1]}/stages/{stage}.py")["main"]
    command(list(arguments), standalone_mode=False)

for stage in ("download", "split", "base_model", "baseline"):
    run(stage)
for method in ("full", "lora"):
    for stage in ("tune", "finetune", "evaluate"):
        run(stage, method)
run("compare")
"""
"""All stages in one process, since most of a stage's time is its imports.

It ends at the first object that anything in it unpickles, as SECURITY.md promises.
"""

NOWHERE = "/sys/home"
"""A folder that nobody can make, the administrator included."""

STRANGE = "a folder with blänks, 数据 and 'quotes'"


@dataclass(frozen=True)
class World:
    """What surrounds a run.

    Attributes:
        variables: Changes to the environment.
        umask: Bits that files are made without.
        folder: Name of the project's folder.
    """

    variables: dict[str, str] = field(default_factory=dict)
    umask: int = 0o022
    folder: str = "project"


USUAL = World({"LC_ALL": "C.UTF-8", "TZ": "UTC"})

WORLDS = {
    "ascii": World({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "locale": World({"LC_ALL": "C"}),
    "turkish": World({"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "LANGUAGE": "tr"}),
    "time zone": World({"TZ": "Pacific/Kiritimati"}),
    "private": World(umask=0o077),
    "open": World(umask=0o000),
    "path": World(folder=STRANGE),
    "hashes 1": World({"PYTHONHASHSEED": "1"}),
    "hashes 2": World({"PYTHONHASHSEED": "2"}),
    "home": World({"HOME": NOWHERE}),
    "no home": World({"HOME": ""}),
    "narrow": World({"COLUMNS": "20", "LINES": "5", "TERM": "dumb"}),
    "wide": World({"COLUMNS": "500", "FORCE_COLOR": "1", "NO_COLOR": ""}),
}

ALL_AT_ONCE = [
    World(
        {
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "TZ": "Pacific/Kiritimati",
            "PYTHONHASHSEED": "1",
            "HOME": NOWHERE,
            "COLUMNS": "20",
        },
        0o077,
        STRANGE,
    ),
    World(
        {
            "LC_ALL": "tr_TR.UTF-8",
            "TZ": "America/St_Johns",
            "PYTHONHASHSEED": "2",
            "HOME": "",
            "COLUMNS": "500",
            "FORCE_COLOR": "1",
        },
        0o000,
        " ünïcode\ttab",
    ),
]


def start(parent: Path, world: World) -> "subprocess.Popen[str]":
    """Start all stages in a new project below `parent`."""
    project = write_settings(parent / world.folder)
    messages = project / "inputs" / "text" / "messages.csv"
    text = messages.read_text(encoding="utf-8").replace("WINNER", "KAZANDINIZ İı ✓")
    messages.write_text(text, encoding="utf-8")
    python_path = f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"
    return subprocess.Popen(
        [sys.executable, "-c", CHAIN, str(ROOT)],
        cwd=project,
        env=environment(PYTHONPATH=python_path, LORA_COMPARE_TRACKING="off", **world.variables),
        umask=world.umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )


def outputs(project: Path) -> dict[str, bytes]:
    """Return every file that the stages wrote, by its path in the project."""
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for folder in ("data", "models", "reports", "metrics")
        for path in sorted((project / folder).rglob("*"))
        if path.is_file()
    }


def run_all(parents: list[Path], worlds: list[World]) -> list[Path]:
    """Return the finished projects of the worlds, two of which run at a time."""
    todo = list(zip(parents, worlds, strict=True))
    for pair in [todo[i : i + 2] for i in range(0, len(todo), 2)]:
        for process in [start(parent, world) for parent, world in pair]:
            printed, _ = process.communicate(timeout=240)
            assert process.returncode == 0, printed
    return [parent / world.folder for parent, world in todo]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    (project,) = run_all([tmp_path_factory.mktemp("usual")], [USUAL])
    files = outputs(project)
    assert {
        "models/lora/seed-123/model.safetensors",
        "reports/comparison/comparison.html",
    } <= files.keys()
    return files


def modes(project: Path) -> dict[str, set[str]]:
    """Return the permissions of all files and of all folders that the stages wrote."""
    found = [
        p for name in ("data", "models", "reports", "metrics") for p in (project / name).rglob("*")
    ]
    return {
        kind: {oct(p.stat().st_mode & 0o777) for p in found if p.is_dir() == (kind == "folders")}
        for kind in ("files", "folders")
    }


def require_same(project: Path, world: World, reference: dict[str, bytes]) -> None:
    written = outputs(project)
    assert written.keys() == reference.keys()
    assert [name for name in written if written[name] != reference[name]] == []
    expected = {"files": {oct(0o666 & ~world.umask)}, "folders": {oct(0o777 & ~world.umask)}}
    assert modes(project) == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "worlds",
    [ALL_AT_ONCE, [*WORLDS.values()]],
    ids=["all at once", "each by itself"],
)
def test_row_27_bytes_do_not_depend_on_anything_around_a_run(
    worlds: list[World], reference: dict[str, bytes], tmp_path: Path, record_property: Any
) -> None:
    parents = [tmp_path / str(number) for number in range(len(worlds))]
    for project, world in zip(run_all(parents, worlds), worlds, strict=True):
        require_same(project, world, reference)
    record_property("trials", len(worlds))


def repro(parent: Path, world: World) -> Path:
    """Return a copy of the project below `parent` in which DVC has run the pipeline, tracked."""
    project = parent / world.folder
    project.mkdir(parents=True)
    copy_project(project)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=project,
        env=environment(PATH=path, PYTHONPATH=str(project / "src"), **world.variables),
        umask=world.umask,
        capture_output=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    assert (project / "mlflow.db").exists()
    assert b"lora-compare sync" not in done.stderr, done.stderr.decode(errors="replace")
    return project


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_row_27_the_same_through_dvc_and_mlflow(tmp_path: Path, record_property: Any) -> None:
    usual = repro(tmp_path / "usual", USUAL)
    ascii_only, other = ALL_AT_ONCE
    # DVC itself refuses other letters in a path where Python has been told to know ASCII alone.
    for number, world in enumerate((replace(ascii_only, folder="it's a folder"), other)):
        project = repro(tmp_path / str(number), world)
        assert differences(usual, project) == []
    record_property("trials", len(ALL_AT_ONCE))
    weights = project / "models" / "lora" / "seed-123" / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert differences(usual, project) == ["models/lora/seed-123/model.safetensors"]


def stages(weights: str, seconds: str) -> dict[str, Any]:
    """Return the stages of a lock file with the sums of a model and of its cost."""
    cost = {"path": "reports/training/lora", "md5": seconds}
    model = {"path": "models/lora", "md5": weights}
    table = {"path": "reports/comparison", "md5": weights + seconds}
    return {
        "finetune@lora": {"cmd": "train", "deps": [], "outs": [cost, model]},
        "compare": {
            "cmd": "compare",
            "deps": [{"path": "reports/training", "md5": seconds}],
            "outs": [table],
        },
    }


def test_row_27_only_times_and_what_is_made_from_them_may_differ_between_two_clones() -> None:
    first = stages("1", "fast")
    assert derived(first) == {"reports/comparison"}
    assert different(repeatable(first), repeatable(stages("1", "slow"))) == []
    assert different(repeatable(first), repeatable(stages("2", "fast"))) == ["finetune@lora"]
    fewer = {"compare": first["compare"] | {"cmd": "other"}}
    assert different(repeatable(first), repeatable(fewer)) == ["compare", "finetune@lora"]
