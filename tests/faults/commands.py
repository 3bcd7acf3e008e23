"""The pipeline's commands in a small project, and what a refusal must leave as it was."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lora_compare import cli
from small_project import ROOT, small_params
from small_project import run as run_stage

Files = dict[str, bytes]


def write_project(folder: Path, source: str, content: bytes, **edits: str) -> Path:
    """Write params.yaml, and one source file below inputs, into `folder`.

    Args:
        folder: Where to write.
        source: The file's name.
        content: Its bytes.
        edits: Other values of settings whose keys stand once in params.yaml.
    """
    text = small_params(
        **{
            "source": f"inputs/text/{source}",
            "text_column": "text",
            "label_column": "label",
            **edits,
        }
    )
    (folder / "inputs" / "text").mkdir(parents=True, exist_ok=True)
    (folder / "inputs" / "text" / source).write_bytes(content)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return folder


def run(folder: Path, command: str, *arguments: str) -> Result:
    """Return how a stage, or a command of lora-compare, ended in `folder`; nothing is tracked."""
    is_stage = (ROOT / "stages" / f"{command}.py").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LORA_COMPARE_TRACKING", "off")
        if is_stage:
            return run_stage(command, *arguments)
        return CliRunner().invoke(cli.main, [command, *arguments])


def succeed(folder: Path, command: str, *arguments: str) -> str:
    """Return what a command printed, which must end well."""
    result = run(folder, command, *arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def refusal(folder: Path, command: str, *arguments: str) -> str:
    """Return the message with which a command refuses; it must have changed no file."""
    before = files_of(folder)
    result = run(folder, command, *arguments)
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    assert "next:" in result.output
    assert files_of(folder) == before
    return result.output


def files_of(folder: Path) -> Files:
    """Return every file below `folder`, hidden ones too but for locks, with its bytes."""
    paths = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    paths = [path for path in paths if path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def download(folder: Path, name: str, content: str | bytes, **edits: str) -> str:
    """Return the message with which the stage download refuses a file."""
    encoded = content.encode() if isinstance(content, str) else content
    write_project(folder, name, encoded, **edits)
    return refusal(folder, "download")
