"""What params.yaml may say of given splits, groups, dates and caps, and what contradicts itself."""

import pytest

from lora_compare.errors import ParamsError
from lora_compare.params import Params, parse_params
from small_project import ROOT

H = "5e" * 32
IMPORTED = f"{{trainable: imported, adapter: a, sha256: {H}, config_sha256: {H}}}"
FILES = "{train: a.csv, test: b.csv}"


def params_with(**changes: str) -> Params:
    """Return the default parameters with other values of keys that stand once in them."""
    text = (ROOT / "recipes" / "default.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    for key, value in changes.items():
        (place,) = [i for i, line in enumerate(lines) if line.startswith(f"  {key}:")]
        lines[place] = f"  {key}: {value}"
    return parse_params("\n".join(lines))


GIVEN = {"train": "null", "validation": "null"}


@pytest.mark.parametrize(
    "changes",
    [
        {"split_column": "part", **GIVEN},
        {"split_column": "part", "train": "null"},
        {"split_column": "part", "group_column": "who", **GIVEN},
        {"source": FILES, "train": "null"},
        {"source": "{train: a.csv, validation: v.csv, test: b.csv}", **GIVEN},
        {"group_column": "who", "time_column": "day"},
        {"time_column": "day", "balance": "undersample"},
        {"balance": "cap", "cap": "1"},
        {"balance": "cap", "cap": "2.5"},
        {"folds": "5"},
        {"folds": "5", "group_column": "who"},
        {"folds": "3", "train": "null", "seeds": "[1, 2, 3]"},
        {"folds": "3", "train": "0.567", "seeds": "[1, 2, 3]"},
    ],
)
def test_what_fits_together_is_accepted(changes: dict[str, str]) -> None:
    params_with(**changes)


@pytest.mark.parametrize(
    ("changes", "mistakes"),
    [
        ({"split_column": "part"}, ["split.train: data.split_column gives the training split"]),
        ({"source": FILES}, ["split.train: data.source gives the training split"]),
        (
            {"source": "{train: a.csv, validation: v.csv, test: b.csv}", "train": "null"},
            ["split.validation: data.source gives the validation split"],
        ),
        ({"source": FILES, **GIVEN}, ["split.validation: missing; data.source has no validation"]),
        (
            {"source": FILES, "split_column": "part", "train": "null"},
            ["data.split_column: data.source has a file for each split"],
        ),
        (
            {"split_column": "part", "time_column": "day", **GIVEN},
            ["data.time_column: data.split_column gives the splits"],
        ),
        (
            {"split_column": "part", "balance": "undersample", **GIVEN},
            ["split.balance: undersample cuts test too, and data.split_column gives it"],
        ),
        (
            {"source": FILES, "train": "null", "sha256": f"'{'5' * 64}'"},
            ["data.sha256: pins one file, and data.source names several"],
        ),
        (
            {"mode": "appendix_e", "group_column": "who", "time_column": "day"},
            ["split.mode: appendix_e is a split of its own", "data.group_column, data.time_column"],
        ),
        (GIVEN, ["split.train: missing", "split.validation: missing"]),
        ({"balance": "cap"}, ["split.cap: should be a number with balance: cap"]),
        ({"cap": "2"}, ["split.cap: should be left out, since balance is train"]),
        ({"balance": "cap", "cap": "0.5"}, ["split.cap: should be greater than or equal to 1"]),
        ({"balance": "cap", "cap": ".inf"}, ["split.cap: should be a finite number"]),
        ({"source": "{train: a.csv}"}, ["data.source: needs a file of test, too"]),
        ({"source": "{train: a.csv, dev: b.csv}"}, ["and not of dev"]),
        ({"source": "{train: a.csv, test: a.csv}"}, ["data.source: names a.csv twice"]),
        ({"source": "{train: a.csv, test: 5}"}, ["data.source: test should name a file"]),
        ({"source": "5"}, ["data.source: should be a text, or {train: FILE, test: FILE}"]),
        ({"source": "''"}, ["data.source: should name a source"]),
        ({"group_column": "''"}, ["data.group_column: "]),
        (
            {"folds": "5", "split_column": "part", **GIVEN},
            ["split.folds: data.split_column says which messages are test"],
        ),
        (
            {"folds": "5", "source": FILES, "train": "null"},
            ["split.folds: data.source says which messages are test"],
        ),
        ({"folds": "5", "time_column": "day"}, ["split.folds: data.time_column says which"]),
        ({"folds": "5", "mode": "appendix_e"}, ["which has no use for split.folds"]),
        ({"folds": "5", "balance": "undersample"}, ["split.balance: undersample cuts test too"]),
        ({"folds": "5", **GIVEN}, ["split.validation: missing"]),
        (
            {"folds": "10"},
            [
                "split.train: 10 folds and validation leave 0.8; set it to null",
                "training.seeds: 10 folds need 10 seeds, one each, not 5",
            ],
        ),
        ({"folds": "2"}, ["split.folds: should be 3 or more"]),
        ({"folds": "0"}, ["split.folds: should be greater than or equal to 1"]),
    ],
)
def test_what_says_two_things_of_one_split_is_refused(
    changes: dict[str, str], mistakes: list[str]
) -> None:
    with pytest.raises(ParamsError) as error:
        params_with(**changes)
    for mistake in mistakes:
        assert mistake in error.value.where


def test_an_imported_method_is_refused_in_folds() -> None:
    text = (ROOT / "recipes" / "default.yaml").read_text(encoding="utf-8")
    text = text.replace("folds: 1", "folds: 5").replace(
        "methods: ", f"methods:\n  theirs: {IMPORTED}\n#", 1
    )
    with pytest.raises(ParamsError, match="mistake") as error:
        parse_params(text)
    assert "methods.theirs: imported, and so not trained" in error.value.where


def test_every_training_has_its_fold() -> None:
    assert params_with(folds="5").trained == {1: 1, 2: 2, 3: 3, 4: 4, 5: 5}
    assert params_with().trained == dict.fromkeys((1, 2, 3, 4, 5))
    assert params_with().split.fold_numbers == (None,)


def test_a_source_is_named_with_its_splits() -> None:
    data = params_with(source=FILES, train="null").data
    assert data.described == "train: a.csv, test: b.csv"
    assert data.address == "a.csv"
    assert {part: one.address for part, one in data.files.items()} == {
        "train": "a.csv",
        "test": "b.csv",
    }
    assert params_with().data.described == "bundled"
    secret = params_with(source="https://me:secret@example.org/a.csv").data
    assert secret.described == "https://example.org/a.csv"
