"""The one process of a project that delivers letters to a store, while stages work.

Nothing depends on its living: a letter stays until it is delivered, and the next stage starts
another postman.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Thread

from lora_compare.project.paths import Paths
from lora_compare.tracking.delivery import AfterComparison, Delivery
from lora_compare.tracking.mailbox import Letter, Mailbox, hold, is_held
from lora_compare.tracking.server import Server, first_line, remedy

LOOK_EVERY = 0.1
"""Seconds between two looks into the mailbox."""

LINGER = 5.0
"""Seconds that a postman waits for the next stage, which DVC starts a moment later."""

LEAVE_AFTER = 10.0
"""Seconds after the last stage at which it ends, whatever the store is doing."""

SLOW = 10.0
"""Seconds after which stages are told that a store takes long."""

LONGEST_PAUSE = 30.0
"""Seconds between two attempts on a store that fails."""


def hire(paths: Paths, command: Sequence[str]) -> None:
    """Start a postman for the configured store, where letters are and none delivers them.

    Args:
        paths: The folder that the stage runs in.
        command: What runs one.
    """
    server = Server.configured(paths)
    if server is None or is_held(Mailbox(server.state).lock(server.mark)):
        return
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")}
    # The copy in which DVC runs an experiment, and its modules, are gone before this process is.
    own, project = str(paths.root / "src"), str(paths.project / "src")
    places = environment.get("PYTHONPATH", "").split(os.pathsep)
    environment["PYTHONPATH"] = os.pathsep.join(project if p == own else p for p in places if p)
    process = subprocess.Popen(
        command,
        cwd=server.home,
        env=environment,
        # Whoever waits for the end of this stage's output must not wait for the postman's.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    process.returncode = 0  # nobody waits for it: it outlives this process


def serve(server: Server, prepare: Callable[[], None], after_comparison: AfterComparison) -> None:
    """Deliver the letters of a project to a store until there are none and no stage works.

    Args:
        server: The store.
        prepare: What takes seconds at first, done once it is sure to be needed.
        after_comparison: What follows a comparison that is shown.
    """
    mailbox = Mailbox(server.state)
    postman = Postman(server, Delivery(server, after_comparison))
    while mailbox.folder.is_dir() and (lock := hold(mailbox.lock(server.mark))) is not None:
        go = partial(leave_unless_needed, postman, lock)
        Thread(target=watch, args=(postman, go), daemon=True).start()
        prepare()
        postman.work()
        os.close(lock)
        # A stage that found the lock held has left its letter to this postman.
        if not postman.has_work():
            return


def leave() -> None:
    """End the process: what MLflow's libraries do at the end takes a while, for nothing here."""
    os._exit(0)


def leave_unless_needed(postman: "Postman", lock: int) -> None:
    """End the process from beside its work, or begin anew if a stage has just relied on it.

    Args:
        postman: The one whose work does not end.
        lock: The lock that it holds.
    """
    os.close(lock)
    if postman.has_work():
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606
    leave()


class Postman:
    """The rounds of a postman.

    Args:
        server: The store.
        delivery: What brings letters there.

    Attributes:
        store: The store's mark.
        mailbox: Where the letters are.
        busy_since: When it began what it is at (monotonic seconds); None: it is at nothing.
    """

    def __init__(self, server: Server, delivery: Delivery) -> None:
        self._server = server
        self._delivery = delivery
        self._failures = 0
        self._next_attempt = 0.0
        self.store = server.mark
        self.mailbox = Mailbox(server.state)
        self.busy_since: float | None = None

    def work(self) -> None:
        """Make rounds until there has been nothing to do for a while."""
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < LINGER:
            self.make_round()
            if self.has_work():
                quiet_since = time.monotonic()
            time.sleep(LOOK_EVERY)

    def has_work(self) -> bool:
        """Return whether a stage works, or has left a letter that was not tried yet."""
        return any(not letter.is_returned for letter in self.addressed())

    def make_round(self) -> None:
        """Deliver what there is; where the store failed, only what is new, or after a pause."""
        letters = [each for each in self.mailbox.letters() if self._may_take(each)]
        closed = [each for each in letters if not each.is_open]
        self._delivery.retain({letter.name for letter in letters})
        is_new = not all(letter.is_returned for letter in closed)
        if time.monotonic() < self._next_attempt and not is_new:
            return
        error = self._deliver(letters)
        self._failures = self._failures + 1 if error else 0
        if error is not None:
            self._next_attempt = time.monotonic() + min(2.0**self._failures, LONGEST_PAUSE)
            for letter in closed:
                letter.give_back()
        elif closed:
            self.mailbox.forget(self.store)

    def _deliver(self, letters: Sequence[Letter]) -> Exception | None:
        """Return the first failure; one letter that is not taken does not keep back the others."""
        failure = None
        for letter in letters:
            self.busy_since = time.monotonic()
            try:
                self._delivery.deliver(letter)
            except Exception as error:
                # Whatever it is: the letter stays, and the stages tell their users.
                self._note(error)
                failure = failure or error
                if not _concerns_one_letter(error):
                    break
            finally:
                self.busy_since = None
        return failure

    def _note(self, error: Exception) -> None:
        known = self.mailbox.trouble(self.store)
        told = bool(known and known["told"] and self._failures)
        self.mailbox.note(self.store, first_line(error), remedy(error), told)

    def _may_take(self, letter: Letter) -> bool:
        if letter.heading.get("store") == self.store:
            return True
        return bool(letter.heading) and letter.is_returned and not letter.is_open

    def addressed(self) -> list[Letter]:
        """Return the letters to this postman's store."""
        return [each for each in self.mailbox.letters() if each.heading.get("store") == self.store]


def _concerns_one_letter(error: Exception) -> bool:
    """Return whether a store works, but takes no such run: the next letter may fare better."""
    status = getattr(error, "get_http_status_code", lambda: 500)()
    return 400 <= status < 500 or isinstance(error, FileNotFoundError)


def watch(postman: Postman, go: Callable[[], None]) -> None:
    """End the process when its project is deleted, or long after the last stage.

    Args:
        postman: The one to watch.
        go: What ends the process, whatever its other threads wait for.
    """
    folder, last_stage = _identity(postman.mailbox.folder), time.monotonic()
    while _identity(postman.mailbox.folder) == folder is not None:
        now = time.monotonic()
        if any(letter.is_written for letter in postman.addressed()):
            last_stage = now
        if now - last_stage > LEAVE_AFTER:
            # The next stage may have another store: these are then for that one.
            for letter in postman.addressed():
                letter.give_back()
            break
        busy = postman.busy_since
        if busy is not None and now - busy > SLOW and not postman.mailbox.trouble(postman.store):
            postman.mailbox.note(postman.store, "it takes too long to answer")
        time.sleep(LOOK_EVERY)
    go()


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from another one that takes its place; None if it is gone."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
