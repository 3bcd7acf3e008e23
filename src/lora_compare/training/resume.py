"""A training that was cut off goes on where it was, with the result of one that was not."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

import lora_compare
from lora_compare.compute.device import Machine
from lora_compare.errors import ClusterError
from lora_compare.models import weights
from lora_compare.project.files import canonical_json
from lora_compare.project.interruption import Interrupted, pending
from lora_compare.project.progress import SILENT, Progress

SHARE = 50
"""Seconds of training, at least, for each second that writing a checkpoint takes."""

HEAD = "lora-compare"
"""The key of a checkpoint's facts and figures in the file's metadata."""

HEAD_FILE = "head.json"
"""The file that has them where a checkpoint is a folder."""

UNREADABLE = (
    *(SafetensorError, FileNotFoundError, ValueError, KeyError, TypeError),
    *(UnpicklingError, EOFError),
)
"""What reading a damaged checkpoint raises."""

WINGS = ("params", "compute", "lora", "models", "training")
"""Folders of this package whose code can change the bits of a training. The others read its
inputs, which a checkpoint knows by their checksums, or look on."""


class Resumable(Protocol):
    """A training between two steps.

    Attributes:
        step: Optimizer steps done.
    """

    step: int

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that changes as it goes on, by name, not copied."""

    def figures(self) -> dict[str, Any]:
        """Return everything else that changes, as a JSON value."""

    def restore(self, tensors: Mapping[str, Tensor], figures: Mapping[str, Any]) -> None:
        """Take over what `tensors` and `figures` returned."""


class Checkpoints:
    """The last state of one training on the disk: one file, replaced as a whole.

    Args:
        path: The file; None: no checkpoint is written or read.
        facts: All that the training's result depends on, as a JSON value. A checkpoint of other
            facts is not used.
        every: Seconds between two checkpoints, at least; 0: after every step; None: none, but
            for that of a signal.
        progress: Where to say how it goes on.
        on_write: Called with the file's path when it is written; its time counts as writing's.
    """

    def __init__(
        self,
        path: Path | None = None,
        facts: Mapping[str, Any] | None = None,
        every: float | None = None,
        progress: Progress = SILENT,
        on_write: Callable[[Path], None] = lambda path: None,
    ) -> None:
        self._path, self._facts, self._every, self._progress = path, facts, every, progress
        self._on_write = on_write
        self._last, self._cost = time.monotonic(), 0.0

    def restore(self, training: Resumable) -> None:
        """Let `training` go on from the checkpoint, where there is one of the same facts."""
        if self._path is None:
            return
        self._tidy()
        if not self._path.exists():
            return
        try:
            head = read_head(self._path)
            if list(_differences(head["facts"], self._facts)):
                self._progress.say(refusal(self._path, self._facts or {}))
                return
            tensors = self._tensors(training)
        except UNREADABLE as error:
            self._progress.say(f"the checkpoint {self._path} is damaged and not used: {error}")
            return
        training.restore(tensors, head["figures"])
        self._progress.say(f"go on after step {head['step']}, from {self._path}")

    def after_step(self, training: Resumable) -> None:
        """Write a checkpoint where one is due, and stop where a signal asks for it.

        Raises:
            Interrupted: A signal waits; the checkpoint is written.
        """
        if self._path is None or not self.due():
            return
        signum = self._signal()
        start = time.monotonic()
        kept = self._write(training)
        self._last = time.monotonic()
        self._cost = self._last - start
        if signum is not None:
            said = f"step {training.step} is kept in {self._path}; dvc repro goes on from there"
            raise Interrupted(signum, said if kept else "")

    def due(self) -> bool:
        """Return whether a checkpoint would be written now."""
        if self._path is None:
            return False
        if pending() is not None or self._every == 0:
            return True
        if self._every is None:
            return False
        return time.monotonic() - self._last >= max(self._every, SHARE * self._cost)

    def _signal(self) -> int | None:
        """Return the number of the signal that asks for the end, if one does."""
        return pending()

    def _tidy(self) -> None:
        """Delete what a run has left that was killed while it wrote."""
        assert self._path is not None
        for remains in self._path.parent.glob(f".{self._path.name}.*.tmp"):
            remains.unlink()

    def _tensors(self, _: Resumable) -> dict[str, Tensor]:
        """Return what the checkpoint holds of a training."""
        assert self._path is not None
        with safe_open(self._path, framework="pt") as file:
            # Copies: an opened file's tensors are views of the file, which is replaced later.
            return {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118

    def _head(self, training: Resumable) -> dict[str, Any]:
        return {"facts": self._facts, "step": training.step, "figures": training.figures()}

    def _write(self, training: Resumable) -> bool:
        tensors = training.tensors()
        if not all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point()):
            return False  # the next step stops the training; the checkpoint before it is good
        assert self._path is not None
        weights.save_state(self._path, tensors, {HEAD: canonical_json(self._head(training))})
        self._on_write(self._path)
        return True


def refusal(path: Path, facts: Mapping[str, Any]) -> str:
    """Return in words why a checkpoint is not used for a training of other facts.

    Args:
        path: The checkpoint's file.
        facts: Those of the training.
    """
    try:
        head = read_head(path)
    except UNREADABLE as error:
        return f"the checkpoint {path} is damaged and not used: {error}"
    said = "; ".join(_differences(head["facts"], facts))
    return f"the checkpoint of step {head['step']} is not used: {said}"


def forget(path: Path) -> None:
    """Delete a checkpoint, a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def circumstances(machine: Machine) -> dict[str, Any]:
    """Return what the bits of a training depend on beside its settings and texts."""
    return {
        "device": machine.device.type,
        "dtype": str(machine.dtype),
        "threads": machine.threads,
        "torch": torch.__version__,
        "code": code_digest(Path(lora_compare.__file__).parent),
    }


def require_same(machine: Machine, facts: Mapping[str, Any]) -> None:
    """Refuse to compute what would not be the result that a training's facts stand for.

    Args:
        machine: What this process computes with.
        facts: Those of the training.

    Raises:
        ClusterError: Device, arithmetic, torch or this package's code are others here.
    """
    here = circumstances(machine)
    if differences := list(_differences({key: facts[key] for key in here}, here)):
        raise ClusterError(
            "A worker would train something else.",
            where=f"process {os.getpid()}",
            expected="the device, the versions and the code of the process that gives work out",
            actual="; ".join(differences),
            kept="what is finished, and the last checkpoints",
            next="install the same there, or run dvc repro on a machine like the workers",
        )


def code_digest(package: Path) -> str:
    """Return the SHA-256 of the modules that a training's bits depend on, paths included.

    Args:
        package: The folder of this package.
    """
    found = hashlib.sha256()
    for module in sorted(path for wing in WINGS for path in (package / wing).rglob("*.py")):
        found.update(module.relative_to(package).as_posix().encode() + module.read_bytes())
    return found.hexdigest()


def read_head(path: Path) -> dict[str, Any]:
    """Return facts, step and figures of a checkpoint; it raises one of UNREADABLE.

    Args:
        path: The file, or the folder of a training of several processes.
    """
    head: dict[str, Any]
    if path.is_dir():
        head = json.loads((newest(path) / HEAD_FILE).read_text(encoding="utf-8"))
    else:
        with safe_open(path, framework="pt") as file:
            head = json.loads(file.metadata()[HEAD])
    return head


def newest(folder: Path) -> Path:
    """Return the folder of the last step's state; it raises one of UNREADABLE.

    Args:
        folder: The folder of a training of several processes.
    """
    return max(folder.glob("[!.]*"))


def _differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """Yield, in words, each fact that is another now."""
    if isinstance(before, dict) and isinstance(now, Mapping):
        for name in dict.fromkeys([*before, *now]):
            inner = f"{key}.{name}" if key else name
            yield from _differences(before.get(name), now.get(name), inner)
    elif before != now:
        yield f"{key} was {_short(before)}, is {_short(now)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12] + "…"
