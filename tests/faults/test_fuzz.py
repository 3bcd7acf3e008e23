"""Whatever a file holds, reading it succeeds or says what is wrong: no crash, no hang.

A few hundred examples run with the suite, always the same; `make fuzz` draws 10,000 for each test.
"""

import copy
import gzip
import io
import json
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dvc.utils.serialize import dumps_yaml, loads_yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from faults.mutations import TREES, changed_bytes, changed_tree
from interchange import CLASSES, SMALL, make_small_base, make_source
from lora_compare.data.sources import load_corpus
from lora_compare.errors import UserError
from lora_compare.exchange.export import export
from lora_compare.exchange.imported import HEADS, SEED, build
from lora_compare.exchange.origins import base_problem
from lora_compare.exchange.peft.config import read_adapter
from lora_compare.exchange.peft.gpt import GPTLayout
from lora_compare.exchange.peft.reading import from_peft
from lora_compare.models.base import Base
from lora_compare.models.batches import Examples
from lora_compare.models.classifier import untuned
from lora_compare.models.gpt.base import GPTBase
from lora_compare.models.gpt.network import GPT, initialise
from lora_compare.models.gpt.tokenizer import load_encoding, save_encoding
from lora_compare.models.gpt.weights import gpt2_shapes, gpt2_state_dict, load_gpt2_state
from lora_compare.models.tokens import read_examples, write_examples
from lora_compare.models.weights import load_any_state
from lora_compare.params import DataParams, parse_params
from lora_compare.project.paths import Paths
from lora_settings import lora_settings
from small_project import small_params

pytestmark = [
    pytest.mark.timeout(7200),
    # Of patterns such as [[a]: a warning for who writes them, no fault.
    pytest.mark.filterwarnings("ignore:Possible (nested|set):FutureWarning"),
]

TRIALS = max(200, settings().max_examples)
examples = settings(max_examples=TRIALS)
LONGEST_MESSAGE = 100_000
"""Characters of an error: a terminal's few hundred lines."""

SWELLING = 2**20
"""Kibibytes that the whole of a test may add to the process's largest size."""

Property = Callable[[], None]


def trials(record: Callable[[str, Any], None], prove: Property) -> None:
    """Run a property, say how often it was tried, and that it took no great memory."""
    record("trials", TRIALS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prove()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < SWELLING


def outcome(action: Callable[[], Any]) -> Any:
    """Return what `action` gives, or None where it refuses; any other error is a fault."""
    try:
        return action()
    except UserError as error:
        message = str(error)
    assert 0 < len(message) < LONGEST_MESSAGE
    return None


ROWS = [("ham", "hello"), ("spam", 'win "£5", now'), ("ham", "a\\tb é"), ("spam", "x" * 200)]
TSV = "".join(f"{label}\t{text}\n" for label, text in ROWS).encode()
JSONL = "".join(json.dumps({"label": a, "text": b}) + "\n" for a, b in ROWS).encode()
FRAME = pd.DataFrame(ROWS, columns=["label", "text"])


def _parquet(label: str = "str", **options: Any) -> bytes:
    buffer = io.BytesIO()
    codes = pd.Series([0, 1, 0, 1])
    FRAME.assign(label=FRAME["label"] if label == "str" else codes.astype(label)).to_parquet(
        buffer, **options
    )
    return buffer.getvalue()


def zipped(members: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


SEEDS = {
    ".tsv": [TSV, b"label\ttext\r\n" + TSV, b"\xef\xbb\xbf" + TSV, TSV.decode().encode("utf-16")],
    ".csv": [FRAME.to_csv(index=False).encode(), b"label,text\n"],
    ".jsonl": [JSONL],
    ".parquet": [
        _parquet(),
        _parquet("category", compression=None),
        _parquet("int64", compression="gzip"),
        _parquet("datetime64[ns]", compression=None),
        _parquet("bool", compression="zstd"),
    ],
    ".csv.gz": [gzip.compress(FRAME.to_csv(index=False).encode())],
    ".zip": [
        zipped({"a.tsv": TSV}),
        zipped({"a.tsv": TSV}, zipfile.ZIP_STORED),
        zipped({"a/b.csv": FRAME.to_csv(index=False).encode(), "README": b"x"}),
        zipped({"SMSSpamCollection": TSV, "b.parquet": _parquet()}),
    ],
}


@pytest.mark.parametrize("suffix", SEEDS)
def test_row_15_any_bytes_are_a_corpus_or_refused(
    suffix: str, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    path = tmp_path / f"m{suffix}"
    data = DataParams(source=path.name, text_column="text", label_column="label")
    seeds = st.sampled_from(SEEDS[suffix])

    @examples
    @given(seeds.flatmap(changed_bytes) | st.binary(max_size=200))
    def prove(content: bytes) -> None:
        path.write_bytes(content)
        result = outcome(lambda: load_corpus(data, Paths(tmp_path)))
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
        if result is not None and suffix in (".tsv", ".jsonl"):
            messages, _ = result
            lines = content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
            filled = [line for line in lines if line.strip()] if suffix == ".jsonl" else lines
            header = suffix == ".tsv" and {"label", "text"} <= set(lines[0].split("\t"))
            # No row is merged or dropped.
            assert len(messages["text"]) == sum(line != "" for line in filled) - header

    trials(record_property, prove)


NAMES = st.sampled_from(
    [
        "a.tsv",
        "a.csv",
        "SMSSpamCollection",
        "../a.tsv",
        "/a",
        "C:/a",
        "d/",
        "b\\..\\c",
        ".h",
        "é.tsv",
    ]
) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
)


def test_row_24_any_archive_is_a_corpus_or_refused(
    tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    path = tmp_path / "m.zip"
    data = DataParams(source=path.name, text_column="text", label_column="label")
    contents = st.sampled_from([TSV, b"", zipped({"a.tsv": TSV})]) | st.binary(max_size=50)
    packings = st.sampled_from([0, 8, 8, 12, 14])

    @examples
    @given(st.dictionaries(NAMES, contents, max_size=4), packings, st.data())
    def prove(members: dict[str, bytes], packing: int, more: st.DataObject) -> None:
        content = bytearray(zipped(members, packing))
        at = content.find(b"PK\x01\x02")
        if at >= 0:
            # Versions, flags, method, checksum and sizes in the directory.
            offset = more.draw(st.integers(4, 45))
            struct.pack_into("<H", content, at + offset, more.draw(st.integers(0, 65_535)))
        path.write_bytes(content)
        outcome(lambda: load_corpus(data, Paths(tmp_path)))
        assert [p.name for p in tmp_path.iterdir()] == ["m.zip"]

    trials(record_property, prove)


PARAMS = small_params()
SETTINGS = loads_yaml(PARAMS)
FULL_ADAPTER = {
    "exclude_modules": ["score"],
    "modules_to_save": ["ln_f"],
    "layers_to_transform": [0, 1],
    "rank_pattern": {"q_proj": 4},
    "alpha_pattern": {"c_fc": 2.0},
    "use_rslora": False,
    "init_lora_weights": True,
    "loraplus_lr_ratio": 16,
    "quantization": None,
}
SETTINGS["methods"]["lora"]["lora"] |= FULL_ADAPTER
SETTINGS["methods"]["theirs"] = {"trainable": "imported", "adapter": "x", "sha256": "0" * 64}


def test_row_26_any_settings_are_accepted_or_refused(
    record_property: Callable[[str, Any], None],
) -> None:
    @examples
    @given(changed_tree(SETTINGS) | TREES)
    def prove(tree: Any) -> None:
        outcome(lambda: parse_params(dumps_yaml(tree)))

    trials(record_property, prove)


def test_row_26_any_text_is_settings_or_refused(
    record_property: Callable[[str, Any], None],
) -> None:
    tags = st.sampled_from(
        ["&a ", "*a", "!!int ", "!!timestamp ", "!!binary ", "<<: ", "? ", "- ", "| ", "!!set "]
    )

    @examples
    @given(changed_bytes(PARAMS.encode()), st.lists(st.tuples(st.floats(0, 1), tags), max_size=3))
    def prove(content: bytes, additions: list[tuple[float, str]]) -> None:
        text = content.decode(errors="replace")
        for share, tag in additions:
            at = int(share * len(text))
            text = text[:at] + tag + text[at:]
        outcome(lambda: parse_params(text))

    trials(record_property, prove)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_small_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def adapter(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter as PEFT writes it, with every kind of tensor."""
    folder = tmp_path_factory.mktemp("adapter")
    make_small_base(folder / "base")
    settings_ = lora_settings(
        target_modules=["c_attn", "wte"], modules_to_save=["score", "ln_2"], use_dora=False
    )
    export(make_source(folder / "base", settings_, bias=False), "peft", folder / "peft")
    return folder / "peft"


def take_in(folder: Path, base: Base) -> None:
    """Read an adapter and put it on the base, as an import does before it writes anything."""
    adapter = read_adapter(folder)
    own = GPTBase(copy.deepcopy(base.network), base.tokenizer, base.description)
    bare = untuned(own, CLASSES, HEADS["gpt"], SEED)
    imported = from_peft(adapter, GPTLayout(bare.model, base.network.state_dict()), CLASSES)
    base_problem(adapter.config, base, folder)
    build(imported, bare)


def test_row_28_any_settings_of_an_adapter_are_accepted_or_refused(
    base: Base, adapter: Path, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    content = (adapter / "adapter_model.safetensors").read_bytes()
    (tmp_path / "adapter_model.safetensors").write_bytes(content)

    @examples
    @given(changed_tree(config) | TREES)
    def prove(tree: Any) -> None:
        text = json.dumps(tree, default=str)
        (tmp_path / "adapter_config.json").write_text(text, encoding="utf-8")
        outcome(lambda: take_in(tmp_path, base))

    trials(record_property, prove)


def test_row_28_any_tensors_of_an_adapter_are_accepted_or_refused(
    base: Base, adapter: Path, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    config = (adapter / "adapter_config.json").read_bytes()
    (tmp_path / "adapter_config.json").write_bytes(config)
    tensors = load_file(adapter / "adapter_model.safetensors")
    names = sorted(tensors)
    dimensions = st.lists(st.integers(0, 8) | st.sampled_from([3, 24, 72]), max_size=3)

    @examples
    @given(st.lists(st.tuples(st.sampled_from(names), dimensions), max_size=3), st.data())
    def prove(changes: list[tuple[str, list[int]]], more: st.DataObject) -> None:
        changed = dict(tensors)
        for name, shape in changes:
            new_name = more.draw(st.sampled_from(names) | st.just(name + "x"))
            changed[new_name] = changed.pop(name, tensors[name]).new_ones(shape)
        save_file(changed, tmp_path / "adapter_model.safetensors")
        outcome(lambda: take_in(tmp_path, base))

    trials(record_property, prove)


SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "BOOL": 1}
"""Bytes of a number, by the name of its type in a safetensors file."""


@st.composite
def retyped(draw: st.DrawFn, header: dict[str, Any]) -> dict[str, Any]:
    """Return a header whose tensors have other types, shapes and names, but fill the same bytes."""
    header = copy.deepcopy(header)
    for name in draw(st.lists(st.sampled_from(sorted(header)), min_size=1, max_size=3)):
        if "data_offsets" in header.get(name, {}):
            start, end = header[name]["data_offsets"]
            header[name]["dtype"] = kind = draw(st.sampled_from(sorted(SIZES)))
            shape = [(end - start) // SIZES[kind]]
            header[name]["shape"] = draw(st.sampled_from([shape, [1, *shape], [*shape, 1]]))
            header[draw(st.sampled_from([name, name + "x"]))] = header.pop(name)
    return header


@st.composite
def changed_safetensors(draw: st.DrawFn, content: bytes) -> bytes:
    """Return a safetensors file with changes anywhere, or in its header as JSON."""
    if draw(st.booleans()):
        return draw(changed_bytes(content))
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(draw(changed_tree(header) | retyped(header)), default=str).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def test_row_25_any_checkpoint_is_read_whole_or_refused(
    tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    path = tmp_path / "model.safetensors"
    good = save(gpt2_state_dict(initialise(GPT(SMALL)).state_dict()))
    shapes = gpt2_shapes(SMALL)

    @examples
    @given(changed_safetensors(good))
    def prove(content: bytes) -> None:
        path.write_bytes(content)
        state = outcome(lambda: load_gpt2_state(path, SMALL))
        assert state is None or all(t.isfinite().all() for t in state.values())
        outcome(lambda: load_any_state(path))
        assert shapes == gpt2_shapes(SMALL)

    trials(record_property, prove)


def test_row_25_any_tokens_are_a_split_or_refused(
    tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    path = tmp_path / "train.safetensors"
    texts = [np.array([7, 8, 9]), np.array([1]), np.arange(30)]
    write_examples(path, Examples(texts, np.array([0, 1, 1])))
    good = path.read_bytes()

    @examples
    @given(changed_safetensors(good))
    def prove(content: bytes) -> None:
        path.write_bytes(content)
        examples = outcome(lambda: read_examples(path))
        if examples is not None:
            assert len(examples.tokens) == len(examples.labels)
            assert all(len(ids) and ids.ndim == 1 for ids in examples.tokens)
            assert examples.labels.ndim == 1

    trials(record_property, prove)


def test_row_25_any_tokenizer_is_whole_or_refused(
    base: Base, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    path = tmp_path / "tokenizer.json"
    save_encoding(base.tokenizer.encoding, path)
    good = path.read_bytes()
    content = json.loads(good)

    @examples
    @given(changed_bytes(good) | changed_tree(content).map(lambda t: json.dumps(t).encode()))
    def prove(changed: bytes) -> None:
        path.write_bytes(changed)
        encoding = outcome(lambda: load_encoding(path))
        if encoding is not None and encoding.name != "gpt2":
            text = "any text, é 😀\n"
            assert encoding.decode(encoding.encode_ordinary(text)) == text

    trials(record_property, prove)
