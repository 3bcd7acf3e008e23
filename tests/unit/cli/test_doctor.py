"""What the doctor finds: each trouble caused for real, and the remedy that it names."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lora_compare import lora
from lora_compare.cli.doctor import (
    CHECKS,
    Finding,
    devices,
    models,
    sizes,
    state,
    storage,
    versions,
)
from lora_compare.cli.doctor.findings import Project
from lora_compare.models.base import make_base
from lora_compare.models.gpt.tokenizer import GPT2_FILES, cached_name
from lora_compare.models.methods import Trained, choose_trainable
from lora_compare.params import MethodParams, load_params
from lora_compare.project.lock import only_writer
from lora_compare.project.paths import Paths
from mlflow_servers import REFUSING, Answer, serving
from small_project import ROOT, commit
from tiny_models import make_model
from tracked_project import TrackedProject, wait_until, write_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_tracking_settings: None) -> Project:
    """A project with every output, not yet in git or DVC; only to be changed."""
    monkeypatch.chdir(tmp_path)
    return Project(write_project(tmp_path)[0])


def edited(project: Project, old: str, new: str) -> Project:
    """Return the project after an edit of params.yaml."""
    text = project.paths.params.read_text(encoding="utf-8")
    assert old in text
    project.paths.params.write_text(text.replace(old, new), encoding="utf-8")
    return Project(project.paths)


def assert_found(finding: Finding, status: str, what: str, remedy: str = "") -> None:
    assert str(finding.status) == status, finding
    assert what in finding.what
    assert remedy in finding.remedy
    assert bool(finding.remedy) == (status != "ok")
    json.dumps(dict(finding.facts))


def test_code_of_another_checkout_is_trouble(project: Project) -> None:
    assert_found(versions.code(project), "ok", "lora-compare 0.")
    (project.paths.root / "src" / "lora_compare").mkdir(parents=True)
    assert_found(versions.code(project), "trouble", "not this project's", "make setup")


def test_a_package_in_another_version_and_one_that_is_missing(project: Project) -> None:
    lock = project.paths.root / "requirements.lock"
    assert_found(versions.lock(project), "warning", "no requirements.lock", "git checkout")
    import numpy

    lock.write_text(f"# comment\nnumpy=={numpy.__version__}\ncolorama==1 ; sys_platform == 'win32'")
    assert_found(versions.lock(project), "ok", "all 1 packages")
    lock.write_text("numpy==0.0.1\ntorch==2.13.0\n")  # torch's build is no other version
    finding = versions.lock(project)
    assert_found(finding, "warning", "(locked 0.0.1)", "make setup")
    assert [*finding.facts["other"]] == ["numpy"]
    lock.write_text("no-such-package==1\n")
    assert_found(versions.lock(project), "trouble", "not installed: no-such-package", "make setup")


def test_the_lock_files_of_this_project_are_read_whole() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if line[0] not in "#-"}
    finding = versions.lock(Project(Paths(ROOT)))
    # All but what another system or version of Python needs.
    assert len(pinned) - 20 < finding.facts["packages"] <= len(pinned)


def test_more_threads_than_cores_are_a_warning(project: Project) -> None:
    few = edited(project, "epochs: 2", "epochs: 2, threads: 1")
    assert_found(devices.processor(few), "ok", "1 thread to train with")
    many = edited(project, "threads: 1", "threads: 4096")
    assert_found(devices.processor(many), "warning", "4096 threads", "training.threads")


def test_a_containers_share_of_the_processors_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(devices, "QUOTA", quota)
    there = devices.cores()
    shares = {"max 100000": there, "50000 100000": 1, "900000000 100000": there}
    for text, expected in shares.items():
        quota.write_text(text)
        assert devices.cores() == expected


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU here")
def test_a_device_that_is_not_there_is_trouble(project: Project) -> None:
    assert_found(devices.choice(project), "ok", "cpu in float32")
    assert_found(devices.gpu(project), "ok", "none")
    cuda = edited(project, "epochs: 2", "epochs: 2, device: cuda")
    assert_found(devices.choice(cuda), "trouble", "cuda is not available", "cpu")


@pytest.mark.parametrize(
    ("build", "what", "remedy"),
    [("12.8", "cannot be used", "driver"), (None, "on the CPU alone", "install the CUDA build")],
)
def test_a_gpu_that_cannot_be_used_is_a_warning(
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    build: str | None,
    what: str,
    remedy: str,
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(devices, "NVIDIA", tmp_path)  # as where the driver is loaded
    assert_found(devices.gpu(project), "warning", what, remedy)


def test_a_model_that_memory_cannot_hold_is_trouble(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_found(devices.memory(project), "ok", "full on gpt2-nano needs about 19 MB")
    monkeypatch.setattr(devices, "_memory_of", lambda device: 2 * 10**9)
    large = edited(project, "name: gpt2-nano", "name: gpt2-large")
    assert_found(devices.memory(large), "trouble", "full on gpt2-large needs about 12 GB", "lora")


def test_a_compiler_that_is_missing_is_trouble(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_found(devices.extras(project), "ok", "nothing")
    compiled = edited(project, "epochs: 2", "epochs: 2, compile: true")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert_found(devices.extras(compiled), "trouble", "no-such-compiler", "training.compile")
    recorded = edited(project, "compile: true", "compile: true, device: cuda")
    assert_found(devices.extras(recorded), "ok", "nothing")


def test_a_library_that_is_missing_is_trouble(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = edited(project, "name: gpt2-nano", "name: inputs/models/mine")
    assert_found(devices.extras(hub), "ok", "transformers: there")
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    missing = devices.extras(hub)
    assert_found(missing, "trouble", "inputs/models/mine needs transformers", '-e ".[hub]"')


def test_a_tokenizer_that_is_not_cached(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tokenizer"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    assert_found(models.tokenizer(project), "ok", "not needed")
    small = edited(project, "name: gpt2-nano", "name: gpt2-small")
    assert_found(models.tokenizer(small), "warning", f"missing in {folder}", "TIKTOKEN_CACHE_DIR")
    folder.mkdir()
    for url in GPT2_FILES:
        (folder / cached_name(url)).write_text("something else")
    finding = models.tokenizer(small)
    assert_found(finding, "warning", "damaged", "TIKTOKEN_CACHE_DIR")
    assert len(finding.facts["damaged"]) == 2
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(project.paths.params / "no folder"))
    assert_found(models.tokenizer(small), "trouble", "cannot be written", "TIKTOKEN_CACHE_DIR")


@pytest.mark.real_data
def test_the_real_tokenizer_is_found(
    project: Project, assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(assets / "tiktoken_cache"))
    small = edited(project, "name: gpt2-nano", "name: gpt2-small")
    assert_found(models.tokenizer(small), "ok", "tiktoken_cache")


def test_a_checkpoint_that_is_not_cached(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from lora_compare.models.gpt.checkpoints import CHECKPOINTS, cached_path

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert_found(models.checkpoint(project), "ok", "not needed")
    small = edited(project, "name: gpt2-nano", "name: gpt2-small")
    assert_found(models.checkpoint(small), "warning", "(548 MB)", "HF_HOME")
    path = cached_path(CHECKPOINTS["gpt2-small"])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"short")
    assert_found(models.checkpoint(small), "warning", "damaged (5 bytes)", "HF_HOME")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_found(models.checkpoint(small), "trouble", "HF_HUB_OFFLINE", "HF_HOME")
    os.truncate(path, 548_105_171)  # a hole: it takes no room
    assert_found(models.checkpoint(small), "ok", "gpt2-small (548 MB) is in")


def test_mistakes_in_the_parameters_are_told_by_one_check_alone(project: Project) -> None:
    wrong = edited(project, "epochs: 2", "epochs: 2, epohcs: 3, compile: 7")
    finding = state.params(wrong)
    assert_found(finding, "trouble", "training.epohcs: unknown key", "correct params.yaml")
    assert len(finding.facts["mistakes"]) == 2
    from lora_compare.cli.doctor import examine

    found = {c.name: c.finding for c in examine(wrong.paths, checks={"x": [*CHECKS["device"]]})}
    assert_found(found["memory"], "warning", "depends on params.yaml")
    assert "lora-compare" not in found["memory"].what


def test_a_project_without_dvc_and_git(project: Project) -> None:
    assert_found(storage.dvc_cache(project), "trouble", "DVC does not say", "dvc init")
    assert_found(state.pipeline(project), "trouble", "DVC cannot read", "dvc status")
    assert_found(state.git(project), "warning", "no git", "git init")
    (project.paths.root / "dvc.yaml").unlink()
    assert_found(state.pipeline(project), "trouble", "no dvc.yaml", "project's folder")


def test_an_artifact_whose_method_is_gone_is_named(project: Project) -> None:
    file = project.paths.root / "dvc.yaml"
    file.write_text("artifacts: {full: {path: models/full}, old: {path: models/old}}\n")
    assert_found(state.artifacts(project), "warning", "models/old", "dvc.yaml")
    file.write_text("artifacts: {full: {path: models/full}}\n")
    finding = state.artifacts(project)
    assert_found(finding, "ok", "without a name")
    assert "models/lora" in finding.facts["without_name"]
    shutil.copyfile(ROOT / "dvc.yaml", file)
    assert_found(state.artifacts(project), "ok", "every model")


@pytest.fixture
def known(project: Project) -> Project:
    """The project in git and DVC, with a pipeline of one stage."""
    root = project.paths.root
    (root / "dvc.yaml").write_text("stages: {one: {cmd: echo > out, outs: [out]}}")
    commit(root, "start", init=True)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--quiet"], cwd=root, check=True)
    return project


@pytest.mark.slow
def test_the_state_of_the_pipeline_and_of_git(known: Project) -> None:
    root = known.paths.root
    assert_found(storage.dvc_cache(known), "ok", "holds 0")
    assert_found(state.pipeline(known), "warning", "has not run yet", "dvc repro")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=root, check=True)
    assert_found(state.pipeline(known), "ok", "up to date")
    (root / "out").write_text("another")
    assert_found(state.pipeline(known), "warning", "out of date: one", "dvc repro")
    assert_found(state.git(known), "ok", "main at ")
    lock = root / ".git" / "index.lock"
    lock.touch()
    assert_found(state.git(known), "ok", "main at ")  # a git command may be at work
    os.utime(lock, (time.time() - 3600,) * 2)
    assert_found(state.git(known), "trouble", "index.lock", "rm ")


@pytest.mark.slow
def test_the_lock_of_a_run_is_no_trouble_and_never_to_be_deleted(known: Project) -> None:
    root = known.paths.root
    wait = "while [ ! -e go ]; do sleep 0.1; done; echo > out"
    (root / "dvc.yaml").write_text(f"stages: {{one: {{cmd: '{wait}', outs: [out]}}}}")
    running = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=root)
    lock = root / ".dvc" / "tmp" / "rwlock"
    try:
        wait_until(lambda: lock.is_file() and str(running.pid) in lock.read_text())
        finding = state.pipeline(known)
        assert_found(finding, "ok", f"DVC is at work here (process {running.pid})")
        assert "rwlock" not in str(finding)
    finally:
        (root / "go").touch()
        assert running.wait(60) == 0
    # Another program has the number of a command that was killed: DVC takes it for the holder.
    with subprocess.Popen(["sleep", "60"]) as other:
        lock.write_text(lock_of(root / "out", other.pid))
        assert_found(state.pipeline(known), "trouble", f"process {other.pid}", "rm .dvc/tmp/rwlock")
        other.kill()


def lock_of(path: Path, pid: int) -> str:
    return json.dumps({"write": {str(path): {"pid": pid, "cmd": "dvc repro"}}, "read": {}})


def test_the_lock_of_a_git_command_that_works_is_no_trouble(known: Project) -> None:
    root = known.paths.root
    lock = root / ".git" / "index.lock"
    lock.touch()
    os.utime(lock, (time.time() - 3600,) * 2)
    command = ["git", "hash-object", "--stdin"]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE):
        assert_found(state.git(known), "ok", "main at ")
    assert_found(state.git(known), "trouble", "index.lock", "rm ")


def test_a_training_that_was_cut_off_and_one_that_runs(project: Project) -> None:
    import torch

    from lora_compare.models.weights import save_state
    from lora_compare.project.files import canonical_json
    from lora_compare.training.resume import HEAD

    assert_found(state.training(project), "ok", "none")
    path = project.paths.checkpoints("finetune@lora") / "seed-1-0123.safetensors"
    head = {"facts": {}, "step": 40, "figures": {}}
    save_state(path, {"w": torch.zeros(1)}, {HEAD: canonical_json(head)})
    finding = state.training(project)
    assert_found(finding, "warning", "finetune@lora seed-1 after step 40", "dvc repro")
    path.write_bytes(b"damaged")
    assert_found(
        state.training(project), "warning", "finetune@lora seed-1 (damaged", "rm -r .checkpoints"
    )
    pid = project.paths.checkpoints() / "finetune@lora.pid"
    pid.write_text(str(2**22 + 1))  # Linux gives no process so high a number
    assert_found(state.locks(project), "ok", "none is held")
    # The number of a process that lives proves nothing: it comes along with a copied folder.
    pid.write_text(str(os.getpid()))
    pid.with_suffix(".lock").touch()
    assert_found(state.locks(project), "ok", "none is held")
    with only_writer(project.paths.writer("finetune@lora"), "finetune@lora"):
        assert_found(state.training(project), "ok", "none")
        assert_found(state.locks(project), "ok", f"finetune@lora (process {os.getpid()})")


def test_runs_that_wait_for_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_tracking_settings: None
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", REFUSING)
    tracked = TrackedProject(tmp_path)
    project = Project(tracked.paths)
    assert_found(state.mailbox(project), "ok", "no run waits")
    tracked.log("split")
    assert_found(state.mailbox(project), "warning", "split", "lora-compare sync")


def test_the_local_store(
    project: Project, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_found(state.server(project), "ok", "which the first run makes")
    database = project.paths.root / "mlflow.db"
    assert not database.exists()  # the doctor makes nothing
    shutil.copyfile(empty_store, database)
    before = database.read_bytes()
    assert_found(state.server(project), "ok", "answers and takes runs")
    assert database.read_bytes() == before
    with sqlite3.connect(database) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        finding = state.server(project)
        assert_found(finding, "warning", "database is locked", "wait until the process")
        assert "move it away" not in finding.remedy
    writer.close()
    database.write_bytes(b"no database at all, but something long enough to be read" * 100)
    assert_found(state.server(project), "trouble", "not a database", "lora-compare sync")
    monkeypatch.setenv("LORA_COMPARE_TRACKING", "off")
    assert_found(state.server(project), "warning", "off", "LORA_COMPARE_TRACKING")


def test_a_server_that_refuses_or_fails(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", REFUSING.replace("//", "//me:secret@"))
    finding = state.server(project)
    assert_found(finding, "trouble", "127.0.0.1", "start the server")
    assert "secret" not in repr(finding)
    with serving(Answer) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        finding = state.server(project)
    assert_found(finding, "trouble", "status 500", "MLFLOW_TRACKING_URI")
    assert "secret" not in repr(finding)


def test_every_folder_of_the_pipeline_may_be_written_to(project: Project) -> None:
    # That one may not: tests/faults/test_disk.py, by a user to whom modes apply.
    assert_found(storage.folders(project), "ok", "may be written")


def test_the_room_that_a_whole_run_takes(project: Project) -> None:
    finding = storage.space(project)
    assert_found(finding, "ok", "a whole run adds about")
    (small,) = finding.facts["disks"]
    large = edited(project, "name: gpt2-nano", "name: gpt2-xl")
    needed = sum(d["estimated_bytes"] for d in storage.space(large).facts["disks"])
    assert small["estimated_bytes"] < 10**8 < 30 * 10**9 < needed < 60 * 10**9


METHODS = {
    "all": {"trainable": "all"},
    "head": {"trainable": "head"},
    "last_block": {"trainable": "last_block"},
    "last_two_blocks": {"trainable": "last_two_blocks"},
    "lora": {
        "trainable": "lora",
        "lora": {
            "r": 16,
            "lora_alpha": 16,
            "lora_dropout": 0.0,
            "target_modules": "all-linear",
            "bias": "none",
        },
    },
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["gpt2-nano", "inputs/models/bert"])
def test_sizes_are_those_of_the_models(kind: str, name: str, tmp_path: Path) -> None:
    params = load_params(ROOT / "recipes" / "default.yaml")
    method = MethodParams(**METHODS[name], learning_rate=0.001, weight_decay=0.0)
    model = params.model.model_copy(update={"name": kind, "weights": "random"})
    params = params.model_copy(update={"model": model, "methods": {name: method}})
    if model.kind == "folder":
        make_model(tmp_path / kind, "bert")
    found = sizes.count(params, tmp_path)
    assert found is not None
    base = make_base(model, ["some text", "and more"], torch.device("cpu"), root=tmp_path)
    # The vocabulary of gpt2-nano is what its texts give, here less than it may be.
    lacking = 0
    if model.kind == "gpt":
        lacking = (model.pretraining.vocabulary_size - base.network.config.vocab_size) * base.width
    assert found.parameters == base.description["parameters"] + lacking
    assert found.width == base.width
    classifier = base.new_classifier(sizes.CLASSES, params.classifier, seed=1)
    choose_trainable(classifier, Trained.of(method), seed=1)
    trained = lora.count(classifier).trainable
    assert found.trained[name] == trained + (lacking if name == "all" else 0)


def test_the_files_of_a_model_of_transformers(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine = edited(project, "name: gpt2-nano", "name: inputs/models/mine")
    assert_found(models.checkpoint(mine), "trouble", "There is no folder of that model.", "put the")
    folder = make_model(project.paths.root / "inputs" / "models" / "mine", "bert")
    assert_found(models.checkpoint(mine), "ok", "inputs/models/mine (")
    assert_found(models.tokenizer(mine), "ok", "which brings its own")
    assert_found(devices.memory(mine), "ok", "on inputs/models/mine needs about")
    assert_found(devices.choice(mine), "ok", "cpu in float32")
    (disk,) = storage.space(mine).facts["disks"]
    assert disk["estimated_bytes"] > storage.BESIDE
    (folder / "model.safetensors").unlink()
    assert_found(models.checkpoint(mine), "trouble", "The model has no weights.", "save_pretrained")
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    assert_found(models.checkpoint(mine), "trouble", "needs transformers", "[hub]")


def test_a_model_on_the_hub_that_is_not_cached(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    commit_ = "a" * 40
    there = edited(project, "name: gpt2-nano", f"name: me/mine, revision: {commit_}")
    assert_found(models.checkpoint(there), "warning", "me/mine is not in", "HF_HOME")
    assert_found(devices.memory(there), "ok", "is known when base_model has fetched it")
    assert_found(devices.choice(there), "ok", "cpu in float32")
    assert_found(storage.space(there), "ok", "a whole run adds about")
    make_model(tmp_path / "hub" / "models--me--mine" / "snapshots" / commit_, "bert")
    assert_found(models.checkpoint(Project(project.paths)), "ok", "me/mine (")
    moving = edited(project, f"revision: {commit_}", "revision: main")
    assert_found(models.checkpoint(moving), "warning", "another commit", "model.revision")
