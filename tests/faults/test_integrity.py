"""Row 10, with the real DVC: a byte that changed in an output or in DVC's cache.

The file keeps its time, size and mode, as after a fault of the disk: DVC sees nothing of it.
"""

import hashlib
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lora_compare import cli
from lora_compare.params import read_yaml
from lora_compare.project.checksums import verified
from lora_compare.project.lineage import dvc_md5
from lora_compare.project.lock import only_writer
from lora_compare.project.paths import Paths
from lora_compare.project.repair import QUARANTINE
from pipeline.test_dvc import dvc, ran
from pipeline.test_stages import project as stages_project  # noqa: F401 (a fixture)
from pipeline.test_stages import run
from reproducible import read_lock
from small_project import ROOT, copy_project

STAGES = ("download", "split", "base_model")
"""What DVC runs here: the shortest pipeline with files and a model's folder among its outputs."""

SPLIT = ("data/splits/train.csv", "data/splits/train.csv", "split", ("base_model",))
BASE = ("models/base", "models/base/model.safetensors", "base_model", ("finetune", "lora"))
"""An output, the file in it to corrupt, the stage that makes it and one that reads it."""

slow = pytest.mark.slow


def flip(path: Path, chance: random.Random) -> None:
    """Change one bit of a file, and nothing else of it that DVC looks at."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def contents(folder: Path) -> dict[str, bytes]:
    """Return all outputs of stages below `folder`."""
    files = [p for name in ("data", "models") for p in (folder / name).rglob("*") if p.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def cached(folder: Path, path: Path) -> Path:
    """Return the object of DVC's cache with the bytes of a file."""
    md5 = dvc_md5(path)
    assert md5 is not None
    return folder / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


def repair() -> str:
    result = CliRunner().invoke(cli.main, ["repair"])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def assert_refused(result: Result, path: Path) -> None:
    """Check that a stage refused the file as it is now, with both checksums and the way out."""
    assert result.exit_code == 2, result.output + repr(result.exception)
    facts = dict(line.strip().split(":", 1) for line in result.output.splitlines() if ": " in line)
    assert facts["where"].strip() == str(path)
    assert facts["actual"].split() == ["sha256", hashlib.sha256(path.read_bytes()).hexdigest()]
    assert facts["expected"].split()[1] not in ("", facts["actual"].split()[1])
    assert facts["next"].strip() == "lora-compare repair"
    assert "Traceback" not in result.output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which DVC ran the first stages."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    assert ran(dvc(folder, "repro", "base_model", LORA_COMPARE_TRACKING="off")) == [*STAGES]
    return folder


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    return made


def repro(folder: Path) -> list[str]:
    """Return what DVC ran to bring the outputs up to date."""
    return ran(dvc(folder, "repro", "base_model", LORA_COMPARE_TRACKING="off"))


@pytest.mark.parametrize("case", [SPLIT, pytest.param(BASE, marks=slow)], ids=["file", "folder"])
def test_row_10_a_corrupted_output_is_refused_and_restored(
    project: Path, case: tuple[str, str, str, tuple[str, ...]]
) -> None:
    output, file, stage, reader = case
    before = contents(project)
    flip(project / file, random.Random(10))
    assert repro(project) == []
    assert contents(project) != before
    assert_refused(run(*reader), project / file)
    said = repair()
    assert f"moved {output} to {QUARANTINE}/" in said
    assert "1 changed\nnext: dvc repro" in said
    assert repro(project) == []
    assert contents(project) == before
    verified(project / file, stage)


@pytest.mark.parametrize("case", [BASE, pytest.param(SPLIT, marks=slow)], ids=["folder", "file"])
def test_row_10_a_corrupted_object_that_dvc_restores_is_refused_and_made_again(
    project: Path, case: tuple[str, str, str, tuple[str, ...]]
) -> None:
    output, file, stage, reader = case
    before = contents(project)
    broken = cached(project, project / file)
    flip(broken, random.Random(11))
    remove(project / output)
    assert repro(project) == []
    assert contents(project) != before
    assert_refused(run(*reader), project / file)
    said = repair()
    assert f"moved {output} to {QUARANTINE}/" in said
    assert f"moved {broken.relative_to(project)} to {QUARANTINE}/" in said
    assert repro(project) == [stage]
    assert contents(project) == before
    # What was made again is in the cache again.
    for made_by in STAGES:
        for out in read_lock(project)[made_by]["outs"]:
            remove(project / out["path"])
    assert repro(project) == []
    assert contents(project) == before
    assert "all as DVC recorded them" in repair()


def remove(path: Path) -> None:
    """Remove an output, but what git has."""
    if path.is_dir():
        shutil.rmtree(path)
    elif "metrics" not in path.parts:
        path.unlink()


@pytest.mark.slow
def test_row_10_whatever_is_corrupted_is_found_and_comes_back(
    project: Path, record_property
) -> None:
    before, chance, trials = contents(project), random.Random(12), 0
    for _ in range(8):
        for name in chance.sample([*sorted(before), "models/base"], 3):
            path = project / name
            # Of a folder, DVC's cache has a listing too.
            flip(cached(project, path) if path.is_dir() or chance.random() < 0.5 else path, chance)
            trials += 1
        repair()
        repro(project)
        assert contents(project) == before
    record_property("trials", trials)


def inputs(stage: str, folder: Path) -> list[Path]:
    """Return the files that a stage uses of other stages' sealed outputs, by dvc.yaml."""
    declared = read_yaml(ROOT / "dvc.yaml")["stages"][stage]
    names = [dep.replace("${key}", "lora") for dep in declared.get("do", declared)["deps"]]
    paths = [folder / name for name in names if name.startswith(("data/", "models/", "reports/"))]
    files = [f for p in paths for f in (sorted(p.iterdir()) if p.is_dir() else [p])]
    sums = (".sha256", "SHA256SUMS")
    # How a model was made is there for people; where the messages come from is in the report.
    used = [path for path in files if path.match("data/raw/*") or path.name != "provenance.json"]
    return [path for path in used if not path.name.endswith(sums)]


@contextmanager
def changed(path: Path, chance: random.Random) -> Iterator[None]:
    content = path.read_bytes()
    flip(path, chance)
    try:
        yield
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("split",), 1),
        (("base_model",), 4),
        (("baseline",), 10),
        (("finetune", "lora"), 6),
        (("evaluate", "lora"), 9),
        (("compare",), 12),
    ],
    ids=lambda value: str(value),
)
def test_row_10_every_stage_refuses_every_changed_input(
    stages_project: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    count: int,
    record_property,
) -> None:
    monkeypatch.chdir(stages_project)
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    files, chance = inputs(arguments[0], stages_project), random.Random(13)
    assert len(files) == count
    for file in files:
        with changed(file, chance):
            assert_refused(run(*arguments), file)
    record_property("trials", count)


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["classify", "home by 6"], "models/lora/model.safetensors"),
        (["classify", "home by 6"], "models/base/tokenizer.json"),
        (["export", "--format", "merged"], "models/lora/config.json"),
        (["import", "inputs", "--name", "theirs"], "models/base/model.safetensors"),
        (["import", "inputs", "--name", "theirs"], "data/splits/classes.json"),
    ],
)
def test_row_10_commands_refuse_a_changed_model(
    stages_project: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    file: str,
) -> None:
    monkeypatch.chdir(stages_project)
    with changed(stages_project / file, random.Random(14)):
        assert_refused(CliRunner().invoke(cli.main, arguments), stages_project / file)
    assert not (stages_project / "exports").exists()


def test_row_10_repair_without_a_record_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.main, ["repair"])
    assert result.exit_code == 2
    assert "git checkout dvc.lock" in result.output
    (tmp_path / "dvc.lock").write_text("stages: {}")
    result = CliRunner().invoke(cli.main, ["repair"])
    assert result.exit_code == 2
    assert "dvc init" in result.output


def test_row_10_repair_waits_for_no_stage_that_writes(project: Path) -> None:
    lock = Paths.here().writer("download")
    with only_writer(lock, "download"):
        result = CliRunner().invoke(cli.main, ["repair"])
    assert result.exit_code == 2
    assert "The stage download is already running here" in result.output
    assert "then lora-compare repair" in result.output
    assert "all as DVC recorded them" in repair()
