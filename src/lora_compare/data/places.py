"""Where the files of a source lie: there, of a known kind, and where DVC sees their changes."""

import os
import shlex
from dataclasses import replace
from pathlib import Path, PurePosixPath

from lora_compare.data.archives import SUFFIXES, file_suffix
from lora_compare.data.encodings import AS_CSV
from lora_compare.errors import DataError
from lora_compare.params import DataParams
from lora_compare.project import files
from lora_compare.project.paths import Paths

SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")

WATCHED = ("inputs", "text")
"""The folder that the stage download depends on."""


def is_file(data: DataParams) -> bool:
    """Return whether a source is a file that is there before a download."""
    return data.address not in ("bundled", "uci") and "://" not in data.address


def is_here(data: DataParams) -> bool:
    """Return whether all that a source names can be read without a download."""
    return all(is_file(one) or one.address == "bundled" for one in data.files.values())


def require_watched(data: DataParams, paths: Paths) -> None:
    """Refuse a file whose changes DVC would not see, unless data.sha256 says which one it is.

    DVC looks at all in inputs/text, also where a link there leads to a file; it does not go into
    a folder that is a link.

    Args:
        data: The source and perhaps its checksum.
        paths: The project; a relative source starts at its root.

    Raises:
        DataError: The source is such a file.

    Checked by tests/pipeline/test_inputs.py::test_dvc_sees_the_file_behind_a_link.
    """
    for one in filter(is_file, data.files.values()):
        if not data.sha256:
            _require_watched(one, paths)


def _require_watched(data: DataParams, paths: Paths) -> None:
    path = PurePosixPath(data.address)
    folders = [paths.root / parent for parent in path.parents if len(parent.parts) > len(WATCHED)]
    linked = [str(folder) for folder in folders if folder.is_symlink()]
    inside = path.parts[: len(WATCHED)] == WATCHED and ".." not in path.parts
    if inside and not linked:
        return
    raise DataError(
        f"DVC would not see a change of {data.address}: results of its old content would stay.",
        where="params.yaml: data.source",
        expected="a file in inputs/text/ or a link to one there, or data.sha256 to pin it",
        actual=f"{linked[0]} is a link to a folder" if inside else data.address,
        kept="every result: what DVC removed before a stage comes back with dvc repro",
        next="put it, or a link to it (ln -s with its whole path), into inputs/text/ and write\n"
        f"data.source: inputs/text/{path.name} in params.yaml; or pin it as it is now:\n"
        f"data.sha256: what sha256sum {shlex.quote(data.address)} prints",
    )


def require_source(data: DataParams, paths: Paths) -> None:
    """Refuse a source of which a file is not here, or whose changes no stage would see.

    Raises:
        DataError: As `require_watched`; or there is no such file, or its format is not known.
    """
    require_watched(data, paths)
    for one in filter(is_file, data.files.values()):
        require_suffix(find_path(one, paths).name, one.address)


def find_path(data: DataParams, paths: Paths) -> Path:
    """Return the file that a source names, which is there and can be read.

    Raises:
        DataError: It is not.
    """
    try:
        path = paths.root / Path(data.address).expanduser()
        found = files.is_file(path) and os.access(path, os.R_OK)
    except RuntimeError:  # the home folder of a user that is not there
        found = False
    if not found:
        if paths.project != paths.root and files.is_file(paths.project / data.address):
            raise _left_behind(data.address, paths.project)
        raise unknown_source(
            data.address,
            "bundled, uci, an address, or a file",
            "no such file, or not readable, seen from " + str(paths.root),
        )
    return path


def require_suffix(name: str, shown: str) -> str:
    """Return the kind of a file by its name; one that is not read is refused as `shown`."""
    suffix = file_suffix(name)
    if suffix not in SUFFIXES:
        known = f"a name that ends in {', '.join(SUFFIXES)}, or in .gz after one of them"
        error = unknown_source(shown, known)
        raise replace(error, next=AS_CSV) if suffix in SPREADSHEETS else error
    return suffix


def _left_behind(source: str, project: Path) -> DataError:
    return DataError(
        f"{source} is not in the copy of the project in which DVC runs this experiment.",
        where="params.yaml: data.source",
        expected="a file that DVC or git keeps, which comes along",
        actual=f"a file in {project} that neither does",
        next=f"in the project: dvc add {source}, then git add {source}.dvc, git commit, and the "
        "experiment again",
    )


def unknown_source(source: str, expected: str, actual: str = "") -> DataError:
    """Return the refusal of what data.source names."""
    return DataError(
        f"The source {source} cannot be read.",
        where="params.yaml: data.source",
        expected=expected,
        actual=actual or source,
        next="correct data.source in params.yaml",
    )
