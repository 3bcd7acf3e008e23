"""Tensors in and out: safetensors only."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lora_compare.errors import CheckpointError
from lora_compare.project import files

SHOWN_DIFFERENCES = 10
"""Differences between a file and the model that an error lists before it only counts."""


def save_state(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `tensors` to `path` atomically; equal tensors give equal bytes.

    Args:
        path: The safetensors file.
        tensors: Tensors by name, on any device; no two may share memory.
        metadata: At most one entry, because more are written in random order.
    """
    assert len(metadata or {}) <= 1
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    size = sum(tensor.nbytes for tensor in contiguous.values())
    with files.replacing(path, size) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(contiguous, temporary, dict(metadata) if metadata else None)
        except SafetensorError as error:
            raise _system_error(error) from error
        temporary.chmod(mode)  # the library makes the file unreadable for everyone else


def _system_error(error: SafetensorError) -> Exception:
    """Return the system's error that the library has made into text, such as a full disk."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else error


def load_state(path: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return the tensors that `save_state` wrote, in float32.

    Args:
        path: The safetensors file.
        shapes: The shape of every tensor that the file must hold, by name.

    Raises:
        CheckpointError: The file is no safetensors file, or does not fit; every difference is named
            by its key.
    """
    return read_tensors(path, {name: tuple(shape) for name, shape in shapes.items()})


def assign(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put tensors in the place of the model's own, not into them, under all names of each.

    Args:
        model: The model; where several names stand for one parameter, they still do afterwards.
        state: Tensors by one of their names.
    """
    names: dict[int, list[str]] = {}
    own = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    for name, tensor in own.items():
        names.setdefault(id(tensor), []).append(name)
    for first, tensor in state.items():
        current = own[first]
        if isinstance(current, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=current.requires_grad)
        for name in names[id(current)]:
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, tensor)


def load_any_state(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file, whatever they are, in float32.

    Raises:
        CheckpointError: It is no safetensors file, or holds numbers that are no weights.
    """
    with opened(path) as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    return load_state(path, shapes)


def read_tensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    optional: Mapping[str, tuple[int, ...]] | None = None,
    canonical: Callable[[str], str | None] = str,
) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file in float32, if they are exactly those of `shapes`.

    Args:
        path: The file.
        shapes: The shape of every tensor that it must hold, by name.
        optional: The shapes of those that it may hold beside them.
        canonical: Returns the name of a stored tensor; None for one that is to be ignored.

    Raises:
        CheckpointError: As `load_state`.
    """
    with opened(path) as file:
        keys, problems = _by_name(file.keys(), canonical)
        known = {**shapes, **(optional or {})}
        problems += [f"{name}: missing" for name in shapes if name not in keys]
        problems += [f"{name}: not part of the model" for name in keys if name not in known]
        for name, shape in known.items():
            if name in keys:
                problems += _layout_problems(name, shape, file.get_slice(keys[name]))
        if problems:
            raise refusal(path, problems)
        # A copy, because the opened file's tensors are views of the file on the disk.
        tensors = {
            name: file.get_tensor(keys[name]).to(torch.float32, copy=True)
            for name in known
            if name in keys
        }
    problems = []
    for name, tensor in tensors.items():
        if count := int((~tensor.isfinite()).sum()):
            problems.append(f"{name}: {count} of {tensor.numel()} numbers NaN or infinite")
    if problems:
        raise refusal(path, problems)
    return tensors


def _by_name(
    keys: Sequence[str], canonical: Callable[[str], str | None]
) -> tuple[dict[str, str], list[str]]:
    """Return the stored key of each name, and a problem for each name that is stored twice."""
    found: dict[str, str] = {}
    problems = []
    for key in sorted(keys):
        name = canonical(key)
        if name in found:
            problems.append(f"{name}: stored twice, as {found[name]} and as {key}")
        elif name is not None:
            found[name] = key
    return found, problems


def _layout_problems(name: str, shape: tuple[int, ...], stored: Any) -> list[str]:
    """Return how a stored tensor's shape and type differ from the model's."""
    problems = []
    if tuple(stored.get_shape()) != shape:
        problems.append(f"{name}: shape {tuple(stored.get_shape())}, the model's is {shape}")
    if stored.get_dtype() not in ("F32", "F16", "BF16"):
        problems.append(f"{name}: type {stored.get_dtype()}, allowed are F32, F16 and BF16")
    return problems


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield the opened safetensors file; nothing else is ever parsed.

    Raises:
        CheckpointError: It is not there, or no safetensors file.
    """
    if not path.is_file():
        raise CheckpointError(
            "The weights are not there.", where=str(path), next="dvc repro, or fetch the file again"
        )
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] != b"{":
        raise _not_safetensors(path, _kind(start))
    try:
        with safe_open(path, framework="pt") as file_of_tensors:
            yield file_of_tensors
    except SafetensorError as error:
        raise _not_safetensors(path, str(error)) from error


def _kind(start: bytes) -> str:
    """Return what a file that is no safetensors file seems to be, by its first bytes."""
    kinds = {
        b"PK": "a zip archive, as torch.save writes it (a pickle, which is never opened here)",
        b"\x80": "a pickle, which is never opened here",
        b"<": "a web page",
        b"version": "a git-lfs pointer, not the file itself",
    }
    matches = (kind for magic, kind in kinds.items() if start.startswith(magic))
    return next(matches, f"a file that starts with {start!r}" if start else "an empty file")


def _not_safetensors(path: Path, actual: str) -> CheckpointError:
    return CheckpointError(
        "The weights are not a whole safetensors file.",
        where=str(path),
        expected="a file in the safetensors format",
        actual=actual,
        next=f"rm {path}\nand make or fetch it again",
    )


def refusal(path: Path, problems: Sequence[str]) -> CheckpointError:
    """Return the error that names every difference, each with its key, of a file to the model."""
    shown = list(problems[:SHOWN_DIFFERENCES])
    if len(problems) > len(shown):
        shown.append(f"... and {len(problems) - len(shown)} more")
    return CheckpointError(
        f"The weights do not fit the model: {len(problems)} difference"
        f"{'s' if len(problems) > 1 else ''}.",
        where=str(path),
        actual="\n".join(shown),
        next="check that model.name in params.yaml is the model that this file holds,\n"
        f"or rm {path}\nand make or fetch it again",
    )
