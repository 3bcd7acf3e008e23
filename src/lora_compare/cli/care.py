"""When something is wrong: `doctor` and `repair`."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lora_compare.cli.terminal import Output, command

if TYPE_CHECKING:
    from lora_compare.cli.doctor import Checked

EXIT_TROUBLE = 1
"""Something that a command of this project would fail of."""

STYLES = {"ok": "green", "warning": "yellow", "trouble": "bold red"}


@command("doctor")
def doctor(output: Output) -> None:
    """Look for trouble: versions, device, caches, the project, its tracking server, the disk.

    Each trouble and each warning comes with its remedy. The exit code is 1 where there is a
    trouble, of which a command here would fail; a warning costs time or a promise, not a result.
    With --quiet nothing is printed of what is well. Nothing is changed, downloaded or repaired.

    \b
    lora-compare doctor
    lora-compare doctor --quiet && dvc repro
    lora-compare doctor --json | jq '.checks[] | select(.status != "ok")'
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.cli.doctor import examine
    from lora_compare.project.paths import Paths

    with output.working("examine the project") as at_work:
        checked = list(examine(Paths.here(), at_work))
    counts = Counter(str(each.finding.status) for each in checked)
    worst = next(status for status in ("trouble", "warning", "ok") if counts[status])
    output.record({"status": worst, "checks": [each.to_dict() for each in checked]})
    _show(output, [c for c in checked if not output.quiet or c.finding.status != "ok"])
    output.say(f"\n{_verdict(counts)}")
    if counts["trouble"]:
        sys.exit(EXIT_TROUBLE)


def _show(output: Output, checked: "Sequence[Checked]") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for no_wrap in (True, True, False):
        table.add_column(no_wrap=no_wrap, overflow="fold")
    section = ""
    for each in checked:
        if each.section != section:
            if section:
                table.add_row()
            section = each.section
            table.add_row(Text(section, style="bold"))
        status = str(each.finding.status)
        what = Text(each.finding.what)
        if each.finding.remedy:
            what.append(f"\nnext: {each.finding.remedy}", style="bold")
        table.add_row(Text(status, style=STYLES[status]), Text(each.name), what)
    if checked:
        output.show(table)


def _verdict(counts: Counter[str]) -> str:
    kinds = [(counts["trouble"], "trouble"), (counts["warning"], "warning")]
    found = [f"{n} {word}{'s' if n > 1 else ''}" for n, word in kinds if n]
    return ", ".join(found) if found else "All is well."


@command("repair")
def repair(output: Output) -> None:
    """Move outputs and objects of DVC's cache whose bytes have changed out of DVC's way.

    Use it when a stage refuses a file; while one runs, it refuses. DVC does not see such a change
    where the file's time is what it was, and brings a changed object back as it is. What is
    moved to .quarantine, `dvc repro` restores, or makes again.

    \b
    lora-compare repair && dvc repro
    """  # noqa: D301 (click reads the \b as a character)
    from lora_compare.project.paths import Paths
    from lora_compare.project.repair import repair as move_changed

    with output.working("compare every checksum"):
        outcome = move_changed(Paths.here())
    moved = {str(old): str(new) for old, new in outcome.moved.items()}
    output.record({"outputs": outcome.outputs, "objects": outcome.objects, "moved": moved})
    for old, new in moved.items():
        output.say(f"moved {old} to {new}")
    found = f"{len(moved)} changed" if moved else "all as DVC recorded them"
    output.say(
        f"checked {outcome.outputs} outputs and {outcome.objects} objects of DVC's cache: {found}"
    )
    if moved:
        output.say("next: dvc repro")
    else:
        output.say("If a stage refuses a file all the same, make it anew: dvc repro --force STAGE")
