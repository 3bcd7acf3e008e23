"""Imported methods in params.yaml: their settings, and how one is added to the file."""

import re
from pathlib import Path

import pytest

from lora_compare.errors import ParamsError
from lora_compare.params import parse_params, with_method

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "recipes" / "quick.yaml").read_text()
SETTINGS = {
    "trainable": "imported",
    "adapter": "inputs/adapters/theirs",
    "sha256": "a" * 64,
    "config_sha256": "b" * 64,
}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sha256: xyz", "methods.theirs.sha256"),
        (f"adapter: x\n    sha256: {'a' * 64}\n    learning_rate: 0.1", "remove learning_rate"),
        (f"adapter: x\n    sha256: {'a' * 64}\n    weight_decay: 0.1", "remove weight_decay"),
        ("", "methods.theirs.adapter: missing"),
        (f"adapter: x\n    sha256: {'a' * 64}", "methods.theirs.config_sha256: missing"),
    ],
)
def test_an_imported_method_has_its_own_settings(line: str, expected: str) -> None:
    text = TEXT.replace(
        "\ncomparison:", f"  theirs:\n    trainable: imported\n    {line}\n\ncomparison:"
    )
    with pytest.raises(ParamsError) as caught:
        parse_params(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    learning_rate: 2.0e-4\n", "", "methods.full.learning_rate: missing"),
        ("    weight_decay: 0.1\n  lora", "  lora", "methods.full.weight_decay: missing"),
        ("learning_rate: 2.0e-4", "learning_rate: null", "methods.full.learning_rate: missing"),
        ("trainable: all", "adapter: x\n    trainable: all", "only for trainable: imported"),
    ],
)
def test_a_trained_method_needs_its_optimizers_settings(old: str, new: str, expected: str) -> None:
    assert old in TEXT
    with pytest.raises(ParamsError) as caught:
        parse_params(TEXT.replace(old, new, 1))
    assert expected in str(caught.value)


def test_a_method_dumps_what_applies_to_it() -> None:
    params = parse_params(with_method(TEXT, "theirs", SETTINGS))
    assert set(params.method("full").model_dump()) == {
        "trainable",
        "learning_rate",
        "weight_decay",
        "lora",
        "search",
    }
    assert set(params.method("theirs").model_dump()) == {
        "trainable",
        "adapter",
        "sha256",
        "config_sha256",
        "classes",
    }


VARIANTS = {
    "default": TEXT,
    "methods last": TEXT.split("\ncomparison:")[0].replace(
        "data:", "comparison: {}\ntracking: {experiment: x}\ndata:"
    )
    + "\n",
    "no newline at the end": TEXT.split("\ncomparison:")[0]
    .replace("data:", "comparison: {}\ntracking: {experiment: x}\ndata:")
    .rstrip(),
    "windows newlines": TEXT.replace("\n", "\r\n"),
    "deeper indents": TEXT.split("\nmethods:")[0]
    + re.sub("(?m)^( +)", r"\1\1", "\nmethods:" + TEXT.split("\nmethods:")[1]),
    "comments around": TEXT.replace("bias: none\n", "bias: none  # why\n  # after\n# more\n"),
    "flow style inside": TEXT.split("    lora:\n")[0]
    + "    lora: {r: 2, lora_alpha: 2, lora_dropout: 0.0,\n"
    + "      target_modules: [q_proj], bias: none}\n\ncomparison: {}\ntracking: {experiment: x}\n",
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_method_is_added_without_touching_another_line(variant: str) -> None:
    text = VARIANTS[variant]
    settings = {**SETTINGS, "classes": ["a, b", "no", "1"]}
    after = with_method(text, "theirs", settings)
    params = parse_params(after)
    assert list(params.methods) == ["full", "lora", "theirs"]
    assert params.method("theirs").classes == ["a, b", "no", "1"]
    lines = after.splitlines(keepends=True)
    added = next(i for i, line in enumerate(lines) if "theirs" in line)
    del lines[added : added + 6]
    kept = "".join(lines)
    assert kept == text or kept == text + "\n"


def test_methods_in_one_line_are_left_to_the_user() -> None:
    full = "{full: {trainable: all, learning_rate: 0.1, weight_decay: 0.1}}"
    text = (
        TEXT.split("\nmethods:")[0]
        + f"\nmethods: {full}\ncomparison: {{}}\ntracking: {{experiment: x}}\n"
    )
    with pytest.raises(ParamsError, match="add it yourself"):
        with_method(text, "theirs", SETTINGS)
