"""Whether everything is there that the pipeline needs, and what to do where it is not.

Nothing here changes the project: every check looks at one thing and returns a `Finding`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_compare.cli.doctor import devices, models, state, storage, versions
from lora_compare.cli.doctor.findings import Check, Finding, Project, Status, trouble, warning
from lora_compare.errors import ParamsError
from lora_compare.project.paths import Paths

__all__ = ["CHECKS", "Checked", "Finding", "Status", "examine"]

CHECKS: Mapping[str, Sequence[Check]] = {
    "versions": (versions.python, versions.code, versions.torch, versions.tools, versions.lock),
    "device": (devices.processor, devices.gpu, devices.choice, devices.memory, devices.extras),
    "caches": (models.tokenizer, models.checkpoint, storage.dvc_cache),
    "project": (
        *(state.params, state.pipeline, state.artifacts, state.git),
        *(state.locks, state.training, state.mailbox),
    ),
    "tracking": (state.server,),
    "disk": (storage.space, storage.folders),
}
"""Every check by section, in the order in which they are made and shown."""


@dataclass(frozen=True)
class Checked:
    """A finding and where it belongs.

    Attributes:
        section: A key of `CHECKS`.
        name: The check's name.
        finding: What it found.
    """

    section: str
    name: str
    finding: Finding

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        found = self.finding
        return {
            "section": self.section,
            "check": self.name,
            "status": str(found.status),
            "what": found.what,
            "remedy": found.remedy,
            "facts": dict(found.facts),
        }


def examine(
    paths: Paths,
    starting: Callable[[str], None] = lambda name: None,
    checks: Mapping[str, Sequence[Check]] = CHECKS,
) -> Iterator[Checked]:
    """Yield what every check finds; one that fails itself keeps no other from its work.

    Args:
        paths: The project.
        starting: Called with the name of each check before it is made.
        checks: The checks by section.
    """
    project = Project(paths)
    for section, members in checks.items():
        for check in members:
            name = check.__name__.replace("_", " ")
            starting(name)
            yield Checked(section, name, _found(check, project))


def _found(check: Check, project: Project) -> Finding:
    try:
        return check(project)
    except ParamsError as error:
        return warning(f"not examined, for it depends on params.yaml: {error.what}", error.next)
    # Whatever it is, the person who looks for trouble wants to know what else is wrong.
    except Exception as error:
        said = next(iter(str(error).splitlines()), "")
        return trouble(
            f"could not be examined: {type(error).__name__}: {said}",
            "the other findings may name the cause; if not, report it with this line",
        )
