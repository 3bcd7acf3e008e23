"""A disk that is full and folders that may not be written to, both real."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_httpserver import HTTPServer

from lora_compare.data.downloads import fetch
from lora_compare.errors import StorageError
from lora_compare.models.weights import save_state
from lora_compare.params import read_yaml
from lora_compare.project import files
from lora_compare.project.paths import Paths
from lora_compare.training.resume import Checkpoints
from small_project import (
    ROOT,
    environment,
    small_params,
    write_settings,
)
from web import CONTENT, remote, serve, whole

pytestmark = pytest.mark.slow

LEFT_FREE = 4096
"""Bytes, one block: enough for a small file, too few for any stage."""


HOLD = 'mount -t tmpfs -o size=8m tmpfs "$0" && echo mounted && exec cat'
"""What the process does that holds the file system: mount it and wait."""

WAYS: list[tuple[list[str], list[str]]] = [
    ([], []),
    (["--map-root-user"], ["--user", "--preserve-credentials"]),
]
"""How to make a mount namespace and how to enter it: as root, and as somebody else."""


class SmallDisk:
    """A file system of 8 MB.

    It is mounted in a mount namespace of its own, and ends with the process that holds that.

    Attributes:
        folder: Where it is for a process inside.
        seen: The same folder for this process, which is outside.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        for options, entry in WAYS:
            self._enter = ["nsenter", "--mount", *entry]
            self._holder = subprocess.Popen(
                ["unshare", "--mount", *options, "sh", "-c", HOLD, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert self._holder.stdout is not None
            answer = self._holder.stdout.readline()
            if answer == "mounted\n":
                break
            self.close()
        else:
            pytest.fail(f"no file system can be mounted, not even in a user namespace: {answer}")
        self.seen = Path(f"/proc/{self._holder.pid}/root/{folder}")

    def close(self) -> None:
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait()

    def stage(self, name: str, *arguments: str, **variables: str) -> tuple[int, str]:
        """Run a stage with the disk as project folder; return its exit code and output."""
        return self.python(str(ROOT / "stages" / f"{name}.py"), *arguments, **variables)

    def python(self, *words: str, **variables: str) -> tuple[int, str]:
        """Run Python with the disk as project folder; return its exit code and output."""
        start = ["sh", "-c", 'cd "$0" && exec "$@"', str(self.folder)]
        done = subprocess.run(
            [*self._enter, f"--target={self._holder.pid}", *start, sys.executable, *words],
            env=environment(**{"LORA_COMPARE_TRACKING": "off", **variables}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def fill(self, left: int = 0) -> None:
        """Leave only `left` bytes free."""
        with (self.seen / "filler").open("wb") as filler:
            filler.write(bytes(self.free() - left))

    def free(self) -> int:
        return shutil.disk_usage(self.seen).free

    def content(self) -> dict[str, bytes]:
        """Return every file and folder that is there; a folder's bytes are empty."""
        return {
            str(path.relative_to(self.seen)): path.read_bytes() if path.is_file() else b""
            for path in self.seen.rglob("*")
        }


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "small disk")
    yield disk
    disk.close()


def write_weights(path: Path) -> None:
    save_state(path, {"weight": torch.ones(3_000_000)})


def write_bytes(path: Path) -> None:
    files.write_bytes(path, bytes(12_000_000))


def write_in_parts(path: Path) -> None:
    """As a library writes, of which nobody knows how much comes."""
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        for _ in range(1200):
            file.write(bytes(10_000))


@pytest.mark.parametrize("write", [write_weights, write_bytes, write_in_parts])
def test_row_08_what_does_not_fit_is_named_with_sizes_and_leaves_the_former_file(
    disk: SmallDisk, write: Callable[[Path], None], record_property: Callable[[str, int], None]
) -> None:
    path, trials = disk.seen / "models" / "model.safetensors", 20
    files.write_text(path, "the former file")
    before, free = disk.content(), disk.free()
    record_property("trials", trials)
    for _ in range(trials):
        with pytest.raises(StorageError, match="disk is full") as error:
            write(path)
        assert error.value.where == str(path)
        assert f"{free:,} bytes free" in error.value.actual
        if write is not write_in_parts:
            assert error.value.expected == "12,000,000 bytes free"
        assert disk.content() == before


def test_row_08_a_folder_that_does_not_fit_leaves_the_former_folder(disk: SmallDisk) -> None:
    folder = disk.seen / "exports"
    files.write_text(folder / "a", "former")
    before = disk.content()

    def write_all() -> None:
        with files.replacing_folder(folder) as new:
            files.write_text(new / "a", "new")
            write_bytes(new / "b")

    with pytest.raises(StorageError, match="disk is full"):
        write_all()
    assert disk.content() == before


@pytest.mark.parametrize("left", [0, 100_000])
def test_row_08_a_download_that_does_not_fit_leaves_nothing(
    disk: SmallDisk, left: int, server: HTTPServer
) -> None:
    disk.fill(left)
    before = disk.content()
    serve(server, "/a", whole())
    with pytest.raises(StorageError) as error:
        fetch(remote(server, "/a"), disk.seen / "a.zip")
    assert error.value.expected == f"{len(CONTENT):,} bytes free"
    assert disk.content() == before


class Trained:
    """A training of one large parameter."""

    step = 1

    def tensors(self) -> dict[str, Any]:
        return {"parameter.weight": torch.full((2**18,), float(self.step))}

    def figures(self) -> dict[str, Any]:
        return {}


def test_row_08_a_checkpoint_that_does_not_fit_leaves_the_last_one_whole(disk: SmallDisk) -> None:
    checkpoints = Checkpoints(disk.seen / ".checkpoints" / "full.safetensors", {}, 0)
    training = Trained()
    checkpoints.after_step(training)
    disk.fill(LEFT_FREE)
    before = disk.content()
    training.step = 2
    with pytest.raises(StorageError, match="disk is full"):
        checkpoints.after_step(training)
    assert disk.content() == before


@pytest.mark.parametrize(
    ("stage", "output"),
    [
        (["download"], "data/raw/messages.tsv"),
        (["split"], "data/splits/train.csv"),
        (
            ["finetune", "full"],
            ".checkpoints/finetune@full/seed-123-[0-9a-f]+/model/model.safetensors",
        ),
    ],
)
def test_row_08_a_stage_says_what_it_needs_and_ends_well_once_there_is_room(
    disk: SmallDisk, trained_project: Path, stage: list[str], output: str
) -> None:
    write_settings(disk.seen)
    for name in ("data", "models/base"):
        shutil.copytree(trained_project / name, disk.seen / name)
    shutil.rmtree((disk.seen / output).parent, ignore_errors=True)
    disk.fill(LEFT_FREE)
    before = disk.content()
    code, message = disk.stage(*stage)
    assert code == 2, message
    assert re.search(f"where:    {re.escape(str(disk.folder))}/{output}\n", message)
    assert "error: The disk is full" in message
    assert "expected: " in message
    assert " bytes free (No space left on device)" in message
    assert "Traceback" not in message
    after = disk.content()
    # Small files that came before the large one are whole; folders may have been made.
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if name.endswith(".tmp") or re.fullmatch(output, name)]

    (disk.seen / "filler").unlink()
    if stage[0] == "finetune":
        code, message = disk.stage(*stage)
        assert code == 0, message


def test_row_08_a_tracking_store_without_room_stops_no_stage(disk: SmallDisk) -> None:
    write_settings(disk.seen)
    disk.fill(8 * LEFT_FREE)
    code, output = disk.stage("download", LORA_COMPARE_TRACKING="on")
    assert code == 0, output
    assert "lora-compare sync" in output
    assert "Traceback" not in output
    assert (disk.seen / "data" / "raw" / "provenance.json").exists()


def test_the_doctor_sees_that_a_run_does_not_fit_before_it_starts(disk: SmallDisk) -> None:
    (disk.seen / "params.yaml").write_text(small_params())
    code, output = disk.python("-m", "lora_compare", "doctor", "--json")
    assert code == 1, output
    (found,) = (check for check in json.loads(output)["checks"] if check["check"] == "space")
    assert found["status"] == "trouble"
    assert found["facts"]["disks"][0]["folder"] == str(disk.folder)
    assert found["facts"]["disks"][0]["free_bytes"] == disk.free()
    assert "make room" in found["remedy"]


def owner(command: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command as the owner of what the tests write, to whom the mode of a file applies.

    root is above it by two capabilities, so that they are dropped. Another user could often not
    reach the interpreter and the tests' folders.
    """
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    return subprocess.run(
        [*(drop if os.geteuid() == 0 else []), *command],
        cwd=folder,
        env=environment(LORA_COMPARE_TRACKING="off"),
        capture_output=True,
        text=True,
    )


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Make a folder of the project that may not be written to; undone at the end."""
    made: list[Path] = []

    def lock(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o555)
        made.append(folder)
        return folder

    yield lock
    for folder in made:
        folder.chmod(0o755)


@pytest.mark.parametrize("name", ["models/full", "models", "reports/training", "metrics", "."])
def test_row_09_finetune_names_the_folder_before_it_reads_anything(
    tmp_path: Path, locked: Callable[[str], Path], name: str
) -> None:
    (tmp_path / "params.yaml").write_text(small_params())
    folder = locked(name)
    done = owner([sys.executable, str(ROOT / "stages" / "finetune.py"), "full"], tmp_path)
    assert done.returncode == 2, done.stderr
    # Not that its inputs are missing, which it would find out next.
    assert done.stderr.startswith(f"error: {folder.name} cannot be written.\n")
    assert f"where:    {folder}\n" in done.stderr
    assert "dr-xr-xr-x" in done.stderr
    assert "chmod" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_names_a_folder_that_cannot_be_written(
    tmp_path: Path, locked: Callable[[str], Path]
) -> None:
    (tmp_path / "params.yaml").write_text(small_params())
    folder = locked("reports/training")
    done = owner([sys.executable, "-m", "lora_compare", "doctor", "--json"], tmp_path)
    assert done.returncode == 1, done.stderr
    (found,) = (check for check in json.loads(done.stdout)["checks"] if check["check"] == "folders")
    assert found["status"] == "trouble"
    assert str(folder) in found["what"]
    assert "chmod" in found["remedy"]


def test_row_09_a_file_in_such_a_folder_is_an_error_with_its_path(
    tmp_path: Path, locked: Callable[[str], Path]
) -> None:
    folder = locked("exports")
    code = "import sys; from pathlib import Path; from lora_compare.project import files;"
    code += "from lora_compare.cli.stage import report_user_errors as report;"
    code += "report(files.write_text)(Path(sys.argv[1]), 'text')"
    done = owner([sys.executable, "-c", code, str(folder / "a.txt")], tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"where:    {folder / 'a.txt'}\n" in done.stderr
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []


def test_the_folders_that_are_checked_are_those_of_dvc_yaml() -> None:
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    for name, stage in stages.items():
        stage = stage.get("do", stage)
        declared = [*stage.get("outs", ()), *stage.get("metrics", ()), *stage.get("plots", ())]
        paths = [entry if isinstance(entry, str) else next(iter(entry)) for entry in declared]
        checked = Paths(ROOT).output_folders(name, "${key}")
        for path in (ROOT / path for path in paths):
            assert {path, path.parent} & {*checked}, f"{name} writes {path}"
