"""A source is the file that was asked for, or nothing is read."""

import hashlib
import io
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from lora_compare.data import bundled, sources
from lora_compare.data.downloads import Patience
from lora_compare.data.places import require_watched
from lora_compare.data.sources import Archive, load_corpus, open_source
from lora_compare.errors import DataError, DownloadError
from lora_compare.params import DataParams
from lora_compare.project.paths import Paths
from web import status

ROWS = b"ham\thello\nspam\twin\n"
QUICK = Patience(read_timeout=1, attempts=2, first_wait=0, longest_wait=0)


def make_zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def data(source: str, **settings: Any) -> DataParams:
    values = {"text_column": "text", "label_column": "label", **settings}
    return DataParams(source=source, **values)


@pytest.fixture
def project(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


def load(project: Paths, name: str, content: bytes, **settings: Any) -> Any:
    (project.root / name).write_bytes(content)
    return load_corpus(data(name, **settings), project)


def test_path_with_its_provenance(project: Paths) -> None:
    corpus, provenance = load(project, "mine.tsv", ROWS)
    assert corpus == {"label": ["ham", "spam"], "text": ["hello", "win"]}
    assert provenance == {
        "source": "mine.tsv",
        "path": "mine.tsv",
        "sha256": sha256(ROWS),
        "bytes": len(ROWS),
        "rows": 2,
        "classes": {"ham": 1, "spam": 1},
        "normalized": {"byte_order_marks": 0, "blank_lines": 0, "crlf_line_ends": 0},
    }


def test_bundled_corpus(project: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "table", lambda: ROWS)
    corpus, provenance = load_corpus(data("bundled"), project)
    assert corpus["text"] == ["hello", "win"]
    assert provenance["source"] == "bundled"
    assert provenance["sha256"] == sha256(ROWS)


@pytest.mark.parametrize(
    "members",
    [
        {"data.tsv": ROWS, "README.txt": b"x", "__MACOSX/._data.tsv": b"x", ".hidden.tsv": b"x"},
        {"folder/SMSSpamCollection": ROWS, "other.tsv": b"x"},
        {"folder/data.csv": b"label,text\nham,hello\nspam,win\n"},
    ],
)
def test_data_file_in_a_zip(members: dict[str, bytes], project: Paths) -> None:
    corpus, _ = load(project, "mine.zip", make_zip(members))
    assert list(corpus["text"]) == ["hello", "win"]
    assert [path.name for path in project.root.iterdir()] == ["mine.zip"]


def test_error_in_a_member_names_zip_member_and_line(project: Paths) -> None:
    with pytest.raises(DataError, match=r"mine\.zip!a\.tsv:2: no tab"):
        load(project, "mine.zip", make_zip({"a.tsv": b"ham\ta\nbroken\n"}))


def test_checksum_of_params_is_held_against_the_file(project: Paths) -> None:
    load(project, "mine.tsv", ROWS, sha256=sha256(ROWS))
    with pytest.raises(DataError) as error:
        load(project, "mine.tsv", ROWS, sha256="0" * 64)
    assert "0" * 64 in str(error.value)
    assert sha256(ROWS) in str(error.value)
    assert (project.root / "mine.tsv").read_bytes() == ROWS


@pytest.mark.parametrize(
    "source", ["missing.tsv", "folder", "mine.xlsx", "ftp://host/a.tsv", "https://host/a"]
)
def test_source_that_cannot_be_read_is_named(source: str, project: Paths) -> None:
    (project.root / "folder").mkdir()
    (project.root / "mine.xlsx").write_bytes(b"x")
    with pytest.raises(DataError) as error:
        load_corpus(data(source), project)
    assert error.value.where == "params.yaml: data.source"
    assert source in str(error.value)


def test_a_file_that_stayed_in_the_project_is_named_with_the_way_to_take_it_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    for folder in (original, copy):
        (folder / "inputs").mkdir(parents=True)
    (original / "inputs" / "mine.tsv").write_bytes(ROWS)
    monkeypatch.setenv("DVC_ROOT", str(original))
    with pytest.raises(DataError, match=r"inputs/mine\.tsv is not in the copy") as error:
        load_corpus(data("inputs/mine.tsv"), Paths(copy))
    assert "dvc add inputs/mine.tsv" in error.value.next
    with pytest.raises(DataError, match="cannot be read"):
        load_corpus(data("inputs/other.tsv"), Paths(copy))


@pytest.mark.parametrize(
    "source",
    [
        *("mine/x.csv", "inputs/x.csv", "inputs/adapters/x.csv", "x.csv", "/data/x.csv", "~/x.csv"),
        *("inputs/text/../x.csv", "inputs/text/folder/x.csv", "inputs/text/folder/deep/x.csv"),
    ],
)
def test_a_file_whose_changes_no_stage_would_see_is_refused_unless_it_is_pinned(
    source: str, project: Paths
) -> None:
    (project.root / "inputs" / "text").mkdir(parents=True)
    (project.root / "mine").mkdir()
    (project.root / "inputs" / "text" / "folder").symlink_to(project.root / "mine")
    with pytest.raises(DataError, match="DVC would not see a change") as error:
        require_watched(data(source), project)
    assert error.value.where == "params.yaml: data.source"
    assert "data.source: inputs/text/x.csv" in error.value.next
    assert f"sha256sum {source}" in error.value.next.replace("'", "")
    require_watched(data(source, sha256="0" * 64), project)


@pytest.mark.parametrize(
    "source",
    [
        *("bundled", "uci", "https://host/x.csv", "inputs/text/x.csv", "./inputs/text/x.csv"),
        *("inputs/text/deep/x.csv", "inputs/text/link.csv"),
    ],
)
def test_what_the_stage_depends_on_needs_no_checksum(source: str, project: Paths) -> None:
    (project.root / "inputs" / "text" / "deep").mkdir(parents=True)
    (project.root / "inputs" / "text" / "link.csv").symlink_to("/data/x.csv")
    require_watched(data(source), project)


class Web(dict[str, bytes]):
    """What a server on loopback serves, by path; anything else it has not."""

    def __init__(self, server: HTTPServer) -> None:
        super().__init__()
        self.address = server.url_for("")
        server.expect_request(re.compile(".*")).respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        if request.path in self:
            return Response(self[request.path])
        return status(404)


@pytest.fixture
def files(server: HTTPServer) -> Web:
    return Web(server)


def test_address_is_downloaded_and_recorded(project: Paths, files: Web) -> None:
    files["/my data.tsv"] = ROWS
    url = files.address + "/my%20data.tsv?x=1"
    corpus, provenance = load_corpus(data(url), project)
    assert corpus["text"] == ["hello", "win"]
    assert provenance["url"] == url
    assert provenance["sha256"] == sha256(ROWS)


def test_changed_address_is_read_anew_unless_it_is_pinned(project: Paths, files: Web) -> None:
    url = files.address + "/a.tsv"
    files["/a.tsv"] = ROWS
    load_corpus(data(url), project)
    files["/a.tsv"] = ROWS + b"spam\tmore\n"
    assert load_corpus(data(url), project)[1]["rows"] == 3
    pinned = data(url, sha256=sha256(files["/a.tsv"]))
    del files["/a.tsv"]
    assert load_corpus(pinned, project)[1]["rows"] == 3


def make_uci(files: Web, zipped: bytes, member: bytes) -> Archive:
    address = files.address
    return Archive(
        (f"{address}/primary.zip", f"{address}/mirror.zip"), sha256(zipped), sha256(member)
    )


def test_uci_falls_back_to_the_mirror_and_records_the_same(
    project: Paths, files: Web, tmp_path_factory: pytest.TempPathFactory
) -> None:
    zipped = make_zip({"SMSSpamCollection": ROWS})
    uci = make_uci(files, zipped, ROWS)
    files["/primary.zip"] = b"<html>"
    files["/mirror.zip"] = zipped
    by_mirror = open_source(data("uci"), project, uci=uci, patience=QUICK)
    files["/primary.zip"] = zipped
    other = Paths(tmp_path_factory.mktemp("other"))
    by_primary = open_source(data("uci"), other, uci=uci, patience=QUICK)
    assert by_mirror == by_primary
    assert by_mirror.content == zipped


def test_uci_needs_no_network_once_it_is_there(project: Paths, files: Web) -> None:
    zipped = make_zip({"SMSSpamCollection": ROWS})
    uci = make_uci(files, zipped, ROWS)
    files["/primary.zip"] = zipped
    open_source(data("uci"), project, uci=uci, patience=QUICK)
    del files["/primary.zip"]
    assert open_source(data("uci"), project, uci=uci, patience=QUICK).content == zipped


def test_poisoned_download_is_fetched_again(project: Paths, files: Web) -> None:
    zipped = make_zip({"SMSSpamCollection": ROWS})
    project.downloads.mkdir()
    (project.downloads / "sms+spam+collection.zip").write_bytes(b"poison")
    files["/primary.zip"] = zipped
    uci = make_uci(files, zipped, ROWS)
    assert open_source(data("uci"), project, uci=uci, patience=QUICK).content == zipped


def test_uci_that_nobody_serves_says_where_to_put_the_file(project: Paths, files: Web) -> None:
    uci = make_uci(files, b"a", b"b")
    with pytest.raises(DownloadError) as error:
        open_source(data("uci"), project, uci=uci, patience=QUICK)
    message = str(error.value)
    assert "data.source: inputs/text/sms+spam+collection.zip" in message
    assert all(url in message for url in uci.urls)


def test_zip_with_another_member_than_pinned_is_refused(
    project: Paths, files: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped = make_zip({"SMSSpamCollection": ROWS})
    files["/primary.zip"] = zipped
    uci = make_uci(files, zipped, b"other")
    source = open_source(data("uci"), project, uci=uci, patience=QUICK)
    monkeypatch.setattr(sources, "open_source", lambda *_: source)
    with pytest.raises(DataError, match=sha256(b"other")):
        load_corpus(data("uci"), project)


def test_checksum_of_params_that_contradicts_uci_is_refused_at_once(project: Paths) -> None:
    with pytest.raises(DataError, match="0" * 64):
        load_corpus(data("uci", sha256="0" * 64), project)


@pytest.mark.real_data
def test_real_file_passes_untouched(assets: Path, project: Paths) -> None:
    content = (assets / "sms" / "SMSSpamCollection").read_bytes()
    assert sha256(content) == sources.UCI.member_sha256
    corpus, provenance = load(project, "SMSSpamCollection", content)
    assert provenance["rows"] == 5574
    assert provenance["classes"] == {"ham": 4827, "spam": 747}
    rows = zip(corpus["label"], corpus["text"], strict=True)
    lines = "".join(f"{label}\t{text}\n" for label, text in rows)
    assert lines.encode() == content
