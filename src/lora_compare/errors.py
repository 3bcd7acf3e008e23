"""The errors that a user can cause, each saying what to do next and none showing a password."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_USER = re.compile(
    r"""(?<=://)(?:
        [^\s/?\#]*@  # user:password@
        | [^\s/?\#:@\[]*:(?!\d{1,5}(?:[/?\#\s]|$))[^\s@]*@  # the same, a / in the password
    )""",
    re.VERBOSE,
)


def without_credentials(text: str) -> str:
    """Return `text` without the user names and passwords of the addresses in it.

    Also of those that no program accepts: an error that quotes an address must not show more.
    """
    return _USER.sub("", text)


def names_a_host(address: str) -> bool:
    """Return whether host and port of an address can be told.

    Where they cannot, as with a / in the password, libraries quote the password as the port.
    """
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@dataclass
class UserError(Exception):
    """A mistake outside the program: what happened, where, and the way out.

    Attributes:
        what: One sentence that names the mistake.
        where: ``file:line``, a params key, a path or a URL.
        expected: What would have been accepted.
        actual: What was found instead.
        kept: What was left untouched or saved, where that is in doubt.
        next: The command or edit that resolves it.
    """

    what: str
    where: str = ""
    expected: str = ""
    actual: str = ""
    kept: str = ""
    next: str = ""

    def __str__(self) -> str:
        """Return the message as printed: one labelled line per known fact, no password in it."""
        facts = {
            "where": self.where,
            "expected": self.expected,
            "actual": self.actual,
            "kept": self.kept,
            "next": self.next,
        }
        lines = [self.what]
        for name, value in facts.items():
            if value:
                head, *rest = value.splitlines()
                lines.append(f"  {name + ':':<10}{head}")
                lines.extend(" " * 12 + line for line in rest)
        return without_credentials("\n".join(lines))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how it is made anew in another process: exceptions forget what they are named."""
        facts = (self.what, self.where, self.expected, self.actual, self.kept, self.next)
        return type(self), facts


class ParamsError(UserError):
    """params.yaml holds something that the pipeline does not accept."""


class DataError(UserError):
    """The labelled text cannot be used as it is."""


class DownloadError(UserError):
    """A file could not be fetched, or is not the file that was asked for."""


class CheckpointError(UserError):
    """Stored weights do not fit the model that should read them."""


class ExportError(UserError):
    """A method cannot be written in the format, or to the place, that was asked for."""


class TrainingError(UserError):
    """Training had to stop: a loss is not finite, or memory ran out."""


class DivergenceError(TrainingError):
    """The loss of a training, or a gradient, is not finite."""


class KilledError(UserError):
    """A process that did a part of the work was killed."""


class ClusterError(UserError):
    """A cluster, or a worker of it, cannot do the trainings."""


class BusyError(UserError):
    """Another process writes the same files."""


class StorageError(UserError):
    """A file cannot be written: its disk is full, or its folder may not be written to."""


class MissingArtifactError(UserError):
    """A file that an earlier stage writes is not there."""


class RequestError(UserError):
    """A served model is asked for what it does not have, or about what is no text."""


class IntegrityError(UserError):
    """A file is not the one that the stage before wrote."""
