"""What a check finds, and the project that it looks at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from lora_compare.cli.doctor.sizes import Sizes, count
from lora_compare.errors import without_credentials
from lora_compare.params import Params, load_params
from lora_compare.project.paths import Paths
from lora_compare.project.repair import dvc_cache


class Status(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    TROUBLE = "trouble"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        status: How bad it is; of a trouble, some command fails.
        what: What was found, in words.
        remedy: What to do about it; empty where all is well.
        facts: The same for programs, as JSON values.
    """

    status: Status
    what: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def ok(what: str, **facts: Any) -> Finding:
    """Return the finding that all is well."""
    return Finding(Status.OK, without_credentials(what), "", facts)


def warning(what: str, remedy: str, **facts: Any) -> Finding:
    """Return a finding that costs time or a promise, but stops nothing."""
    return Finding(Status.WARNING, without_credentials(what), without_credentials(remedy), facts)


def trouble(what: str, remedy: str, **facts: Any) -> Finding:
    """Return a finding that makes some command fail."""
    return Finding(Status.TROUBLE, without_credentials(what), without_credentials(remedy), facts)


@dataclass(frozen=True)
class Project:
    """The project that is examined.

    Attributes:
        paths: Its files.
    """

    paths: Paths

    @cached_property
    def params(self) -> Params:
        """Its parameters.

        Raises:
            ParamsError: They are missing or have mistakes.
        """
        return load_params(self.paths.params)

    @cached_property
    def sizes(self) -> Sizes | None:
        """How large its models are; None for one on the hub of which nothing is here yet.

        Raises:
            UserError: The model cannot be looked at.
        """
        return count(self.params, self.paths.root)

    @cached_property
    def cache(self) -> Path:
        """The folder of DVC's cache, which DVC takes a second to tell.

        Raises:
            UserError: DVC does not know the project.
        """
        return dvc_cache(self.paths.root)


Check = Callable[[Project], Finding]
"""A look at one thing; its name is the function's."""
