"""Ctrl-C and SIGTERM: an end with what was done kept, not a fall."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end.

    Args:
        signum: The signal's number.
        kept: What was kept, and how to go on.

    Attributes:
        signum: The signal's number; the exit code is 128 more.
    """

    def __init__(self, signum: int, kept: str = "") -> None:
        super().__init__(kept)
        self.signum = signum


class _Pending:
    """A signal that waits for the end of a step; signals belong to the process, and so does this.

    Attributes:
        deferred: Whether a first signal waits.
        signum: The signal that waits; None: none does.
    """

    def __init__(self) -> None:
        self.deferred = False
        self.signum: int | None = None


_PENDING = _Pending()


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Interrupted` in the block, which the main thread runs."""
    before = {number: signal.signal(number, _arrive) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _arrive(signum: int, _: FrameType | None) -> None:
    if _PENDING.deferred and _PENDING.signum is None:
        _PENDING.signum = signum
        return
    raise Interrupted(signum)


@contextmanager
def deferred() -> Iterator[None]:
    """Let a first signal wait until the block asks `pending`, or ends; a second does not wait.

    Raises:
        Interrupted: At the block's end, where the signal still waits.
    """
    _PENDING.deferred, _PENDING.signum = True, None
    try:
        yield
    finally:
        _PENDING.deferred = False
    if _PENDING.signum is not None:
        raise Interrupted(_PENDING.signum)


def request() -> None:
    """Take note of a wish to end that does not come as a signal, as of a first SIGTERM.

    Raises:
        Interrupted: Nothing defers it.
    """
    if pending() is None:
        _arrive(signal.SIGTERM, None)


def pending() -> int | None:
    """Return the number of the signal that waits, or None."""
    return _PENDING.signum if _PENDING.deferred else None
