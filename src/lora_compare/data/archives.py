"""The data file in a zip or a gzip file, read in memory and within bounds."""

import gzip
import hashlib
import io
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from lora_compare.data.encodings import GZIP, require_kind
from lora_compare.data.tables import MAX_BYTES, PARSERS, require_size
from lora_compare.errors import DataError

SUFFIXES = (".zip", *PARSERS)
"""How the names of files end that hold text and labels; .gz may follow."""

REFERENCE_MEMBER = "SMSSpamCollection"
"""A file of this name is a .tsv without a header."""

UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    # The library lets these out of its own parser: of offsets before the file's beginning, of
    # names and fields that cannot be decoded, of versions that it does not know.
    ValueError,
    OverflowError,
    struct.error,
    NotImplementedError,
)
"""What Python's library raises for a zip that is damaged."""

PACKING = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def file_suffix(name: str) -> str:
    """Return the kind of a file by its name, in lower case, such as `.tsv`, also of a `.tsv.gz`."""
    path = PurePosixPath(name)
    if path.suffix.lower() == ".gz":
        path = path.with_suffix("")
    return ".tsv" if path.name == REFERENCE_MEMBER else path.suffix.lower()


@dataclass(frozen=True)
class DataFile:
    """A table out of whatever it was packed in.

    Attributes:
        name: What messages call it.
        suffix: The end of its name, as `file_suffix` has it.
        content: Its bytes.
        facts: What provenance.json says of the packing.
    """

    name: str
    suffix: str
    content: bytes
    facts: dict[str, str] = field(default_factory=dict)


def take_out(content: bytes, suffix: str, name: str) -> DataFile:
    """Return the table that a file is or holds.

    Args:
        content: The whole file.
        suffix: One of SUFFIXES.
        name: The file, for messages.

    Raises:
        DataError: As `read_member` and `unpack`.
    """
    unpacked = unpack(content, name)
    facts = {} if unpacked is content else {"unpacked_sha256": _sha256(unpacked)}
    if suffix != ".zip":
        return DataFile(name, suffix, unpacked, facts)
    require_kind(unpacked, suffix, name)
    member, found = read_member(unpacked, name)
    facts |= {"member": member, "member_sha256": _sha256(found)}
    inner = f"{name}!{member}"
    return DataFile(inner, file_suffix(member), unpack(found, inner), facts)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def unpack(content: bytes, name: str) -> bytes:
    """Return what a gzip file holds, and any other file as it is, whatever its name says.

    Raises:
        DataError: The gzip file is damaged, or unpacks to too much.
    """
    if not content.startswith(GZIP):
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{name} is no readable gzip file.",
            where=name,
            actual=str(error),
            next="fetch or make the file again",
        ) from None
    require_size(name, len(unpacked))
    return unpacked


def read_member(content: bytes, name: str) -> tuple[str, bytes]:
    """Return the name and the bytes of the one data file in a zip; nothing is unpacked to disk.

    A member SMSSpamCollection is preferred; otherwise exactly one .tsv, .csv, .jsonl or
    .parquet must be there, apart from hidden files.

    Raises:
        DataError: The zip is broken, encrypted, unpacks to too much, holds links or names that
            lead out of a folder, or has no or several data files.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                _refuse_unsafe(info, name)
            chosen = _choose(archive.infolist(), name)
            require_size(f"{name}!{chosen.filename}", chosen.file_size)
            with archive.open(chosen) as member:
                # The declared size can be a lie. No more than it is ever unpacked, and what is
                # left then shows in the checksum, which is compared at the end.
                unpacked = member.read(chosen.file_size + 1)
    except UNREADABLE as error:
        raise DataError(
            f"{name} is no readable zip file.",
            where=name,
            actual=str(error) or type(error).__name__,
            next="fetch or make the file again",
        ) from None
    return chosen.filename, unpacked


def _refuse_unsafe(info: zipfile.ZipInfo, name: str) -> None:
    path = PurePosixPath(info.filename.replace("\\", "/"))
    drive = path.parts[:1] != () and path.parts[0].endswith(":")
    outside = ".." in path.parts or path.is_absolute() or drive
    dangers = {
        "has no name": not info.filename,
        "leads out of the folder": outside,
        "is a symbolic link": stat.S_ISLNK(info.external_attr >> 16),
        "is encrypted": bool(info.flag_bits & 0x1),
        "is packed by a rare method": info.compress_type not in PACKING,
    }
    found = [danger for danger, holds in dangers.items() if holds]
    if found:
        raise DataError(
            f"{name} is not read: a member {found[0]}.",
            where=f"{name}!{info.filename}",
            expected="plain, unencrypted files below one folder",
            kept="nothing was unpacked",
            next="make a zip of the data file alone",
        )


def _choose(infos: list[zipfile.ZipInfo], name: str) -> zipfile.ZipInfo:
    plain = [info for info in infos if not info.is_dir() and not _is_hidden(info.filename)]
    usable = [info for info in plain if file_suffix(info.filename) in PARSERS]
    reference = [i for i in usable if PurePosixPath(i.filename).name == REFERENCE_MEMBER]
    candidates = reference or usable
    if len(candidates) != 1:
        raise DataError(
            f"{name} holds {len(candidates) or 'no'} data files.",
            where=name,
            expected=f"exactly one {', '.join(PARSERS)} or {REFERENCE_MEMBER}",
            actual="\n".join(info.filename for info in infos[:20]) or "an empty archive",
            next="unpack it and set data.source to the data file",
        )
    return candidates[0]


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
