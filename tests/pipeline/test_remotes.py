"""Results shared through a DVC remote: what a colleague's clone gets, and versions of a model."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dvc_runs import dvc, ran, run
from lora_compare.params import read_yaml
from small_project import commit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "NO_PROXY": "127.0.0.1",
}
AUTHOR = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "tests"), ("EMAIL", "tests@example.com"))
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, results: Path) -> Path:
    """A project whose results are in a remote that is a folder."""
    folder = tmp_path_factory.mktemp("remotes")
    shutil.copytree(results, folder / "project", symlinks=True)
    dvc(folder / "project", "remote", "add", "--default", "storage", str(folder / "storage"))
    commit(folder / "project", "a place for results")
    dvc(folder / "project", "push")
    return folder / "project"


def lora_compare(folder: Path, *arguments: str) -> str:
    code = "from lora_compare.cli import main; main()"
    return run(folder, sys.executable, "-c", code, *arguments)


def clone(project: Path, folder: Path) -> Path:
    subprocess.run(["git", "clone", "-q", str(project), str(folder)], check=True)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Every file of the results."""
    found = (
        p for name in ("data", "models", "reports", "metrics") for p in (folder / name).rglob("*")
    )
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found if p.is_file()}


def check(colleague: Path, project: Path) -> None:
    """Check that a clone has everything, that nothing would run, and that MLflow shows it all."""
    assert not [name for name in (".checkpoints", ".tracking") if (colleague / name).exists()]
    assert files(colleague) == files(project)
    beside = {"models/lora/SHA256SUMS", "reports/training/lora/provenance.json"}
    assert beside <= {*files(colleague)}
    text = "inputs/text/messages.csv"
    assert (colleague / text).read_bytes() == (project / text).read_bytes()
    for page in (colleague / "reports" / "comparison").glob("comparison.*"):
        page.unlink()
    lora_compare(colleague, "report")
    assert files(colleague) == files(project)
    assert "up to date" in dvc(colleague, "status")
    assert ran(dvc(colleague, "repro")) == []
    assert "all as DVC recorded them" in lora_compare(colleague, "repair")
    assert "out of date" not in lora_compare(colleague, "summary")
    lora_compare(colleague, "sync")
    with sqlite3.connect(colleague / "mlflow.db") as store:
        names = [name.split()[0] for (name,) in store.execute("select name from runs")]
    others = ["base_model", "baseline", "compare", "download", "full", "lora", "split"]
    assert sorted(names) == sorted([*others, "pipeline"])


def test_a_colleagues_clone_pulls_every_result_and_runs_nothing(
    project: Path, tmp_path: Path
) -> None:
    colleague = clone(project, tmp_path / "clone")
    # Metrics come with git.
    assert {f"metrics/{name}.json" for name in ("summary", "full", "lora_cost")} <= {
        *files(colleague)
    }
    assert not [path for path in files(colleague) if not path.startswith("metrics/")]
    dvc(colleague, "pull")
    check(colleague, project)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an S3 server on loopback that has the bucket `results`."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="results")
    yield address
    server.stop()


def test_a_bucket_is_as_good_as_a_folder(
    results: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    project = tmp_path / "project"
    shutil.copytree(results, project, symlinks=True)
    dvc(project, "remote", "add", "--default", "storage", "s3://results/lora-compare")
    # Where the server is concerns this machine alone: git does not see it.
    dvc(project, "remote", "modify", "--local", "storage", "endpointurl", bucket)
    commit(project, "a bucket for results")
    dvc(project, "push")
    colleague = clone(project, tmp_path / "clone")
    dvc(colleague, "remote", "modify", "--local", "storage", "endpointurl", bucket)
    dvc(colleague, "pull")
    check(colleague, project)


def contents(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_version_of_a_model_is_a_tag_to_get_it_by(project: Path, tmp_path: Path) -> None:
    folder = clone(project, tmp_path / "clone")
    gto = str(Path(sys.executable).with_name("gto"))
    run(folder, gto, "register", "lora", "--version", "v1.0.0", **AUTHOR)
    run(folder, gto, "assign", "lora", "--version", "v1.0.0", "--stage", "production", **AUTHOR)
    tags = subprocess.check_output(["git", "tag"], cwd=folder, text=True).split()
    assert tags == ["lora#production#1", "lora@v1.0.0"]
    shown = json.loads(run(folder, gto, "show", "--json"))
    assert shown["lora"]["version"] == "v1.0.0"
    # A later commit has another model; the version stays.
    shutil.rmtree(folder / "metrics")
    commit(folder, "later")
    for number, which in enumerate((["--rev", "v1.0.0"], ["--stage", "production"])):
        target = tmp_path / f"model {number}"
        dvc(tmp_path, "artifacts", "get", str(folder), "lora", *which, "--out", str(target))
        assert contents(target) == contents(project / "models" / "lora")


def test_a_removed_and_a_renamed_method_leave_nothing(results: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(results, project, symlinks=True)
    params = project / "params.yaml"
    text = params.read_text()
    before, full = text.split("  full:\n")[0], text.split("\n  lora:\n")[1]
    params.write_text(f"{before}  renamed:\n{full}")
    output = dvc(project, "repro", LORA_COMPARE_TRACKING="off")
    own = ["tune@renamed", "finetune@renamed", "evaluate@renamed"]
    assert ran(output) == [*own, "compare"]
    for place in ("models/full", "metrics/lora_cost.json", "reports/tuning/lora"):
        assert f"removed {place}: no method of params.yaml" in output
    stages = read_yaml(project / "dvc.lock")["stages"]
    assert [name for name in stages if "@" in name] == own
    parts = {part for name in files(project) for part in Path(name).parts}
    assert "renamed_cost.json" in parts
    assert not {"full", "lora", "full.json", "lora.json", "full_cost.json"} & parts
    assert ">full<" not in (project / "reports/comparison/comparison.html").read_text()

    dvc(project, "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    commit(project, "a renamed method")
    dvc(project, "push")
    colleague = clone(project, tmp_path / "colleague")
    dvc(colleague, "pull")
    assert "up to date" in dvc(colleague, "status")
    assert files(colleague) == files(project)

    # The methods that were taken out come back without a training.
    params.write_text(text)
    assert ran(dvc(project, "repro", LORA_COMPARE_TRACKING="off")) in ([], ["compare"])
