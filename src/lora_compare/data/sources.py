"""Where labelled text comes from: the bundled corpus, UCI, a file or an address."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from lora_compare.data import bundled
from lora_compare.data.archives import take_out
from lora_compare.data.carried import read_carried
from lora_compare.data.downloads import UCI, Archive, Patience, Remote, obtain
from lora_compare.data.headers import Columns
from lora_compare.data.messages import make_messages
from lora_compare.data.places import find_path, require_suffix, unknown_source
from lora_compare.data.tables import MAX_BYTES, Table, read_table, require_size
from lora_compare.errors import (
    DataError,
    names_a_host,
    without_credentials,
)
from lora_compare.params import DataParams
from lora_compare.project.corpus import Messages, class_order, every_label
from lora_compare.project.paths import Paths
from lora_compare.project.progress import SILENT, Progress


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
    tables, facts = read_sources(data, paths, progress, anew)
    said = [len(table.warnings) for table in tables]
    messages = make_messages(*tables, separator=data.labels_separator)
    counts, normalized = Counter(every_label(messages["label"])), Counter[str]()
    for table, known in zip(tables, said, strict=True):
        normalized.update(table.normalized)
        for warning in table.warnings[known:]:
            progress.say(f"warning: {warning}")
    return messages, {
        **facts,
        "rows": len(messages["label"]),
        "classes": {name: counts[name] for name in class_order(counts)},
        "normalized": dict(normalized),
    }


def read_sources(
    data: DataParams, paths: Paths, progress: Progress = SILENT, anew: bool = True
) -> tuple[list[Table], dict[str, Any]]:
    """Return the rows of a source as they stand there, and where it came from.

    There are several tables, each with its `part`, where a file is given for each split; what is
    said of each file stands under `files` then.

    Args:
        data: As `load_corpus`.
        paths: As `load_corpus`.
        progress: Where a download, and what is odd about the file, are reported.
        anew: As `load_corpus`.

    Raises:
        DataError: As `load_corpus`.
        DownloadError: As `load_corpus`.
    """
    tables, facts = [], {}
    for part, one in data.files.items():
        table, facts[part] = _read_source(one, part, paths, progress, anew)
        tables.append(table)
    return tables, facts.get("") or {"source": data.described, "files": facts}


def _read_source(
    data: DataParams, part: str, paths: Paths, progress: Progress, anew: bool
) -> tuple[Table, dict[str, Any]]:
    source = open_source(data, paths, progress, UCI, None, anew)
    facts = {**source.facts, "sha256": _sha256(source.content), "bytes": len(source.content)}
    file = take_out(source.content, source.suffix, source.name)
    if source.member_sha256 not in (None, file.facts.get("member_sha256")):
        raise _other_file(file.name, source.member_sha256, file.facts["member_sha256"])
    columns = Columns(data.text_column, data.label_column, data.carried)
    table = read_table(file.content, file.suffix, file.name, columns)
    table.carried = read_carried(table, part)
    for warning in table.warnings:
        progress.say(f"warning: {warning}")
    return table, facts | file.facts


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
    if data.address == "bundled":
        source = Source("the bundled corpus", ".tsv", bundled.table(), {"source": "bundled"})
    elif data.address == "uci":
        source = _open_uci(data, paths, progress, uci, patience)
    elif "://" in data.address:
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
    content = obtain(remote, paths.downloads / name, progress, patience)
    # Which address answered must not show: the same file is the same corpus everywhere.
    facts = {"source": "uci", "url": uci.urls[0]}
    return Source(name, ".zip", content, facts, uci.member_sha256)


def _open_url(
    data: DataParams, paths: Paths, progress: Progress, patience: Patience | None, anew: bool
) -> Source:
    url, shown = data.address, without_credentials(data.address)
    if not url.startswith(("http://", "https://")):
        raise unknown_source(shown, "an address that begins with http:// or https://")
    if not names_a_host(url):
        raise unknown_source(shown, "http://host:port/file; / in a user's password is %2F")
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    suffix = require_suffix(name, shown)
    by_hand = (
        f"download it with a browser, save it as inputs/text/{name} "
        f"and set data.source: inputs/text/{name} in params.yaml"
    )
    remote = Remote([url], data.sha256, MAX_BYTES, by_hand)
    folder = paths.downloads / hashlib.sha256(url.encode()).hexdigest()[:16]
    content = obtain(remote, folder / f"file{suffix}", progress, patience, anew)
    return Source(name, suffix, content, {"source": shown, "url": shown})


def _open_path(data: DataParams, paths: Paths) -> Source:
    path = find_path(data, paths)
    suffix = require_suffix(path.name, data.address)
    require_size(data.address, path.stat().st_size)
    facts = {"source": data.address, "path": data.address}
    return Source(data.address, suffix, path.read_bytes(), facts)


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
