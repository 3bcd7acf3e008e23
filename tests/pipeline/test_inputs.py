"""What lies in inputs/ or behind an address, and what DVC makes of it."""

import subprocess
import sys
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from dvc_runs import PATH, dvc, ran
from small_project import copy_project, environment, write_messages
from web import asked, serve, whole


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "project")


def refusal(project: Path, *command: str) -> str:
    """Return what a command printed that must refuse."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env=environment(PATH=PATH, LORA_COMPARE_TRACKING="off"),
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def set_source(project: Path, source: str) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("inputs/text/messages.csv", source))


def repro(project: Path) -> list[str]:
    """Return what `dvc repro download` ran."""
    return ran(dvc(project, "repro", "download", LORA_COMPARE_TRACKING="off"))


@pytest.mark.slow
def test_a_file_outside_inputs_is_refused_by_check_and_by_the_stage(project: Path) -> None:
    write_messages(project / "mine" / "x.csv")
    set_source(project, "mine/x.csv")
    for command in (["lora_compare", "check"], ["dvc", "repro", "download"]):
        message = refusal(project, *command)
        assert "error: DVC would not see a change of mine/x.csv" in message
        assert "data.source: inputs/text/x.csv in params.yaml" in message


@pytest.mark.slow
def test_dvc_sees_the_file_behind_a_link(project: Path, tmp_path: Path) -> None:
    elsewhere, link = tmp_path / "elsewhere.csv", project / "inputs" / "text" / "link.csv"
    write_messages(elsewhere)
    link.symlink_to(elsewhere)
    set_source(project, "inputs/text/link.csv")
    assert repro(project) == ["download"]
    assert repro(project) == []
    write_messages(elsewhere, per_class=61)
    assert repro(project) == ["download"]
    link.unlink()
    folder = project / "inputs" / "text" / "folder"
    folder.symlink_to(tmp_path)
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("text/link.csv", "text/folder/elsewhere.csv"))
    message = refusal(project, "dvc", "repro", "download")
    assert f"actual:   {folder} is a link to a folder" in message


@pytest.mark.slow
def test_what_an_address_gave_outlives_the_network_and_every_new_file(project: Path) -> None:
    content = (project / "inputs" / "text" / "messages.csv").read_bytes()
    new, raw = project / "inputs" / "text" / "new.csv", project / "data" / "raw"
    with HTTPServer(host="127.0.0.1") as server:
        serve(server, "/a.csv", whole(content))
        set_source(project, server.url_for("/a.csv"))
        assert repro(project) == ["download"]
        first = {file.name: file.read_bytes() for file in raw.iterdir()}
        new.write_text("a,b\n")
        output = dvc(project, "repro", "download", LORA_COMPARE_TRACKING="off")
        assert "the copy is used that was downloaded before" in output
        assert asked(server) == ["/a.csv"]
        dvc(project, "repro", "--force", "download", LORA_COMPARE_TRACKING="off")
        assert asked(server) == ["/a.csv"] * 2
    new.unlink()  # the server is gone
    new.with_name("newer.csv").write_text("a,b\n")
    assert repro(project) == ["download"]
    forced = dvc(project, "repro", "--force", "download", LORA_COMPARE_TRACKING="off")
    assert "no answer" in forced
    assert "warning: so the copy is used that was downloaded before" in forced
    assert {file.name: file.read_bytes() for file in raw.iterdir()} == first

    (copy,) = (project / ".downloads").rglob("file.csv")
    copy.write_bytes(content.replace(b"WINNER", b"LOSERS"))
    new.write_text("a,b\n")
    message = refusal(project, "dvc", "repro", "download")
    assert "kept:     earlier messages: dvc checkout data/raw brings back" in message
    assert not raw.exists()
    dvc(project, "checkout", "data/raw")
    assert {file.name: file.read_bytes() for file in raw.iterdir()} == first
