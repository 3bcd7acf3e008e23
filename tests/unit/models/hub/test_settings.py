"""What a model's config.json says, and that nobody needs transformers for GPT-2."""

import ast
import json
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig

from lora_compare import models
from lora_compare.errors import CheckpointError, ParamsError
from lora_compare.models.hub.fetching import fetch
from lora_compare.models.hub.folder import check_folder
from lora_compare.models.hub.settings import check_settings, classifier_name


def test_what_names_no_architecture_has_no_classifier() -> None:
    for kind in (None, "", 3, ["bert"], "bert-9000", "vit"):
        assert classifier_name({"model_type": kind}) == ""
    assert classifier_name({}) == ""
    assert classifier_name({"model_type": "bert"}) == "BertForSequenceClassification"


def test_settings_of_any_size_that_models_have_pass(tmp_path: Path) -> None:
    largest = {
        "model_type": "llama",
        "num_hidden_layers": 126,
        "hidden_size": 16_384,
        "max_position_embeddings": 10_485_760,
        "rope_theta": 5e12,
        "vocab_size": 262_144,
        "_attn_implementation": "flash_attention_2",
        "quantization_config": None,
        "label2id": {"A": 0},
        "problem_type": "single_label_classification",
    }
    (tmp_path / "config.json").write_text(json.dumps(largest))
    assert check_settings(tmp_path) == largest
    assert AutoConfig.from_pretrained(tmp_path).num_hidden_layers == 126


def test_a_long_value_is_shortened_in_the_message(tmp_path: Path) -> None:
    settings = {"model_type": "bert", "auto_map": {"AutoModel": "x" * 10_000}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError) as caught:
        check_settings(tmp_path)
    assert len(str(caught.value)) < 1000


def test_without_transformers_the_message_has_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for attempt in (
        lambda: check_folder(tmp_path),
        lambda: fetch("google-bert/bert-base-uncased", "0" * 40),
    ):
        with pytest.raises(ParamsError) as caught:
            attempt()
        assert 'pip install "lora-compare[hub]"' in caught.value.next
        assert caught.value.where == "params.yaml: model.name"


def test_no_module_imports_transformers_before_it_is_needed() -> None:
    for path in Path(models.__file__).parents[1].rglob("*.py"):
        statements = ast.parse(path.read_text(encoding="utf-8")).body
        imports = [s for s in statements if isinstance(s, ast.Import | ast.ImportFrom)]
        names = [getattr(s, "module", None) or s.names[0].name for s in imports]
        assert not [name for name in names if name.split(".")[0] == "transformers"], path
