"""Progress: a bar on a terminal, lines when piped, nothing when quiet."""

import io
import re
from functools import partial

import pytest
from rich.console import Console

from lora_compare.project.progress import Message, Progress, Relay, part_of


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


def test_what_goes_on_side_by_side_has_a_line_each_on_a_terminal() -> None:
    stream = io.StringIO()
    progress = Progress(console=Console(file=stream, force_terminal=True, width=100))
    with progress.board() as hear:
        relays = [Relay(partial(hear, number)) for number in (0, 1)]
        with relays[0].task("seed 1", 3) as first, relays[1].task("seed 2", 3) as second:
            first(3, "loss 0.1")
            second(3, "loss 0.2")
            relays[1].say("done")
    last = stream.getvalue().rpartition("done")[2]
    assert re.search(r"seed 1.*3/3.*loss 0.1", last)
    assert re.search(r"seed 2.*3/3.*loss 0.2", last)


def test_what_several_say_in_the_same_words_is_printed_once() -> None:
    stream = io.StringIO()
    progress = Progress(console=Console(file=stream, width=100))
    with progress.board() as hear:
        for number in (0, 1):
            relay = Relay(partial(hear, number))
            relay.say("3 messages were cut")
            with relay.task(f"seed {number}", 1000) as advance:
                for _ in range(1000):
                    advance(1, "loss 0.1")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "3 messages were cut"
    assert [line.partition(" in ")[0] for line in lines[1:]] == [
        "seed 0: 1000/1000",
        "seed 1: 1000/1000",
    ]


def test_a_relay_tells_of_an_advance_now_and_then() -> None:
    told: list[Message] = []
    with Relay(told.append).task("train", 1000) as advance:
        for _ in range(1000):
            advance(1, "loss 0.1")
    assert told[0] == ("task", "train", 1000)
    assert sum(amount for _, amount, _ in told[1:]) == 1000
    assert len(told) < 100


def test_the_parts_of_a_task_advance_it() -> None:
    amounts: list[float] = []
    part = part_of(lambda amount, note: amounts.append(amount))
    part.say("not heard")
    with part.task("a part", 2) as advance:
        advance(2)
    assert amounts == [2]
