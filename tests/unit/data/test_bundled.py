"""The bundled corpus is the promised one, the same everywhere, and of fair difficulty."""

import hashlib
import os
import re
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from lora_compare.data import bundled
from lora_compare.data.splits import Frames, split
from lora_compare.evaluation.baselines import character_model, word_model
from lora_compare.params import SplitParams
from lora_compare.project.corpus import make_corpus

DEFAULT = SplitParams(
    mode="stratified",
    deduplicate="exact",
    balance="undersample",
    train=0.7,
    validation=0.1,
    seed=123,
)

Rows = list[tuple[str, str]]


@pytest.fixture(scope="module")
def table() -> bytes:
    return bundled.table()


@pytest.fixture(scope="module")
def rows(table: bytes) -> Rows:
    """The messages as a stranger reads the file: lines, cut at the tab."""
    lines = table.decode("utf-8").removesuffix("\n").split("\n")
    pairs = [line.split("\t") for line in lines]
    assert {len(pair) for pair in pairs} == {2}
    return [(label, text) for label, text in pairs]


@pytest.fixture(scope="module")
def corpus(rows: Rows) -> pd.DataFrame:
    return make_corpus([label for label, _ in rows], [text for _, text in rows])


@pytest.fixture(scope="module")
def frames(corpus: pd.DataFrame) -> Frames:
    return split(corpus, DEFAULT)[0]


def test_bytes_are_the_recorded_ones(table: bytes) -> None:
    assert hashlib.sha256(table).hexdigest() == bundled.SHA256


def test_bytes_do_not_depend_on_hash_seed_and_locale() -> None:
    program = (
        "import hashlib; from lora_compare.data import bundled;"
        "print(hashlib.sha256(bundled.table()).hexdigest())"
    )
    for seed, locale in (("1", "C"), ("2", "C.UTF-8")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale, "PYTHONUTF8": "0"}
        ran = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True
        )
        assert ran.stdout.decode().strip() == bundled.SHA256


def test_file_has_the_format_of_the_real_collection(table: bytes, rows: Rows) -> None:
    assert table.endswith(b"\n")
    assert b"\r" not in table
    assert rows == bundled.messages()
    for _, text in rows:
        assert text == " ".join(text.split())
        assert "\\" not in text
        assert text.isprintable()


def test_classes_have_the_sizes_of_the_real_collection(rows: Rows) -> None:
    assert Counter(label for label, _ in rows) == {"ham": 4827, "spam": 747}


def test_most_texts_are_distinct_and_some_are_repeated(corpus: pd.DataFrame) -> None:
    assert corpus["text"].nunique() >= 5000
    repeated = corpus[corpus.duplicated("text")]["label"].value_counts()
    assert 300 <= repeated.sum() <= 400
    assert repeated["spam"] / 747 > repeated["ham"] / 4827


def test_no_text_has_two_labels(corpus: pd.DataFrame) -> None:
    assert corpus.groupby("text")["label"].nunique().max() == 1


def test_classes_are_interleaved(rows: Rows) -> None:
    for start in range(0, 5400, 200):
        spam = sum(label == "spam" for label, _ in rows[start : start + 200])
        assert 8 <= spam <= 50


def test_texts_hold_what_readers_trip_over(rows: Rows) -> None:
    texts = [text for _, text in rows]
    assert sum("£" in text for text in texts) > 500
    assert sum(text.startswith('"') for text in texts) > 10
    assert any(text.count('"') % 2 for text in texts)
    assert any("é" in text for text in texts)
    assert any(":)" in text for text in texts)


@pytest.mark.parametrize("topic", ["code", "parcel", "your card", "£", "example", "appointment"])
def test_wanted_messages_hold_what_spam_is_made_of(topic: str, corpus: pd.DataFrame) -> None:
    holds = corpus["text"].str.contains(topic, regex=False).groupby(corpus["label"]).sum()
    assert holds["ham"] >= 25
    assert topic == "appointment" or holds["spam"] >= 10


def test_telephone_numbers_are_fictitious(rows: Rows) -> None:
    numbers = [
        n for _, text in rows for n in re.findall(r"(?<!\d)(?:\+44|0)(?: ?\d){9,10}(?!\d)", text)
    ]
    assert len(numbers) > 200
    drama = re.compile(r"(\+44|0)7700900|02079460|08081570|0909879|03069990")
    assert [n for n in numbers if not drama.match(n.replace(" ", ""))] == []


def test_links_lead_to_reserved_names(rows: Rows) -> None:
    hosts = {h for _, text in rows for h in re.findall(r"(?<=://)[\w.-]+", text.lower())}
    reserved = re.compile(r"([\w-]+\.)*example(\.(com|net|org))?\.?")
    assert len(hosts) >= 10
    assert [host for host in hosts if not reserved.fullmatch(host)] == []


@pytest.mark.parametrize("name", ["ham", "spam"])
def test_templates_are_well_formed(name: str) -> None:
    folder = resources.files("lora_compare.data") / "bundled_data"
    slots = tomllib.loads((folder / "slots.toml").read_text("utf-8"))["slots"]
    topics = tomllib.loads((folder / f"{name}.toml").read_text("utf-8"))["topics"]
    filled = [line for entries in slots.values() for line in entries]
    for topic in topics.values():
        filled += topic["messages"].strip().splitlines()
    for line in filled:
        assert set(re.findall(r"\{(\w+)\}", line)) <= set(slots), line
        assert re.sub(r"\{\w+\}", "", line).count("{") == 0, line
        assert line.count("[") == line.count("]"), line


def test_generation_is_quick() -> None:
    start = time.process_time()
    bundled.table()
    assert time.process_time() - start < 2


def surface(texts: list[str]) -> np.ndarray:
    """Length, digits, capitals, punctuation and pound signs of each text."""
    return np.array(
        [
            [
                len(text),
                sum(c.isdigit() for c in text),
                sum(c.isupper() for c in text),
                sum(not c.isalnum() and not c.isspace() for c in text),
                text.count("£"),
            ]
            for text in texts
        ],
        dtype=float,
    )


def accuracy(model: Pipeline, frames: Frames) -> float:
    train, test = frames["train"], frames["test"]
    model.fit(train["Text"].tolist(), train["Label"].to_numpy())
    return float(model.score(test["Text"].tolist(), test["Label"].to_numpy()))


@pytest.mark.parametrize("make", [word_model, character_model])
def test_tfidf_is_neither_perfect_nor_hopeless(
    make: Callable[[], Pipeline], frames: Frames
) -> None:
    assert 0.93 <= accuracy(make(), frames) <= 0.98


def test_tfidf_is_so_on_other_splits_too(corpus: pd.DataFrame) -> None:
    settings = [DEFAULT.model_copy(update={"seed": seed}) for seed in range(4)]
    found = [accuracy(word_model(), split(corpus, params)[0]) for params in settings]
    assert 0.93 <= np.mean(found) <= 0.98


def test_length_and_character_counts_do_not_tell_spam(frames: Frames) -> None:
    model = make_pipeline(FunctionTransformer(surface), StandardScaler(), LogisticRegression())
    assert 0.7 <= accuracy(model, frames) <= 0.9


def test_the_books_split_reads_the_corpus_whole(corpus: pd.DataFrame) -> None:
    book = DEFAULT.model_copy(update={"mode": "appendix_e", "deduplicate": "none"})
    sizes = {name: len(frame) for name, frame in split(corpus, book)[0].items()}
    assert (sizes["train"], sizes["validation"], sizes["test"]) == (1045, 149, 300)
