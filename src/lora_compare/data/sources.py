"""Where labelled text comes from: the bundled corpus, UCI, a file or an address."""

import hashlib
import os
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from lora_compare.data import bundled
from lora_compare.data.archives import file_suffix, read_member
from lora_compare.data.downloads import Patience, Remote, fetch
from lora_compare.data.messages import make_messages
from lora_compare.data.tables import MAX_BYTES, PARSERS, Columns, read_table, require_size
from lora_compare.errors import (
    DataError,
    DownloadError,
    IntegrityError,
    MissingArtifactError,
    names_a_host,
    without_credentials,
)
from lora_compare.params import DataParams
from lora_compare.project import files
from lora_compare.project.checksums import seal, verified
from lora_compare.project.corpus import Messages
from lora_compare.project.paths import Paths
from lora_compare.project.progress import SILENT, Progress

SUFFIXES = (".zip", *PARSERS)

WATCHED = ("inputs", "text")
"""The folder that the stage download depends on."""


@dataclass(frozen=True)
class Archive:
    """A published zip whose bytes are known.

    Attributes:
        urls: The primary address, then mirrors.
        sha256: Of the zip.
        member_sha256: Of its data file.
    """

    urls: tuple[str, ...]
    sha256: str
    member_sha256: str


UCI = Archive(
    urls=(
        "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
        "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
    ),
    sha256="1587ea43e58e82b14ff1f5425c88e17f8496bfcdb67a583dbff9eefaf9963ce3",
    member_sha256="7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
)
"""The SMS Spam Collection (Almeida and Hidalgo 2011, doi 10.24432/C5CC84, CC BY 4.0)."""


@dataclass(frozen=True)
class Source:
    """A source file in memory.

    Attributes:
        name: What messages call it.
        suffix: One of SUFFIXES.
        content: The whole file.
        facts: What provenance.json says of where it came from.
        member_sha256: Of the member that is read, where that is known beforehand.
    """

    name: str
    suffix: str
    content: bytes
    facts: dict[str, Any]
    member_sha256: str | None = None


def load_corpus(
    data: DataParams, paths: Paths, progress: Progress = SILENT, anew: bool = True
) -> tuple[Messages, dict[str, Any]]:
    """Return the messages of a source, and where it came from for provenance.json.

    Nothing in the result depends on when, where and from which mirror the file was fetched.

    Args:
        data: The source, its columns and perhaps its checksum.
        paths: The project; a relative source starts at its root.
        progress: Where a download reports.
        anew: Whether an address is asked that has been downloaded before; where it does not
            serve the file, and where it is not asked, the copy of then is taken.

    Raises:
        DataError: The file is missing, is not the expected one, or cannot be used as it is.
        DownloadError: It could not be fetched.
    """
    source = open_source(data, paths, progress, UCI, None, anew)
    facts = {**source.facts, "sha256": _sha256(source.content), "bytes": len(source.content)}
    name, suffix, content = source.name, source.suffix, source.content
    if suffix == ".zip":
        member, content = read_member(content, name)
        facts |= {"member": member, "member_sha256": _sha256(content)}
        if source.member_sha256 not in (None, facts["member_sha256"]):
            raise _other_file(f"{name}!{member}", source.member_sha256, facts["member_sha256"])
        name, suffix = f"{name}!{member}", file_suffix(member)
    table = read_table(content, suffix, name, Columns(data.text_column, data.label_column))
    messages = make_messages(table)
    counts = Counter(messages["label"])
    return messages, {
        **facts,
        "rows": counts.total(),
        "classes": {name: counts[name] for name in sorted(counts)},
        "normalized": table.normalized,
    }


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
    path = PurePosixPath(data.source)
    if data.sha256 or data.source in ("bundled", "uci") or "://" in data.source:
        return
    folders = [paths.root / parent for parent in path.parents if len(parent.parts) > len(WATCHED)]
    linked = [str(folder) for folder in folders if folder.is_symlink()]
    inside = path.parts[: len(WATCHED)] == WATCHED and ".." not in path.parts
    if inside and not linked:
        return
    raise DataError(
        f"DVC would not see a change of {data.source}: results of its old content would stay.",
        where="params.yaml: data.source",
        expected="a file in inputs/text/ or a link to one there, or data.sha256 to pin it",
        actual=f"{linked[0]} is a link to a folder" if inside else data.source,
        kept="every result: what DVC removed before a stage comes back with dvc repro",
        next="put it, or a link to it (ln -s with its whole path), into inputs/text/ and write\n"
        f"data.source: inputs/text/{path.name} in params.yaml; or pin it as it is now:\n"
        f"data.sha256: what sha256sum {shlex.quote(data.source)} prints",
    )


def open_source(
    data: DataParams,
    paths: Paths,
    progress: Progress = SILENT,
    uci: Archive = UCI,
    patience: Patience | None = None,
    anew: bool = True,
) -> Source:
    """Return the source file, its SHA-256 checked against data.sha256 if that is set.

    Raises:
        DataError: As `load_corpus`.
        DownloadError: As `load_corpus`.
    """
    if data.source == "bundled":
        source = Source("the bundled corpus", ".tsv", bundled.table(), {"source": "bundled"})
    elif data.source == "uci":
        source = _open_uci(data, paths, progress, uci, patience)
    elif "://" in data.source:
        source = _open_url(data, paths, progress, patience, anew)
    else:
        source = _open_path(data, paths)
    actual = _sha256(source.content)
    if data.sha256 not in (None, actual):
        raise _other_file(source.name, data.sha256, actual)
    return source


def _open_uci(
    data: DataParams, paths: Paths, progress: Progress, uci: Archive, patience: Patience | None
) -> Source:
    name = "sms+spam+collection.zip"
    if data.sha256 not in (None, uci.sha256):
        raise _other_file(name, data.sha256, uci.sha256)
    by_hand = (
        f"download {name} with a browser from {uci.urls[0]}, save it as inputs/text/{name} "
        f"and set data.source: inputs/text/{name} in params.yaml"
    )
    remote = Remote(uci.urls, uci.sha256, MAX_BYTES, by_hand)
    content = _download(remote, paths.downloads / name, progress, patience)
    # Which address answered must not show: the same file is the same corpus everywhere.
    facts = {"source": "uci", "url": uci.urls[0]}
    return Source(name, ".zip", content, facts, uci.member_sha256)


def _open_url(
    data: DataParams, paths: Paths, progress: Progress, patience: Patience | None, anew: bool
) -> Source:
    url, shown = data.source, without_credentials(data.source)
    if not url.startswith(("http://", "https://")):
        raise _unknown_source(shown, "an address that begins with http:// or https://")
    if not names_a_host(url):
        raise _unknown_source(shown, "http://host:port/file; / in a user's password is %2F")
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    suffix = _require_suffix(name, shown)
    by_hand = (
        f"download it with a browser, save it as inputs/text/{name} "
        f"and set data.source: inputs/text/{name} in params.yaml"
    )
    remote = Remote([url], data.sha256, MAX_BYTES, by_hand)
    folder = paths.downloads / hashlib.sha256(url.encode()).hexdigest()[:16]
    content = _download(remote, folder / f"file{suffix}", progress, patience, anew)
    return Source(name, suffix, content, {"source": shown, "url": shown})


def _download(
    remote: Remote,
    destination: Path,
    progress: Progress,
    patience: Patience | None,
    anew: bool = False,
) -> bytes:
    """Return the file; the copy on disk if that is the right one and need not be fetched anew."""
    kept = _kept(remote, destination)
    if kept is None or (anew and remote.sha256 is None):
        try:
            url = fetch(remote, destination, progress, patience)
        except DownloadError:
            if kept is None:
                raise
            progress.say(f"warning: so the copy is used that was downloaded before, sha256 {kept}")
        else:
            progress.say(f"downloaded {url}")
            if remote.sha256 is None:
                seal(destination.parent)
    elif remote.sha256 is None:
        progress.say(
            f"{remote.urls[0]}: the copy is used that was downloaded before, sha256 {kept}; "
            "to download it anew: dvc repro --force download"
        )
    return destination.read_bytes()


def _kept(remote: Remote, destination: Path) -> str | None:
    """Return the SHA-256 of the copy on disk; None where there is none, or not the right one."""
    if remote.sha256 is not None:
        right = destination.is_file() and files.sha256(destination) == remote.sha256
        return remote.sha256 if right else None
    try:
        return files.sha256(verified(destination, "download"))
    except (MissingArtifactError, IntegrityError):  # never fetched, or damaged since
        return None


def _open_path(data: DataParams, paths: Paths) -> Source:
    try:
        path = paths.root / Path(data.source).expanduser()
        found = files.is_file(path) and os.access(path, os.R_OK)
    except RuntimeError:  # the home folder of a user that is not there
        found = False
    if not found:
        if paths.project != paths.root and files.is_file(paths.project / data.source):
            raise _left_behind(data.source, paths.project)
        raise _unknown_source(
            data.source,
            "bundled, uci, an address, or a file",
            "no such file, or not readable, seen from " + str(paths.root),
        )
    suffix = _require_suffix(path.name, data.source)
    require_size(data.source, path.stat().st_size)
    facts = {"source": data.source, "path": data.source}
    return Source(data.source, suffix, path.read_bytes(), facts)


def _require_suffix(name: str, shown: str) -> str:
    suffix = file_suffix(name)
    if suffix not in SUFFIXES:
        raise _unknown_source(shown, f"a name that ends in {', '.join(SUFFIXES)}")
    return suffix


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _other_file(name: str, expected: str | None, actual: str) -> DataError:
    return DataError(
        f"{name} is another file than was asked for.",
        where=name,
        expected=f"sha256 {expected}",
        actual=f"sha256 {actual}",
        kept="the file was not changed, and nothing was read from it",
        next="get the right file, or correct data.sha256 in params.yaml (null accepts any)",
    )


def _left_behind(source: str, project: Path) -> DataError:
    return DataError(
        f"{source} is not in the copy of the project in which DVC runs this experiment.",
        where="params.yaml: data.source",
        expected="a file that DVC or git keeps, which comes along",
        actual=f"a file in {project} that neither does",
        next=f"in the project: dvc add {source}, then git add {source}.dvc, git commit, and the "
        "experiment again",
    )


def _unknown_source(source: str, expected: str, actual: str = "") -> DataError:
    return DataError(
        f"The source {source} cannot be read.",
        where="params.yaml: data.source",
        expected=expected,
        actual=actual or source,
        next="correct data.source in params.yaml",
    )
