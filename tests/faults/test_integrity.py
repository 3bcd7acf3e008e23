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

from dvc_runs import dvc, ran
from lora_compare import cli
from lora_compare.params import read_yaml
from lora_compare.project.checksums import verified
from lora_compare.project.lineage import dvc_md5
from lora_compare.project.lock import only_writer
from lora_compare.project.paths import Paths
from lora_compare.project.repair import QUARANTINE
from reproducible import read_lock
from small_project import ROOT, copy_project, run

STAGES = ("download", "split", "base_model")
"""What DVC runs here: the shortest pipeline with files and a model's folder among its outputs."""

OUTPUT, FILE = "data/splits", "data/splits/train.csv"
"""The output of the stage `split` that is corrupted, and the file in it; base_model reads it."""


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
def stages_project(trained_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after all stages, without DVC."""
    return shutil.copytree(trained_project, tmp_path_factory.mktemp("copy") / "project")


@pytest.fixture(scope="module")
def made(trained_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose first stages DVC has taken over as they had run."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    for name in ("data", "models/base", "reports/base", "metrics"):
        shutil.copytree(trained_project / name, folder / name)
    dvc(folder, "commit", "--force", *STAGES)
    assert repro(folder) == []
    return folder


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    return made


def repro(folder: Path) -> list[str]:
    """Return what DVC ran to bring the outputs up to date."""
    return ran(dvc(folder, "repro", "base_model", LORA_COMPARE_TRACKING="off"))


@pytest.mark.slow
def test_row_10_a_corrupted_output_is_refused_and_restored(project: Path) -> None:
    before = contents(project)
    flip(project / FILE, random.Random(10))
    assert repro(project) == []
    assert contents(project) != before
    assert_refused(run("base_model"), project / FILE)
    said = repair()
    assert f"moved {OUTPUT} to {QUARANTINE}/" in said
    assert "1 changed\nnext: dvc repro" in said
    assert repro(project) == []
    assert contents(project) == before
    verified(project / FILE, "split")


@pytest.mark.slow
def test_row_10_a_corrupted_object_that_dvc_restores_is_refused_and_made_again(
    project: Path,
) -> None:
    before = contents(project)
    broken = cached(project, project / FILE)
    flip(broken, random.Random(11))
    remove(project / OUTPUT)
    assert repro(project) == []
    assert contents(project) != before
    assert_refused(run("base_model"), project / FILE)
    said = repair()
    assert f"moved {OUTPUT} to {QUARANTINE}/" in said
    assert f"moved {broken.relative_to(project)} to {QUARANTINE}/" in said
    assert repro(project) == ["split"]
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


UNREAD = {
    "base_model": "data/splits/classes.json",
    "baseline": "data/splits/unused.csv",
    "finetune": "reports/tuning/*/choice.json",  # of a method without a search
    "compare": "reports/training/*/provenance.json",
}
"""What a stage does not read of the folders that it depends on."""


RESULTS = ("data/", "models/", "reports/", "metrics/")


def inputs(stage: str, folder: Path) -> list[Path]:
    """Return the files that a stage uses of other stages' sealed outputs, by dvc.yaml."""
    declared = read_yaml(ROOT / "dvc.yaml")["stages"][stage]
    names = [dep.replace("${key}", "lora") for dep in declared.get("do", declared)["deps"]]
    paths = [folder / name for name in names if name.startswith(RESULTS)]
    files = [f for p in paths for f in (sorted(p.rglob("*")) if p.is_dir() else [p])]
    used = [f for f in files if f.is_file() and not f.match(UNREAD.get(stage, "-"))]
    return [file for file in used if file.name != "SHA256SUMS"]


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
        (("evaluate", "lora"), 10),
        (("compare",), 19),
    ],
    ids=lambda value: str(value),
)
def test_row_10_every_stage_refuses_every_changed_input(
    stages_project: Path,
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
        (["classify", "home by 6"], "models/lora/seed-123/model.safetensors"),
        (["classify", "home by 6"], "models/lora/seeds.json"),
        (["classify", "home by 6"], "models/base/tokenizer.json"),
        (["export", "--format", "merged"], "models/lora/seed-123/config.json"),
        (["import", "inputs", "--name", "theirs"], "models/base/model.safetensors"),
        (["import", "inputs", "--name", "theirs"], "data/splits/classes.json"),
    ],
)
def test_row_10_commands_refuse_a_changed_model(
    stages_project: Path,
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


@pytest.mark.slow
def test_row_10_repair_waits_for_no_stage_that_writes(project: Path) -> None:
    lock = Paths.here().writer("download")
    with only_writer(lock, "download"):
        result = CliRunner().invoke(cli.main, ["repair"])
    assert result.exit_code == 2
    assert "The stage download is already running here" in result.output
    assert "then lora-compare repair" in result.output
    assert "all as DVC recorded them" in repair()
