"""The state of a training that several ranks share: each writes its part, any number reads it."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_compare.compute.engines.crew import first_line
from lora_compare.compute.ranks import Ranks, local
from lora_compare.project.files import replacing_folder, write_json
from lora_compare.project.interruption import pending
from lora_compare.project.progress import Progress
from lora_compare.training.ranks.strategies import on_cpu
from lora_compare.training.resume import HEAD_FILE, Checkpoints, Resumable, newest


class SharedCheckpoints(Checkpoints):
    """The last state of one training on a disk that all ranks see, as torch's own format holds it.

    The folder has a folder for the state's step, which appears whole. All ranks call every method
    at the same step; the first one decides, says and tidies up.

    Args:
        path: The folder.
        facts: As for `Checkpoints`, but for those that may change between two states: the number
            of ranks, and of their threads.
        every: As for `Checkpoints`.
        progress: Where the first rank says how it goes on.
        ranks: This process among the others.

    Source: torch.distributed.checkpoint, which gives every rank its part of what others wrote.
    Checked by tests/unit/training/ranks/test_checkpoints.py.
    """

    def __init__(
        self,
        path: Path,
        facts: Mapping[str, Any],
        every: float | None,
        progress: Progress,
        ranks: Ranks,
    ) -> None:
        super().__init__(path, facts, every, progress)
        self._folder, self._ranks = path, ranks

    def due(self) -> bool:
        """Return whether a checkpoint would be written now: one rank's wish is that of all."""
        return bool(self._ranks.most(super().due()))

    def _signal(self) -> int | None:
        return self._ranks.most(pending() or 0) or None

    def _tidy(self) -> None:
        if self._ranks.is_first:
            for remains in self._folder.glob(".*"):
                shutil.rmtree(remains)
            if self._folder.is_dir() and not any(self._folder.iterdir()):
                self._folder.rmdir()  # killed before there was a state
        self._ranks.wait()

    def _tensors(self, training: Resumable) -> dict[str, Tensor]:
        from torch.distributed.checkpoint.filesystem import FileSystemReader
        from torch.distributed.checkpoint.state_dict_loader import load

        reader = FileSystemReader(newest(self._folder))
        metadata: Any = reader.read_metadata()
        wanted = self._empty(metadata.state_dict_metadata, training.tensors())
        with _first_error(lambda met: ValueError(first_line(met))):
            load(wanted, storage_reader=reader)
        dice = f"random.{self._ranks.rank}."
        # A rank that there was not goes on with the dice that it has.
        mine = {key.replace(dice, "random."): t for key, t in wanted.items() if dice in key}
        return {key: t for key, t in wanted.items() if not key.startswith("random.")} | mine

    def _empty(self, stored: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return room for what is stored, cut as this training's own tensors are."""
        empty = {}
        for key, known in stored.items():
            kind, _, name = key.partition(".")
            like = own.get(f"parameter.{name}")
            if like is not None and like.shape == known.size:
                empty[key] = on_cpu(like) if kind == "best" else torch.empty_like(like)
            elif kind != "random" or name.startswith(f"{self._ranks.rank}."):
                empty[key] = torch.empty(known.size, dtype=known.properties.dtype)
        return empty

    def _write(self, training: Resumable) -> bool:
        from torch.distributed.checkpoint.filesystem import FileSystemWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        tensors = training.tensors()
        floats = (local(t) for t in tensors.values() if t.is_floating_point())
        if self._ranks.most(not all(bool(t.isfinite().all()) for t in floats)):
            return False  # the next step stops the training; the checkpoint before it is good
        dice = f"random.{self._ranks.rank}."
        state = {
            dice + key.removeprefix("random.") if key.startswith("random.") else key: tensor
            for key, tensor in tensors.items()
        }
        folder = self._folder / f"{training.step:09}"
        with replacing_folder(folder) if self._ranks.is_first else nullcontext() as new:
            where = [os.fspath(new) if new else ""]
            torch.distributed.broadcast_object_list(where)
            with _first_error(lambda met: met):
                save(state, storage_writer=FileSystemWriter(where[0], overwrite=False))
            if new:
                write_json(new / HEAD_FILE, self._head(training))
        if self._ranks.is_first:
            for other in self._folder.iterdir():
                if other != folder:
                    shutil.rmtree(other)
        self._ranks.wait()
        return True


@contextmanager
def _first_error(kind: Callable[[Exception], Exception]) -> Iterator[None]:
    """Raise what the first rank met, where torch raises what no `except Exception` would catch.

    Args:
        kind: Returns what to raise for what that rank met.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        met: Any = next(iter(error.failures.values()))[0]
        raise kind(met) from error


def checkpoints_of(
    path: Path,
    facts: Mapping[str, Any],
    every: float | None,
    progress: Progress,
    kept: Callable[[Path], None],
    ranks: Ranks,
) -> Checkpoints:
    """Return where a training's state is kept, by one process or by several.

    Args:
        path: The file, or the folder of several ranks.
        facts: Those that the state depends on.
        every: As for `Checkpoints`.
        progress: As for `Checkpoints`.
        kept: Called with the path of every checkpoint that one process writes.
        ranks: Who trains.
    """
    if ranks.is_alone:
        return Checkpoints(path, facts, every, progress, kept)
    return SharedCheckpoints(path, facts, every, progress, ranks)
