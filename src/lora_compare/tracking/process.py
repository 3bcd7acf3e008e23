"""A process of its own that shows a stage in MLflow while the stage works.

MLflow takes two seconds to import, and a server may take longer to answer; a stage starts that
process first and waits for it only at its own end. What goes there is one JSON object a line:
`{"rows": [...]}` for rows of the history, and at last `{"seconds": ...}` or `{"status": ...}`.
What comes back are lines for the user.
"""

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import TIMEOUT_MAX, Thread, Timer
from typing import Any

from lora_compare.params import load_params
from lora_compare.project.paths import Paths
from lora_compare.project.progress import Progress
from lora_compare.serving.registry import prepare_models
from lora_compare.tracking import LiveRun, live_run, log_stage, remember_outage
from lora_compare.tracking.server import Server
from lora_compare.tracking.store import prepare

COMMAND = "from lora_compare.tracking.process import main; main()"

LONGEST_WAIT = 25.0
"""Seconds that a stage that is done waits for a server: one whose answers drip in byte by byte,
or whose name is being looked up, keeps within every other limit of time."""

COLLECT_AFTER = 20_000
"""Objects made between two searches for garbage. Imports make many and leave no garbage:
Python's own 700 to 2,000 cost a fifth of their time."""


class Tracker:
    """A stage's side: tells the process what to show, and never waits for it.

    Args:
        process: The process; None where tracking is switched off.
    """

    def __init__(self, process: "subprocess.Popen[str] | None") -> None:
        self._process = process
        self._rows: list[Mapping[str, Any]] = []
        # Even a pipe makes its writer wait when it is full.
        self._writer = ThreadPoolExecutor(1)

    def log(self, row: Mapping[str, Any]) -> None:
        """Show a row of the history, together with the others of its epoch when that ends."""
        self._rows.append(row)
        if float(row["epoch"]).is_integer():
            self._send_rows()

    def finish(self, seconds: float) -> None:
        """Show what the stage wrote in `seconds` of work."""
        self._send_rows()
        self._send({"seconds": seconds})

    def fail(self, status: str) -> None:
        """Show that the stage did not end well: `FAILED` or `KILLED`."""
        self._send_rows()
        self._send({"status": status})

    def _send_rows(self) -> None:
        if self._rows:
            self._send({"rows": self._rows})
        self._rows = []

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._process is not None:
            self._writer.submit(self._write, json.dumps(message) + "\n")

    def _write(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has died, of which `tracker` warns
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def close(self) -> None:
        """Say that nothing more comes."""
        self._writer.shutdown()
        if self._process is not None:
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):
                self._process.stdin.close()


@contextmanager
def tracker(
    paths: Paths, stage: str, progress: Progress, method: str | None = None
) -> Iterator[Tracker]:
    """Yield where a stage shows its curves and its end; wait for MLflow when it is left.

    A server gets `LONGEST_WAIT` then, and the stages that follow do not wait for it again.

    Args:
        paths: The project.
        stage: The stage that runs.
        progress: Where to warn.
        method: The method, for `finetune` and `evaluate`.
    """
    server = Server.configured(paths)
    if server is None:
        yield Tracker(None)
        return
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, stage, *([method] if method else [])],
        cwd=paths.root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    reader = Thread(target=_say_all, args=(process.stdout, progress))
    reader.start()
    own = Tracker(process)
    try:
        yield own
    except BaseException as error:
        own.fail("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    finally:
        # A store on this machine is slow at its first start alone, which must not be cut off.
        limit = LONGEST_WAIT if server.database is None else TIMEOUT_MAX
        patience = Timer(limit, process.kill)
        patience.daemon = True
        patience.start()
        own.close()
        reader.join()
        process.stdout.close()
        code = process.wait()
        patience.cancel()
        if code:
            remember_outage(server)
            progress.say(
                f"warning: the process that shows runs in MLflow ended with {code}. Nothing is "
                "lost: results are on disk; to show them: lora-compare sync"
            )


def _say_all(lines: Iterable[str], progress: Progress) -> None:
    for line in lines:
        progress.say(line.rstrip("\n"))


def main() -> None:
    """Do what a `Tracker` says on standard input; its stage's name is the first argument."""
    # Ctrl-C reaches the stage too, which then says how it ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(COLLECT_AFTER)
    stage, method = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    paths = Paths.here()
    serve(paths, stage, method, sys.stdin, Lines())
    # What MLflow's libraries do at the end takes a while, and nothing here needs it.
    sys.stdout.flush()
    os._exit(0)


class Lines(Progress):
    """What this process has to say, a line each to the stage that started it."""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def say(self, text: str) -> None:
        """Send one line."""
        sys.stdout.write(" ".join(text.splitlines()) + "\n")
        sys.stdout.flush()


def serve(
    paths: Paths, stage: str, method: str | None, requests: Iterable[str], progress: Progress
) -> None:
    """Show what `requests` say of a stage, until they say how it ended.

    Args:
        paths: The project.
        stage: The stage.
        method: The method, for `finetune` and `evaluate`.
        requests: The lines that a `Tracker` sends.
        progress: Where to warn.
    """
    params = load_params(paths.params)
    server = Server.configured(paths)
    assert server is not None, "a tracker starts no process then"
    prepare(server, params.tracking.experiment)
    if stage == "compare":
        prepare_models()
    live: LiveRun | None = None
    for message in map(json.loads, requests):
        if "rows" in message:
            assert method is not None, "only a method has a history"
            live = live or live_run(paths, params, method, progress)
            live.log(message["rows"])
        elif "seconds" in message:
            if live is not None:
                live.stop()
            log_stage(paths, params, stage, progress, method, message["seconds"])
            return
        elif live is not None:
            live.end(message["status"])
            return
    if live is not None:  # the stage has died without a word
        live.end("KILLED")
