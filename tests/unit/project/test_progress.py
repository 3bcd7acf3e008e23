"""Progress: a bar on a terminal, lines when piped, nothing when quiet."""

import io
import re

import pytest
from rich.console import Console

from lora_compare.project.progress import Progress


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


def test_a_terminal_that_cannot_write_a_line_anew_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = io.StringIO()
    run(Progress(console=Console(file=stream, force_terminal=True, width=80)))
    assert stream.getvalue().splitlines()[-1] == "train: 3/3 in 0 s loss 0.5"


def test_no_figure_is_cut_off_beside_long_names_on_80_columns() -> None:
    stream = io.StringIO()
    progress = Progress(console=Console(file=stream, force_terminal=True, width=80))
    with progress.task("finetune lora_on_attention_with_rank_16", 12345) as advance:
        advance(12345, "loss 0.0512, validation 97.3 %")
    last = stream.getvalue().split("finetune")[-1]
    assert "12345/12345" in last
    assert len(re.findall(r"\d:\d\d:\d\d", last)) == 2  # gone and to come


def test_quiet_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    run(Progress(quiet=True, console=Console(file=stream)))
    monkeypatch.setenv("LORA_COMPARE_QUIET", "1")
    run(Progress(console=Console(file=stream)))
    assert stream.getvalue() == ""
