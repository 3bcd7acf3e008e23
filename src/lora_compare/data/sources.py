"""Where labelled text comes from: the bundled corpus, UCI, a file or an address."""

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from lora_compare.data import bundled
from lora_compare.data.archives import SUFFIXES, file_suffix, take_out
from lora_compare.data.downloads import Patience, Remote, fetch
from lora_compare.data.encodings import AS_CSV
from lora_compare.data.headers import Columns
from lora_compare.data.messages import make_messages
from lora_compare.data.tables import MAX_BYTES, Table, read_table, require_size
from lora_compare.errors import DataError, names_a_host, without_credentials
from lora_compare.params import DataParams
from lora_compare.project import files
from lora_compare.project.corpus import Messages, class_order
from lora_compare.project.paths import Paths
from lora_compare.project.progress import SILENT, Progress

SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")


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
    data: DataParams, paths: Paths, progress: Progress = SILENT
) -> tuple[Messages, dict[str, Any]]:
    """Return the messages of a source, and where it came from for provenance.json.

    Nothing in the result depends on when, where and from which mirror the file was fetched.

    Args:
        data: The source, its columns and perhaps its checksum.
        paths: The project; a relative source starts at its root.
        progress: Where a download reports.

    Raises:
        DataError: The file is missing, is not the expected one, or cannot be used as it is.
        DownloadError: It could not be fetched.
    """
    table, facts = read_source(data, paths, progress)
    messages = make_messages(table)
    counts = Counter(messages["label"])
    return messages, {
        **facts,
        "rows": counts.total(),
        "classes": {name: counts[name] for name in class_order(counts)},
        "normalized": table.normalized,
    }


def read_source(
    data: DataParams, paths: Paths, progress: Progress = SILENT
) -> tuple[Table, dict[str, Any]]:
    """Return the rows of a source as they stand there, and where it came from.

    Args:
        data: As `load_corpus`.
        paths: As `load_corpus`.
        progress: Where a download, and what is odd about the file, are reported.

    Raises:
        DataError: As `load_corpus`.
        DownloadError: As `load_corpus`.
    """
    source = open_source(data, paths, progress)
    facts = {**source.facts, "sha256": _sha256(source.content), "bytes": len(source.content)}
    file = take_out(source.content, source.suffix, source.name)
    if source.member_sha256 not in (None, file.facts.get("member_sha256")):
        raise _other_file(file.name, source.member_sha256, file.facts["member_sha256"])
    columns = Columns(data.text_column, data.label_column)
    table = read_table(file.content, file.suffix, file.name, columns)
    for warning in table.warnings:
        progress.say(f"warning: {warning}")
    return table, facts | file.facts


def is_file(data: DataParams) -> bool:
    """Return whether a source is a file that is there before a download."""
    return data.source not in ("bundled", "uci") and "://" not in data.source


def open_source(
    data: DataParams,
    paths: Paths,
    progress: Progress = SILENT,
    uci: Archive = UCI,
    patience: Patience | None = None,
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
        source = _open_url(data, paths, progress, patience)
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
    data: DataParams, paths: Paths, progress: Progress, patience: Patience | None
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
    content = _download(remote, folder / f"file{suffix}", progress, patience)
    return Source(name, suffix, content, {"source": shown, "url": shown})


def _download(
    remote: Remote, destination: Path, progress: Progress, patience: Patience | None
) -> bytes:
    """Return the file, the one on disk if that is known to be the right one."""
    known = remote.sha256 is not None and destination.is_file()
    if not known or files.sha256(destination) != remote.sha256:
        url = fetch(remote, destination, progress, patience)
        progress.say(f"downloaded {url}")
    return destination.read_bytes()


def require_source(data: DataParams, paths: Paths) -> None:
    """Refuse a source that is a file and is not here; an address is not asked.

    Raises:
        DataError: There is no such file, or it has a name of no known format.
    """
    if data.source not in ("bundled", "uci") and "://" not in data.source:
        _require_suffix(_find_path(data, paths).name, data.source)


def _find_path(data: DataParams, paths: Paths) -> Path:
    """Return the file that a source names, which is there and can be read."""
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
    return path


def _open_path(data: DataParams, paths: Paths) -> Source:
    path = _find_path(data, paths)
    suffix = _require_suffix(path.name, data.source)
    require_size(data.source, path.stat().st_size)
    facts = {"source": data.source, "path": data.source}
    return Source(data.source, suffix, path.read_bytes(), facts)


def _require_suffix(name: str, shown: str) -> str:
    suffix = file_suffix(name)
    if suffix not in SUFFIXES:
        known = f"a name that ends in {', '.join(SUFFIXES)}, or in .gz after one of them"
        error = _unknown_source(shown, known)
        raise replace(error, next=AS_CSV) if suffix in SPREADSHEETS else error
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
