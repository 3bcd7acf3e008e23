"""Progress: a bar on a terminal, lines when piped, nothing when quiet."""

import io

import pytest
from rich.console import Console

from lora_compare.progress import Progress


def run(progress: Progress) -> None:
    progress.say("start [bold]x[/bold]")
    with progress.task("train", 3) as advance:
        for _ in range(3):
            advance(1, "loss 0.5")


def test_piped_output_is_plain_lines() -> None:
    stream = io.StringIO()
    run(Progress(console=Console(file=stream)))
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().splitlines()[0] == "start [bold]x[/bold]"
    assert stream.getvalue().splitlines()[-1] == "train: 3/3 in 0 s loss 0.5"


def test_a_terminal_gets_a_bar() -> None:
    stream = io.StringIO()
    run(Progress(console=Console(file=stream, force_terminal=True, width=100)))
    assert "━" in stream.getvalue()
    assert "3/3" in stream.getvalue()


def test_quiet_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    run(Progress(quiet=True, console=Console(file=stream)))
    monkeypatch.setenv("LORA_COMPARE_QUIET", "1")
    run(Progress(console=Console(file=stream)))
    assert stream.getvalue() == ""
