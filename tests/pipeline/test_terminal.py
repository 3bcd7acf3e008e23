"""The command lora-compare as people and scripts meet it: help, JSON, completion, the doctor."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from lora_compare.cli import LINES, main
from lora_compare.cli.doctor import examine
from lora_compare.cli.doctor.findings import Finding, Project, ok
from lora_compare.params import read_yaml
from lora_compare.project.lineage import Pipeline
from lora_compare.project.paths import Paths
from mlflow_servers import REFUSING
from tracked_project import write_project

HEAVY = {"torch", "mlflow", "pandas", "sklearn", "rich", "pydantic"}
TELLING = ("what", "where", "expected", "actual", "kept", "next")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments])


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A project with the files of every stage, seen from its folder."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "LORA_COMPARE_"))]:
        monkeypatch.delenv(name)
    paths, params = write_project(tmp_path)
    settings = read_yaml(paths.params)
    for key, value in Pipeline(paths, params).defaults().items():
        section, _, name = key.rpartition(".")
        (settings.setdefault(section, {}) if section else settings)[name] = value
    with paths.params.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(settings, file)
    return paths


def test_settings_that_dvc_would_miss_are_named_with_their_values(project: Paths) -> None:
    assert run("check").exit_code == 0
    settings = project.params.read_text(encoding="utf-8")
    assert "prior: null" in settings
    project.params.write_text(re.sub(r"prior: null,? ?", "", settings), encoding="utf-8")
    checked = run("check")
    assert checked.exit_code == 2
    assert "expected: data.prior: null" in checked.output


@pytest.mark.parametrize("name", LINES)
def test_every_command_has_json_quiet_and_an_example(name: str) -> None:
    options = {option for p in command(name).params for option in p.opts}
    assert {"--json", "--quiet"} <= options
    assert f"lora-compare {name}" in (command(name).help or "")
    shown = run("help", name)
    assert shown.exit_code == 0
    assert shown.output == run(name, "--help").output


def test_help_loads_nothing_that_takes_time() -> None:
    script = "import sys, lora_compare.cli as c\ntry: c.main()\nfinally: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True
    )
    assert "Look at results" in done.stdout
    assert not HEAVY & {*done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize("name", sorted({*LINES} - {"completion", "classify", "import", "export"}))
def test_a_mistake_is_json_where_that_was_asked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(name, "--json")
    if name == "doctor":  # finds the same trouble, and goes on
        assert result.exit_code == 1
        return
    assert result.exit_code == 2, result.output
    error = json.loads(result.stdout)["error"]
    assert error["kind"]
    assert {*TELLING} <= {*error}
    assert error["what"]
    assert error["next"]


def test_a_wrong_call_is_json_too_and_names_what_is_near() -> None:
    result = run("check", "--json", "--no-such-option")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["kind"] == "UsageError"
    unknown = run("sumary")
    assert unknown.exit_code == 2
    assert "Is it summary?" in unknown.output


def test_json_stands_alone_on_standard_output(project: Paths) -> None:
    checked = json.loads(run("check", "--json").stdout)
    assert checked["valid"]
    assert checked["methods"] == {"full": "all", "lora": "lora"}
    published = json.loads(run("sync", "--json").stdout)
    assert len(published["published"]) == 8
    again = json.loads(run("sync", "--json").stdout)
    assert (again["published"], len(again["already_there"])) == ([], 8)


@pytest.mark.slow
def test_quiet_prints_nothing_around_the_result(project: Paths) -> None:
    assert run("check").stdout
    assert run("check", "--quiet").stdout == ""
    assert run("sync", "--quiet").stdout == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_and_how_to_install_it(shell: str) -> None:
    result = run("completion", shell)
    assert "_LORA_COMPARE_COMPLETE" in result.output
    assert f"lora-compare completion {shell}" in result.output.splitlines()[-1]


def test_the_shell_completes_commands_and_methods(
    project: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def completed(words: str, place: int) -> str:
        variables = {
            "_LORA_COMPARE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(place),
        }
        script = "from lora_compare.cli import main; main(prog_name='lora-compare')"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
        )
        return done.stdout

    assert "plain,summary" in completed("lora-compare su", 1)
    assert completed("lora-compare classify --method l", 3).split() == ["plain,lora"]


def test_the_doctor_names_a_remedy_for_every_trouble(
    project: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", REFUSING)
    text = project.params.read_text()
    project.params.write_text(text.replace("epochs: 2", "epochs: 2, epohcs: 3"))
    (project.root / "requirements.lock").write_text("numpy==0.0.1\n")
    result = run("doctor", "--json")
    assert result.exit_code == 1
    checks = json.loads(result.stdout)["checks"]
    found = {check["check"]: check for check in checks}
    assert found["params"]["status"] == "trouble"
    assert found["lock"]["status"] != "ok"
    assert "numpy" in found["lock"]["what"]
    for check in checks:
        assert check["status"] == "ok" or check["remedy"], check
    for check in found.values():
        if check["status"] == "trouble":
            assert check["remedy"]


def test_a_check_that_fails_itself_keeps_no_other_from_its_work(project: Paths) -> None:
    def broken(project: Project) -> Finding:
        raise ZeroDivisionError("of all things")

    def well(project: Project) -> Finding:
        return ok("fine")

    first, second = examine(project, checks={"a": (broken, well)})
    assert str(first.finding.status) == "trouble"
    assert "ZeroDivisionError: of all things" in first.finding.what
    assert first.finding.remedy
    assert str(second.finding.status) == "ok"
